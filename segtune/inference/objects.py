"""The objects of a predicted mask: connected regions, with their scores and outlines."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segtune.config.output_settings import OBJECT, PolygonSettings
from segtune.data.overlays import Mask
from segtune.inference.cleaning import components
from segtune.inference.polygons import Ring, polygon


@dataclass(frozen=True, eq=False)
class FoundObject:
    """An object in an image.

    `mask` (h, w) are its pixels in its box, whose first column and row in the image are `left` and `top`; `score` is
    its mean probability, 0 to 1, None where there is none.
    """

    mask: Mask
    left: int
    top: int
    label: str = OBJECT
    score: float | None = None
    settings: PolygonSettings = field(default_factory=PolygonSettings)

    @property
    def area(self) -> int:
        """Its number of pixels."""
        return int(self.mask.sum())

    @cached_property
    def has_holes(self) -> bool:
        """Whether it goes all around some background."""
        around = components(~np.pad(self.mask, 1), 4)
        return len(around.boxes) > 1

    @cached_property
    def polygon(self) -> Ring:
        """Its outline in the image, see `segtune.inference.polygons`."""
        return np.asarray(polygon(self.mask, self.settings) + np.array([self.left, self.top])).round(2)

    @property
    def as_mask(self) -> bool:
        """Whether a format that has run-length encoded masks gets it as such."""
        return self.settings.rle == "all" or (self.settings.rle == "holes" and self.has_holes)


def find_objects(
    mask: Mask, probability: NDArray[np.float32] | None, settings: PolygonSettings, label: str = OBJECT
) -> list[FoundObject]:
    """Return the objects of a mask (H, W); pixels that touch, if only at a corner, are one object.

    Args:
        mask: The mask.
        probability: (H, W), for their scores.
        settings: How they are outlined.
        label: What they are called.
    """
    found = components(mask, 8)
    objects = []
    for number, (left, top, width, height, _) in enumerate(found.boxes.tolist(), start=1):
        box = slice(top, top + height), slice(left, left + width)
        pixels = found.labels[box] == number
        score = None if probability is None else round(float(probability[box][pixels].mean(dtype=np.float64)), 4)
        objects.append(FoundObject(pixels, left, top, label, score, settings))
    return objects


def run_lengths(pixels: Mask) -> list[int]:
    """Return the lengths of runs of equal values in pixels (N,), beginning with those that are false, perhaps none."""
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], changes, [len(pixels)]])).tolist()
    return [0, *lengths] if pixels[0] else lengths
