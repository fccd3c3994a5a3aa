"""Pairs on disk, and a model whose logits are known: it reads them off the red channel."""

import cv2
import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from segtune.data.sources.base import Pair

SIZES = [(64, 64), (40, 90), (96, 33), (64, 128), (50, 50)]


class Red(nn.Module):
    """Logits (N, 1, H, W) of images (N, 3, H, W): the red channel, 0 to 255, as -4 to 4."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, images: Tensor) -> Tensor:
        return self.sign * (images[:, :1].float() - 127.5) / 32


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
