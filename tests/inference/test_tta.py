"""Test-time augmentation by hand, and by what must not change."""

import pytest
import torch
from torch import Tensor

from segtune.inference.tta import with_tta


def to_the_right(images: Tensor) -> Tensor:
    """A network that finds more foreground the further right, and where it is bright."""
    ramp = torch.linspace(-2, 2, images.shape[-1]).expand(len(images), 1, *images.shape[-2:])
    return ramp + images[:, :1].float() / 255


def test_without_averaging_the_logits_are_the_networks() -> None:
    images = torch.randint(256, (2, 3, 40, 50), dtype=torch.uint8)
    assert torch.equal(with_tta(to_the_right)(images), to_the_right(images))


def test_flips_by_hand() -> None:
    images = torch.randint(256, (2, 3, 40, 51), dtype=torch.uint8)
    found = with_tta(to_the_right, flips=True)(images).sigmoid()
    expected = (to_the_right(images).sigmoid() + to_the_right(images.flip(-1)).sigmoid().flip(-1)) / 2
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found, to_the_right(images).sigmoid(), atol=0.1)


def test_with_flips_a_mirrored_image_gives_the_mirrored_mask() -> None:
    images = torch.randint(256, (1, 3, 40, 51), dtype=torch.uint8)
    predict = with_tta(to_the_right, flips=True, scales=[0.8, 1.0])
    assert torch.allclose(predict(images.flip(-1)).flip(-1), predict(images), atol=1e-4)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_a_scale_shows_the_network_another_size(scale: float) -> None:
    seen = []

    def network(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape[-2:]))
        return torch.full((1, 1, *images.shape[-2:]), 0.5)

    found = with_tta(network, flips=True, scales=[scale])(torch.zeros(1, 3, 60, 100, dtype=torch.uint8))
    assert found.shape == (1, 1, 60, 100)
    assert seen == [(max(32, round(60 * scale)), round(100 * scale))] * 2
    assert found.flatten().tolist() == pytest.approx([0.5] * 6000, abs=1e-4)
