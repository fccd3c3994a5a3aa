"""Pairs on disk, and a model whose logits are known: it reads them off the red channel."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.data.sources.base import Pair

SIZES = [(64, 64), (40, 90), (96, 33), (64, 128), (50, 50)]


class Red(nn.Module):
    """Logits (N, 1, H, W) of images (N, 3, H, W): the red channel, 0 to 255, as -4 to 4."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, images: Tensor) -> Tensor:
        return self.sign * (images[:, :1].float() - 127.5) / 32


class Blurred(Red):
    """The mean of `Red` over 81 x 81 pixels, times 4: near the border of a tile it lacks what lies behind."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        for kernel, padding in (((81, 1), (40, 0)), ((1, 81), (0, 40))):
            logits = F.avg_pool2d(logits, kernel, stride=1, padding=padding, count_include_pad=False)
        return 4 * logits


def wide_pair(folder: Path, number: int, size: tuple[int, int]) -> Pair:
    """Return an image of smooth noise, with a mask that a blurred red channel predicts in part."""
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    pair = Pair(f"w{number}", folder / f"p{number}.png", folder / f"m{number}.png")
    Image.fromarray(image).save(pair.photo)
    Image.fromarray((image[..., 0] > 140).astype(np.uint8) * np.uint8(255)).save(pair.mask)
    return pair


@pytest.fixture(scope="session")
def wide_pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Four images: larger than a tile of 128 pixels, in one direction, smaller, and smaller than 32 pixels."""
    folder = tmp_path_factory.mktemp("wide")
    sizes = [(200, 300), (90, 260), (100, 120), (20, 40)]
    return [wide_pair(folder, number, size) for number, size in enumerate(sizes)]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Five images of smooth noise with masks of their red channel, a block of it missing; the last mask is empty."""
    folder, rng, made = tmp_path_factory.mktemp("data"), np.random.default_rng(0), []
    for number, (height, width) in enumerate(SIZES):
        coarse = rng.integers(0, 256, (5, 5, 3), np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        mask = (image[..., 0] > 127).astype(np.uint8)
        mask[: height // 3, : width // 3] = 0
        if number == 4:
            mask[:] = 0
        pair = Pair(f"p{number}", folder / f"p{number}.png", folder / f"m{number}.png")
        Image.fromarray(image).save(pair.photo)
        Image.fromarray(mask * np.uint8(255)).save(pair.mask)
        made.append(pair)
    return made
