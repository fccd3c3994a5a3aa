"""Sliding-window inference: a large image is predicted tile by tile, and the tiles are blended without seams.

Near the border of a tile the network lacks context, so neighbouring tiles overlap. The outer quarter of an overlap has
weight 0, and over its middle half the weights cross-fade. Probabilities are blended, not logits: a logit far from zero
would outweigh the neighbour's although it hardly changes the probability. The weights of a pixel sum to exactly 1, so
tiles are added straight into the result, and no second array of the image's size is needed.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

GRID = 32  # tiles start at multiples of the network's stride, so its grid is the same as on the whole image
_STEPS = 4096  # weights are multiples of a power of two, so w + (1 - w) is exactly 1

Span = tuple[int, int]
Floats = NDArray[np.float32]


def spans(length: int, tile: int, overlap: float) -> list[Span]:
    """Return the tiles along one side of an image, each as its first pixel and the one after its last.

    Args:
        length: Length of the side in pixels.
        tile: Length of a tile; the last one may be up to 31 pixels longer, so that it too starts on the grid.
        overlap: Least fraction of a tile that its neighbour also covers.
    """
    last = max(0, length - tile) // GRID
    step = max(1, int(tile * (1 - overlap)) // GRID)
    gaps = -(-last // step)
    starts = [GRID * (number * last // gaps) for number in range(gaps)] + [GRID * last]
    return [*((start, start + tile) for start in starts[:-1]), (starts[-1], length)]


def weights(tiles: Sequence[Span]) -> list[Floats]:
    """Return the weight of each pixel of each tile; over all tiles the weights of a pixel sum to exactly 1."""
    length = tiles[-1][1]
    ramps = [_ramp(length, this, following) for this, following in pairwise(tiles)]
    rising, falling = [np.ones(length), *ramps], [*ramps, np.zeros(length)]
    return [
        (up - down)[start:end].astype(np.float32) for (start, end), up, down in zip(tiles, rising, falling, strict=True)
    ]


def _ramp(length: int, this: Span, following: Span) -> NDArray[np.float64]:
    """Return the weight of the `following` tile: 0 before the overlap's middle half, rising to 1 after it."""
    common = this[1] - following[0]
    offset = np.arange(length) + 0.5 - following[0]
    if common == 0:
        return (offset > 0).astype(float)
    return np.round(np.clip((offset / common - 0.25) * 2, 0, 1) * _STEPS) / _STEPS


def predict_tiled(
    predict: Callable[[NDArray[np.uint8]], Floats], image: NDArray[np.uint8], tile: int, overlap: float
) -> Floats:
    """Return the probabilities (H, W) of an image, predicted in tiles.

    Args:
        predict: Maps a tile (h, w, 3) of the image to its probabilities (h, w).
        image: RGB, (H, W, 3).
        tile: See `spans`.
        overlap: See `spans`.
    """
    rows, columns = (spans(length, tile, overlap) for length in image.shape[:2])
    whole = np.zeros(image.shape[:2], np.float32)
    for (top, bottom), of_row in zip(rows, weights(rows), strict=True):
        for (left, right), of_column in zip(columns, weights(columns), strict=True):
            part = predict(image[top:bottom, left:right])
            whole[top:bottom, left:right] += part * of_row[:, None] * of_column
    return whole
