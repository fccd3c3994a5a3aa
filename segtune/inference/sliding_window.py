"""A large picture in tiles: predicted one by one, joined without seams.

A network sees less around a pixel near a tile's border, so neighbours overlap. The outer quarter of an overlap counts
for nothing, and over the middle half one tile gives way to the other. Probabilities are joined, not logits: far from
zero a logit says little, yet it would outvote the neighbour. The weights of a pixel add up to exactly 1, so tiles are
summed straight into the result, and nothing else is as large as the picture.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

GRID = 32  # tiles start on the strides of the network, which then sees the same grid as on the whole picture
_STEPS = 4096  # ramps in steps of a power of two: then w + (1 - w) is 1 without any rounding

Span = tuple[int, int]
Floats = NDArray[np.float32]


def spans(length: int, tile: int, overlap: float) -> list[Span]:
    """Divide a side into tiles, given as first pixel and the one after the last.

    Args:
        length: The side, in pixels.
        tile: Of a tile; the last one may be up to 31 pixels longer, so that it too starts on the grid.
        overlap: Share of a tile that its neighbour covers too, at least.
    """
    last = max(0, length - tile) // GRID
    step = max(1, int(tile * (1 - overlap)) // GRID)
    gaps = -(-last // step)
    starts = [GRID * (number * last // gaps) for number in range(gaps)] + [GRID * last]
    return [*((start, start + tile) for start in starts[:-1]), (starts[-1], length)]


def weights(tiles: Sequence[Span]) -> list[Floats]:
    """Say how much each pixel of each tile counts; over all tiles a pixel's weights add up to exactly 1."""
    length = tiles[-1][1]
    takes_over = [_ramp(length, this, following) for this, following in pairwise(tiles)]
    rising, falling = [np.ones(length), *takes_over], [*takes_over, np.zeros(length)]
    return [
        (up - down)[start:end].astype(np.float32) for (start, end), up, down in zip(tiles, rising, falling, strict=True)
    ]


def _ramp(length: int, this: Span, following: Span) -> NDArray[np.float64]:
    """Go from 0, where `this` tile counts, to 1, where the `following` one does."""
    common = this[1] - following[0]
    place = np.arange(length) + 0.5 - following[0]
    if common == 0:
        return (place > 0).astype(float)
    return np.round(np.clip((place / common - 0.25) * 2, 0, 1) * _STEPS) / _STEPS


def predict_tiled(
    predict: Callable[[NDArray[np.uint8]], Floats], photo: NDArray[np.uint8], tile: int, overlap: float
) -> Floats:
    """Predict a picture in tiles.

    Args:
        predict: From a part (h, w, 3) of the photo to its probabilities (h, w).
        photo: (H, W, 3).
        tile: See `spans`.
        overlap: See `spans`.

    Returns:
        Probabilities (H, W).
    """
    rows, columns = (spans(length, tile, overlap) for length in photo.shape[:2])
    whole = np.zeros(photo.shape[:2], np.float32)
    for (top, bottom), of_row in zip(rows, weights(rows), strict=True):
        for (left, right), of_column in zip(columns, weights(columns), strict=True):
            part = predict(photo[top:bottom, left:right])
            whole[top:bottom, left:right] += part * of_row[:, None] * of_column
    return whole
