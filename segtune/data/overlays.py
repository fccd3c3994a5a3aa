"""Draw masks and predictions over images."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

RGBImage = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]

#: Greys of the stripes of void, and their width in pixels.
_STRIPES, _WIDTH = (96, 160), 4
#: The least and the most pixels of the longer side of an image that is shown: to be seen, and for small files.
_SIDES = (256, 384)
_HIT, _FALSE_ALARM, _MISS = (64, 200, 90), (235, 70, 60), (70, 120, 245)


def compare(image: RGBImage, truth: Mask, predicted: Mask, void: Mask | None = None) -> RGBImage:
    """Return three views of an RGB image (H, W, 3) side by side, as (H, 3 W, 3).

    The image; the true mask outlined, with the rest dimmed; the errors of the prediction, as in `error_overlay`. In the
    latter two, `void` is striped.
    """
    drawn = outlined(image, truth), error_overlay(image, truth, predicted)
    return np.concatenate([image, *(striped(each, void) for each in drawn)], axis=1)


def for_display(image: RGBImage, *masks: Mask | None) -> tuple[Any, ...]:
    """Return an image and masks of its size, resized so that the longer side has 256 to 384 pixels; None stays None."""
    side = max(image.shape[:2])
    scale = float(np.clip(side, *_SIDES)) / side
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    nearest = partial(cv2.resize, dsize=(width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    resized = np.asarray(cv2.resize(image, (width, height), interpolation=smooth))
    return resized, *(mask if mask is None else np.asarray(nearest(mask.astype(np.uint8))) > 0 for mask in masks)


def outlined(image: RGBImage, mask: Mask) -> RGBImage:
    """Return an image with a mask outlined and the rest dimmed."""
    drawn = np.ascontiguousarray(np.where(mask[..., None], image, image // 3))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, (255, 255, 255), 1)
    return drawn


def error_overlay(image: RGBImage, truth: Mask, predicted: Mask) -> RGBImage:
    """Return an image tinted green at true positives, red at false positives and blue at false negatives."""
    drawn = image.copy()
    for where, colour in ((truth & predicted, _HIT), (~truth & predicted, _FALSE_ALARM), (truth & ~predicted, _MISS)):
        drawn[where] = (0.45 * image[where] + 0.55 * np.array(colour)).astype(np.uint8)
    return drawn


def striped(image: RGBImage, void: Mask | None) -> RGBImage:
    """Return an image (H, W, 3) with grey diagonal stripes where it is void (H, W); None is nowhere."""
    if void is None:
        return image
    rows, columns = np.nonzero(void)
    drawn = image.copy()
    drawn[rows, columns] = np.array(_STRIPES, np.uint8)[(rows + columns) // _WIDTH % 2, None]
    return drawn


def tinted(image: RGBImage, mask: Mask, tint: Colour, line: Colour, opacity: float, width: int = 1) -> RGBImage:
    """Return an image (H, W, 3) blended with `opacity` (0 to 1) of a tint inside a mask, which has an outline."""
    values = np.arange(256)[:, None]
    table = np.round((1 - opacity) * values + opacity * np.array(tint)).astype(np.uint8)  # saves memory: no float image
    drawn = image.copy()
    np.copyto(drawn, cv2.LUT(image, table[:, None]), where=mask[..., None])
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(drawn, contours, -1, line, width), np.uint8)


def stack(rows: Sequence[RGBImage]) -> RGBImage:
    """Return images stacked, with a thin gap; what is right of narrower ones is white as the gap is."""
    width = max(row.shape[1] for row in rows)
    gap = np.full((4, width, 3), 255, np.uint8)
    wide = (np.pad(row, [(0, 0), (0, width - row.shape[1]), (0, 0)], constant_values=255) for row in rows)
    parts = [part for row in wide for part in (row, gap)][:-1]
    return np.concatenate(parts, axis=0)


def png(image: RGBImage) -> bytes:
    """Return an RGB image (H, W, 3) encoded as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"OpenCV cannot encode an image of shape {image.shape}")
    return data.tobytes()


def jpeg(image: RGBImage, quality: int = 82) -> bytes:
    """Return an RGB image (H, W, 3) encoded as JPEG."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"OpenCV cannot encode an image of shape {image.shape}")
    return data.tobytes()
