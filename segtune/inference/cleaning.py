"""The clean-up of predicted masks: holes, specks, and all but the largest object."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.config.output_settings import Area, CleanSettings
from segtune.data.overlays import Mask


@dataclass(frozen=True, eq=False)
class Components:
    """The connected parts of a mask.

    `labels` (H, W), int32, is the number of the part that a pixel belongs to, 0 for none. `boxes` (N, 5) are left, top,
    width, height and area in pixels of the parts 1 to N.
    """

    labels: NDArray[np.int32]
    boxes: NDArray[np.int32]

    def only(self, wanted: NDArray[np.bool_]) -> Mask:
        """Return the mask (H, W) of those parts for which `wanted` (N,) is true."""
        return np.asarray(np.append(False, wanted)[self.labels])


def components(mask: Mask, connectivity: int) -> Components:
    """Return the parts of a mask (H, W), connected by edges (`connectivity` 4) or also across corners (8)."""
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    _, labels, facts, _ = cv2.connectedComponentsWithStats(pixels, connectivity=connectivity, ltype=cv2.CV_32S)
    return Components(np.asarray(labels, np.int32), np.asarray(facts[1:], np.int32))


def cleaned(mask: Mask, clean: CleanSettings, scale: float = 1.0) -> Mask:
    """Return a mask with its holes filled, then without small objects, then with the largest object alone.

    Pixels that touch, if only at a corner, are one object. A hole is background, connected by edges, that does not
    reach the image's border. Of several objects of the largest size one is kept.

    Args:
        mask: (H, W).
        clean: What to do.
        scale: Pixels of this mask for each of the image at its own size, for masks at another size.
    """
    if clean.fill_holes:
        background = components(~mask, 4)
        left, top, width, height, area = background.boxes.T
        inside = (left > 0) & (top > 0) & (left + width < mask.shape[1]) & (top + height < mask.shape[0])
        if clean.fill_holes is not True:
            inside &= area < _pixels(clean.fill_holes, mask, scale)
        mask = mask | background.only(inside)
    if clean.min_area or clean.largest:
        objects = components(mask, 8)
        areas = objects.boxes[:, 4]
        wanted = areas >= _pixels(clean.min_area, mask, scale)
        if clean.largest:
            wanted &= np.arange(len(areas)) == (areas.argmax() if len(areas) else 0)
        mask = objects.only(wanted)
    return mask


def _pixels(area: Area, mask: Mask, scale: float) -> float:
    return area * mask.size if area < 1 else area * scale
