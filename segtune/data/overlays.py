"""Pictures of predictions."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

RGBImage = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]

_HIT, _FALSE_ALARM, _MISS = (64, 200, 90), (235, 70, 60), (70, 120, 245)


def compare(photo: RGBImage, truth: Mask, predicted: Mask) -> RGBImage:
    """Put three views of an RGB photo (H, W, 3) side by side, as (H, 3 W, 3).

    The photo; the truth outlined and the rest dimmed; the prediction over it: hits green, false alarms red, misses
    blue.
    """
    return np.concatenate([photo, outlined(photo, truth), error_overlay(photo, truth, predicted)], axis=1)


def outlined(photo: RGBImage, mask: Mask) -> RGBImage:
    """Outline a mask on a photo, and dim the rest."""
    picture = np.ascontiguousarray(np.where(mask[..., None], photo, photo // 3))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (255, 255, 255), 1)
    return picture


def error_overlay(photo: RGBImage, truth: Mask, predicted: Mask) -> RGBImage:
    """Tint a photo where the object is found (green), falsely found (red) and missed (blue)."""
    picture = photo.copy()
    for where, colour in ((truth & predicted, _HIT), (~truth & predicted, _FALSE_ALARM), (truth & ~predicted, _MISS)):
        picture[where] = (0.45 * photo[where] + 0.55 * np.array(colour)).astype(np.uint8)
    return picture


def tinted(photo: RGBImage, mask: Mask, tint: Colour, line: Colour, share: float, width: int = 1) -> RGBImage:
    """Mix a share of a tint (0 to 1) into a photo (H, W, 3) inside a mask, and outline it, `width` pixels wide."""
    values = np.arange(256)[:, None]
    table = np.round((1 - share) * values + share * np.array(tint)).astype(np.uint8)  # no floats as large as the photo
    picture = photo.copy()
    np.copyto(picture, cv2.LUT(photo, table[:, None]), where=mask[..., None])
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(picture, contours, -1, line, width), np.uint8)


def stack(rows: Sequence[RGBImage]) -> RGBImage:
    """Stack pictures of one width with a thin gap."""
    gap = np.full((4, rows[0].shape[1], 3), 255, np.uint8)
    parts = [part for row in rows for part in (row, gap)][:-1]
    return np.concatenate(parts, axis=0)


def png(picture: RGBImage) -> bytes:
    """Encode an RGB picture (H, W, 3) as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"OpenCV cannot encode a picture of shape {picture.shape}")
    return data.tobytes()


def jpeg(picture: RGBImage, quality: int = 82) -> bytes:
    """Encode an RGB picture (H, W, 3) as JPEG."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"OpenCV cannot encode a picture of shape {picture.shape}")
    return data.tobytes()
