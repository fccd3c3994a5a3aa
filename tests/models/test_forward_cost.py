"""Multiply-adds of a forward pass: by hand, and layer by layer as those of the whole."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.config.model_settings import DeepLabV3PlusSettings, FCN8sSettings
from segtune.models.backbones.registry import BACKBONES, spec_of
from segtune.models.forward_cost import model_macs, multiply_adds
from segtune.models.layer_info import describe

Function = Callable[[Tensor], Tensor]


class Of(nn.Module):
    """A function as a network."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def attend(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(tokens, tokens, tokens)


MACS: dict[str, tuple[Function, int]] = {
    "conv": (nn.Conv2d(4, 6, 3, padding=1), 6 * 4 * 9 * 8 * 10),
    "conv, strided and grouped": (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), 8 * 2 * 9 * 4 * 5),
    "depthwise": (nn.Conv2d(4, 4, 5, padding=2, groups=4), 4 * 25 * 8 * 10),
    "transposed": (nn.ConvTranspose2d(4, 6, 2, stride=2), 4 * 6 * 4 * 8 * 10),
    "fully connected": (lambda x: nn.Linear(4, 7)(x.permute(0, 2, 3, 1)), 7 * 4 * 8 * 10),
    "products": (lambda x: x.flatten(2).transpose(1, 2) @ x.flatten(2), 80 * 4 * 80),
    "attention": (attend, 2 * 80 * 80 * 4),
    "of what does not depend on the image": (lambda x: x + torch.ones(8, 4) @ torch.ones(4, 10), 320),
    "sums": (lambda x: F.avg_pool2d(x + 1, 2).relu(), 0),
}  # fmt: skip


@pytest.mark.parametrize(("function", "macs"), MACS.values(), ids=MACS)
def test_multiply_adds_by_hand(function: Function, macs: int) -> None:
    assert multiply_adds(Of(function), torch.zeros(1, 4, 8, 10)) == macs


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv3_small_050", "convnextv2_atto", "edgenext_xx_small"])
def test_multiply_adds_of_the_layers_are_those_of_the_network(name: str) -> None:
    with torch.device("meta"):
        whole = multiply_adds(spec_of(name).build(), torch.zeros(1, 3, 96, 128))
    summary = describe(spec_of(name), (96, 128))
    assert 0 < whole == summary.macs == summary.node_macs.sum()


def test_multiply_adds_of_a_model() -> None:
    summary = describe(BACKBONES["resnet50"], (64, 96))
    third, fourth, fifth = (f"layer{n}.{unit}.act3" for n, unit in ((2, 3), (3, 5), (4, 2)))
    maps = {name: summary.by_name[name] for name in (third, fourth, fifth)}
    score = sum(layer.channels * layer.height * layer.width for layer in maps.values())
    # Enlarging: transposed convolutions of one channel, twice by 2 and once by 8.
    enlarged = 16 * (maps[fifth].height * maps[fifth].width + maps[fourth].height * maps[fourth].width)
    found = model_macs(summary, list(maps), FCN8sSettings())
    assert found == summary.by_name[fifth].macs + score + enlarged
    assert model_macs(summary, [fourth, fifth], FCN8sSettings()) is None  # it reads three
    assert model_macs(summary, [fourth, third], DeepLabV3PlusSettings()) is None  # from fine to coarse
