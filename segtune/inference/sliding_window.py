"""Sliding-window inference: a large image is predicted tile by tile, and the tiles are blended without seams.

Near the border of a tile the network lacks context, so neighbouring tiles overlap. The outer quarter of an overlap has
weight 0, and over its middle half the weights cross-fade. Probabilities are blended, not logits: a logit far from zero
would outweigh the neighbour's although it hardly changes the probability. The weights of a pixel sum to exactly 1, so
tiles are added straight into the result, and no second array of the image's size is needed.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtune.inference.tta import Network

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


def with_tiles(network: Network, tile: int, overlap: float) -> Network:
    """Return a network that predicts images of any size, at that size, in tiles.

    Args:
        network: Maps images (N, 3, H, W), 0 to 255, with sides of at least 32 pixels, to logits (N, 1, H, W).
        tile: See `spans`.
        overlap: See `spans`.

    Returns:
        A function from images (N, 3, H, W) to logits (N, 1, H, W) on their device. Of images that fit into one tile
        they are the network's; of others those of the blended probability, within ±16, and NaN where the network
        returned NaN or infinity.
    """

    def predict(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = _at_least(GRID, images)
        if max(height, width) <= tile:
            logits = network(padded.contiguous()).to(images.device)
        else:
            logits = predict_tiled(network, padded, tile, overlap).logit_(eps=1e-7)
        return logits[..., :height, :width]

    return predict


def predict_tiled(network: Network, images: Tensor, tile: int, overlap: float) -> Tensor:
    """Return the probabilities (N, 1, H, W) of images, predicted in tiles; the arguments are those of `with_tiles`."""
    rows, columns = (spans(length, tile, overlap) for length in images.shape[-2:])
    whole = torch.zeros(len(images), 1, *images.shape[-2:], device=images.device)
    for (top, bottom), of_row in zip(rows, weights(rows), strict=True):
        for (left, right), of_column in zip(columns, weights(columns), strict=True):
            logits = network(images[..., top:bottom, left:right].contiguous()).to(whole.device)
            part = torch.where(logits.isfinite(), logits.float().sigmoid(), torch.nan)  # of infinity it would be 0 or 1
            weight = torch.from_numpy(of_row[:, None] * of_column).to(whole.device)
            whole[..., top:bottom, left:right] += part * weight
    return whole


def _at_least(side: int, images: Tensor) -> Tensor:
    """Return images (N, 3, H, W) padded by reflection, below and to the right, to the least size of a network's input.

    The outermost pixels are repeated, as by NumPy's padding mode `symmetric`.
    """
    if min(images.shape[-2:]) >= side:
        return images
    rows, columns = (_reflected(length, side).to(images.device) for length in images.shape[-2:])
    return images[..., rows[:, None], columns]


def _reflected(length: int, side: int) -> Tensor:
    """Return the places 0, 1, …, length - 1, length - 1, …, 1, 0, 0, 1, …; at least `side` of them."""
    places = torch.arange(max(length, side)) % (2 * length)
    return places.minimum(2 * length - 1 - places)
