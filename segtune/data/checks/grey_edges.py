"""Tell label images from masks with grey edges by where their values lie."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtune.data.labels import Mask, Value, level_of

_ROWS = 1024  # at a time, for the memory of huge masks


def areas_and_edges(mask: Mask, values: Sequence[Value], void: NDArray[np.bool_] | None = None) -> tuple[int, int]:
    """Count values that fill areas, as labels do, and values on slopes, as those of blurred or JPEG edges are.

    A value fills areas if at least half of its pixels are in squares of 2 x 2 pixels of that value; of the others, one
    is on slopes if at least half of its pixels lie between their left and right, or upper and lower, neighbours.

    Args:
        mask: The mask.
        values: The distinct values in it, but for those of void.
        void: `(H, W)`, which pixels are void and count as the darkest value; None for none.

    Returns:
        How many of the values between the darkest and the brightest are of either kind. Of colours the largest channel
        counts, and those that share it count as one.
    """
    levels = np.unique([level_of(value) for value in values])
    if len(levels) < 3:
        return 0, 0
    array = mask.array if mask.legend is None else np.array([level_of(value) for value in mask.legend])[mask.array]
    if void is not None and void.any():
        array = np.where(void, levels[0], array)
    pixels = np.zeros((3, len(levels)), np.int64)
    for top in range(0, len(array), _ROWS):
        ranks = np.searchsorted(levels, array[top : top + _ROWS]).astype(np.uint16)
        for kind, chosen in enumerate((ranks, ranks[_in_squares(ranks)], ranks[_between(ranks)])):
            pixels[kind] += np.bincount(chosen.ravel(), minlength=len(levels))
    every, square, slope = pixels[:, 1:-1]
    areas = 2 * square >= every
    return int(areas.sum()), int((~areas & (2 * slope >= every)).sum())


def _in_squares(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pixels are in a square of 2 x 2 equal pixels."""
    inside = np.zeros(array.shape, bool)
    same = array[:, 1:] == array[:, :-1]
    square = same[1:] & same[:-1] & (array[1:, 1:] == array[:-1, 1:])
    for part in (inside[1:, 1:], inside[1:, :-1], inside[:-1, 1:], inside[:-1, :-1]):
        part |= square
    return inside


def _between(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pixels lie strictly between two opposite neighbours."""
    inside = np.zeros(array.shape, bool)
    for view, part in ((array, inside), (array.T, inside.T)):
        one, here, other = view[:-2], view[1:-1], view[2:]
        part[1:-1] |= ((one < here) & (here < other)) | ((one > here) & (here > other))
    return inside
