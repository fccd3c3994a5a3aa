"""Pictures of predictions."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_HIT, _FALSE_ALARM, _MISS = (64, 200, 90), (235, 70, 60), (70, 120, 245)


def compare(photo: Picture, truth: Mask, predicted: Mask) -> Picture:
    """Put three views of an RGB photo (H, W, 3) side by side, as (H, 3 W, 3).

    The photo; the truth outlined and the rest dimmed; the prediction over it: hits green, false alarms red, misses
    blue.
    """
    dimmed = photo // 3
    outlined = np.ascontiguousarray(np.where(truth[..., None], photo, dimmed))
    contours, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(outlined, contours, -1, (255, 255, 255), 1)
    judged = photo.copy()
    for where, colour in ((truth & predicted, _HIT), (~truth & predicted, _FALSE_ALARM), (truth & ~predicted, _MISS)):
        judged[where] = (0.45 * photo[where] + 0.55 * np.array(colour)).astype(np.uint8)
    return np.concatenate([photo, outlined, judged], axis=1)


def stack(rows: Sequence[Picture]) -> Picture:
    """Stack pictures of one width with a thin gap."""
    gap = np.full((4, rows[0].shape[1], 3), 255, np.uint8)
    parts = [part for row in rows for part in (row, gap)][:-1]
    return np.concatenate(parts, axis=0)


def png(picture: Picture) -> bytes:
    """Encode an RGB picture (H, W, 3) as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"OpenCV cannot encode a picture of shape {picture.shape}")
    return data.tobytes()
