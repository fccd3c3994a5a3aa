"""Sliding windows: every pixel counts once, borders of tiles leave no trace, memory stays bounded."""

import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import segtune
from segtune.inference.predictor import Predictor
from segtune.inference.sliding_window import predict_tiled, spans, weights, with_tiles
from segtune.inference.tta import with_tta
from segtune.runtime.device import Device

CPU = Device(torch.device("cpu"), torch.float32)


def local_network(strided: bool = False) -> nn.Module:
    """Return convolutions that reach 3 pixels to each side; `strided` ones 24, on a grid of 8, upsampled."""
    torch.manual_seed(0)
    conv = [nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1), nn.Tanh()]
    if not strided:
        return nn.Sequential(*conv, nn.Conv2d(4, 1, 3, padding=1)).eval()
    deep = [nn.AvgPool2d(8, ceil_mode=True), nn.Conv2d(4, 1, 3, padding=1), nn.Upsample(scale_factor=8)]
    return nn.Sequential(*conv, *deep).eval()


def of_image_size(network: nn.Module):
    """Return a network from bytes to logits of the size of the image."""

    def logits(images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        return network(images.float() / 255 - 0.5)[..., :height, :width] * 10

    return logits


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("tile", [128, 200, 256])
@pytest.mark.parametrize("overlap", [0, 0.1, 0.25, 0.5])
def test_weights_of_every_pixel_add_up_to_exactly_one(tile: int, overlap: float) -> None:
    for length in [1, 31, 127, 128, 129, 159, 160, 161, 255, 256, 287, 288, 289, 517, 1000, 1033, 2047]:
        tiles = spans(length, tile, overlap)
        total = np.zeros(length, np.float32)
        for (start, end), share in zip(tiles, weights(tiles), strict=True):
            assert share.dtype == np.float32
            assert share.min() >= 0
            total[start:end] += share
        assert (total == 1).all(), (length, tiles)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
def test_tiles_start_on_the_grid_and_overlap_as_asked(overlap: float) -> None:
    for length in range(1, 1500, 7):
        tiles = spans(length, 256, overlap)
        assert tiles[0][0] == 0
        assert tiles[-1][1] == length
        assert all(start % 32 == 0 for start, _ in tiles)
        assert all(end - start == 256 for start, end in tiles[:-1])
        assert tiles[-1][1] - tiles[-1][0] < 256 + 32
        assert all(this[1] - following[0] >= 256 * overlap for this, following in pairwise(tiles))


def test_the_border_of_a_tile_does_not_count() -> None:
    """By hand: tiles of 128 that share 64 pixels. The outer 16 have weight 0, over the middle 32 they cross-fade."""
    assert spans(192, 128, 0.5) == [(0, 128), (64, 192)]
    left, right = weights([(0, 128), (64, 192)])
    assert (left[:80] == 1).all()
    assert (left[112:] == 0).all()
    assert (right[:16] == 0).all()
    assert (right[48:] == 1).all()
    np.testing.assert_allclose(right[16:48], (np.arange(32) + 0.5) / 32, atol=1 / 4096)


@pytest.mark.parametrize(("height", "width"), [(517, 1033), (300, 100), (40, 700), (257, 289), (10, 600)])
@pytest.mark.parametrize(("strided", "overlap"), [(False, 0.25), (True, 0.5)])
def test_a_local_network_gives_the_same_in_tiles(height: int, width: int, strided: bool, overlap: float) -> None:
    """Its receptive field is smaller than the border of weight 0: 16 and 32 pixels, a quarter of the overlap."""
    network, image = of_image_size(local_network(strided)), image_of(height, width)
    whole = Predictor(network, (max(32, height), max(32, width)), 0.5, CPU, tile=8192).predict(image)
    tiled = Predictor(network, (64, 64), 0.5, CPU, tile=256, overlap=overlap).predict(image)
    assert whole.probability.std() > 0.01
    np.testing.assert_allclose(tiled.probability, whole.probability, atol=1e-6)
    undecided = np.abs(whole.probability - 0.5) < 1e-6
    assert ((tiled.mask == whole.mask) | undecided).all()


def test_without_the_margin_borders_would_show() -> None:
    """The test above can fail: hard edges between tiles differ from the whole."""
    network, image = of_image_size(local_network()), image_of(256, 512)
    whole = Predictor(network, (64, 64), 0.5, CPU, tile=8192).predict(image)
    hard = Predictor(network, (64, 64), 0.5, CPU, tile=256, overlap=0).predict(image)
    assert np.abs(hard.probability - whole.probability).max() > 1e-3


@pytest.mark.parametrize("size", [(128, 128), (97, 128), (128, 33), (32, 32)])
def test_what_fits_in_one_tile_is_the_whole_image(size: tuple[int, int]) -> None:
    network, image = of_image_size(local_network()), image_of(*size)
    tiled = Predictor(network, (64, 64), 0.4, CPU, tile=128).predict(image)
    whole = Predictor(network, size, 0.4, CPU).predict(image)
    assert (tiled.probability == whole.probability).all()
    assert (tiled.mask == whole.mask).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 31), (31, 300), (1, 500)])
def test_tiny_images(built_of, size: tuple[int, int]) -> None:
    model = built_of("resnet50_deeplabv3plus").model.eval()
    for tile in (None, 128):
        mask, probability = Predictor(model, (64, 64), 0.5, CPU, tile=tile).predict(image_of(*size))
        assert mask.shape == probability.shape == size
        assert np.isfinite(probability).all()


def test_averaging_in_tiles_equals_averaging_of_the_whole() -> None:
    """With a finite receptive field, and a width at which the mirror image has the same grid."""
    network = with_tta(of_image_size(local_network()), flips=True)
    image = image_of(150, 512)
    whole = Predictor(network, (64, 64), 0.5, CPU, tile=8192).predict(image)
    tiled = Predictor(network, (64, 64), 0.5, CPU, tile=128, overlap=0.5).predict(image)
    np.testing.assert_allclose(tiled.probability, whole.probability, atol=1e-6)


def test_scales_in_tiles() -> None:
    network = with_tta(of_image_size(local_network()), flips=True, scales=[0.5, 1.0, 1.5])
    mask, probability = Predictor(network, (64, 64), 0.5, CPU, tile=128).predict(image_of(201, 333))
    assert mask.shape == (201, 333)
    assert ((probability > 0.5) == mask).all()


def batch_of(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def test_the_parts_come_row_by_row_and_once() -> None:
    seen = []

    def network(part: torch.Tensor) -> torch.Tensor:
        seen.append((int(part[0, 0, 0, 0]), int(part[0, 1, 0, 0]), *part.shape[-2:]))
        return torch.zeros(1, 1, *part.shape[-2:])  # a probability of 1/2

    y, x = np.mgrid[:300, :400]
    image = np.dstack([y // 32, x // 32, x]).astype(np.uint8)
    assert (predict_tiled(network, batch_of(image), 256, 0.25) == 0.5).all()
    assert seen == [(0, 0, 256, 256), (0, 4, 256, 272), (1, 0, 268, 256), (1, 4, 268, 272)]


def test_images_of_one_size_are_predicted_together_as_one_by_one() -> None:
    images = [np.ascontiguousarray(image_of(140, 300)[::step]) for step in (1, -1)]
    network = with_tiles(of_image_size(local_network()), 128, 0.25)
    together = network(batch_of(*images))
    assert together.shape == (2, 1, 140, 300)
    for image, found in zip(images, together, strict=True):
        torch.testing.assert_close(network(batch_of(image))[0], found, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (5, 31), (31, 300), (40, 7)])
def test_small_images_are_continued_by_reflection(size: tuple[int, int]) -> None:
    image, seen = image_of(*size), list[torch.Tensor]()

    def network(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images[:, :1].float()

    found = with_tiles(network, 512, 0.25)(batch_of(image))
    missing = [(0, max(0, 32 - length)) for length in size]
    assert np.array_equal(seen[0][0].permute(1, 2, 0), np.pad(image, [*missing, (0, 0)], mode="symmetric"))
    assert np.array_equal(found[0, 0], image[..., 0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so(value: float) -> None:
    """Infinity would have the probability 0 or 1."""

    def network(images: torch.Tensor) -> torch.Tensor:
        return torch.full_like(images[:, :1], value, dtype=torch.float32)

    for side in (100, 200):  # in one tile, and in four
        assert not with_tiles(network, 128, 0.25)(batch_of(image_of(side, side))).isfinite().any()


MEMORY = """
import resource, sys
import numpy as np, torch
from segtune.runtime.device import Device
from segtune.inference.predictor import Predictor
torch.set_num_threads(1)
height, width = 9000, 12000
network = torch.nn.Conv2d(3, 1, 3, padding=1)
predictor = Predictor(lambda x: network(x.float() / 255), (64, 64), 0.5,
                      Device(torch.device("cpu"), torch.float32), tile=512)
predictor.predict(np.zeros((1000, 1000, 3), np.uint8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
photo = np.full((height, width, 3), 7, np.uint8)
mask, probability = predictor.predict(photo)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert mask.shape == probability.shape == (height, width)
print((after - before) / 1024, height * width * (3 + 4 + 1) / 2**20)
"""


@pytest.mark.slow
def test_memory_of_a_large_image() -> None:
    """It is that of the image, one float map and the mask, plus at most 64 MiB."""
    env = {**os.environ, "PYTHONPATH": str(Path(segtune.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", MEMORY], env=env, capture_output=True, text=True, check=True)
    grown, needed = map(float, done.stdout.split())
    assert grown < needed + 64, (grown, needed)
