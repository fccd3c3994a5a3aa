"""Dilation against strides: the dilated network computes, at every n-th pixel, what the strided one does."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES, spec_of
from segtune.models.dilation import set_output_stride
from segtune.models.taps import cut
from tests.conftest import enliven, slow

NetworkOf = Callable[[str], nn.Module]


@pytest.mark.parametrize(("name", "deepest"), [("vgg16", "fc"), slow("resnet50", "layer4"), slow("xception", "exit")])
def test_dilated_networks_agree_with_the_strided_one(name: str, deepest: str, network_of: NetworkOf) -> None:
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    coarse, _ = cut(network_of(name), {"tap": deepest}, BACKBONES[name])
    with torch.no_grad():
        expected = coarse.double()(x)["tap"]
    assert expected.std() > 0
    for stride in (8, 16):
        network = network_of(name)
        set_output_stride(network, stride)
        fine, features = cut(network, {"tap": deepest}, BACKBONES[name])
        assert features["tap"].stride == stride
        with torch.no_grad():
            found = fine.double()(x)["tap"]
        assert found.shape[-2:] == (64 // stride, 64 // stride)
        step = 32 // stride
        # double precision, so that only another order of the same sums is left
        torch.testing.assert_close(found[..., ::step, ::step], expected, rtol=1e-10, atol=1e-10)


def test_shallow_taps_are_untouched_by_the_output_stride(network_of: NetworkOf) -> None:
    dilated = network_of("resnet50")
    set_output_stride(dilated, 8)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found, expected = (
            cut(n, {"t": "layer2"}, BACKBONES["resnet50"])[0](x)["t"] for n in (dilated, network_of("resnet50"))
        )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", BACKBONES)
def test_own_stride_changes_nothing(name: str) -> None:
    with torch.device("meta"):
        network, untouched = BACKBONES[name].build(), BACKBONES[name].build()
        set_output_stride(network, 32)
    assert str(network) == str(untouched)


class Padded(nn.Module):
    """A layer that strides, then one that reaches far, as networks have them; stride 2 is added in front."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 8, stride=8)
        self.layer = layer
        self.behind = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.behind(self.layer(self.down(x)))


LAYERS = {
    "max 2": nn.MaxPool2d(2),
    "max 3, padded": nn.MaxPool2d(3, stride=2, padding=1),
    "max 3, ceil": nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "max 2 x 3, padded aside": nn.MaxPool2d((2, 3), stride=2, padding=(0, 1)),
    "avg 2": nn.AvgPool2d(2),
    "avg 3, zeros count": nn.AvgPool2d(3, stride=2, padding=1),
    "avg 3, zeros do not count": nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "conv 3": nn.Conv2d(4, 4, 3, stride=2, padding=1),
    "conv 2": nn.Conv2d(4, 4, 2, stride=2),
    "conv 5, dilated": nn.Conv2d(4, 4, 5, stride=2, padding=4, dilation=2),
    "conv 1 x 3": nn.Conv2d(4, 4, (1, 3), stride=2, padding=(0, 1)),
    "conv 4, stride 4": nn.Conv2d(4, 4, 4, stride=4),
    "conv as TensorFlow pads": timm.layers.Conv2dSame(4, 4, 3, stride=2),
    "pool, then conv": nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, stride=2, padding=1)),
    "two strides": nn.Sequential(nn.Conv2d(4, 4, 2, stride=2), nn.AvgPool2d(2), nn.Conv2d(4, 4, 5, padding=2)),
}


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_dilated_layer_agrees_with_the_strided_one(layer: nn.Module, output_stride: int) -> None:
    strided = Padded(copy.deepcopy(layer)).double().eval()
    dilated = copy.deepcopy(strided)
    set_output_stride(dilated, output_stride)
    x = torch.randn(1, 3, 128, 192, dtype=torch.float64)
    expected, found = strided(x), dilated(x)
    assert found.shape[-2:] == (128 // output_stride, 192 // output_stride)
    step = found.shape[-1] // expected.shape[-1]
    torch.testing.assert_close(found[..., ::step, ::step], expected, rtol=1e-10, atol=1e-10)
    assert {n: v.shape for n, v in dilated.state_dict().items()} == {
        n: v.shape for n, v in strided.state_dict().items()
    }


def test_an_average_at_the_far_side_is_of_what_is_there() -> None:
    network = Padded(nn.AvgPool2d(2))
    set_output_stride(network, 8)
    pool = network.layer
    assert torch.equal(pool(torch.ones(1, 4, 6, 6)), torch.ones(1, 4, 6, 6))


# Of each way to stride: convolutions, poolings of both kinds, patches, and the padding of TensorFlow.
@pytest.mark.parametrize(
    "name", ["resnet18d", "convnext_atto", "tf_mobilenetv3_small_minimal_100", "regnetx_002", "densenet121"]
)
def test_dilated_networks_of_timm_agree_with_the_strided_one(name: str) -> None:
    torch.manual_seed(0)
    strided = spec_of(name).build().double().eval()
    enliven(strided)
    dilated = copy.deepcopy(strided)
    set_output_stride(dilated, 8, name)
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    module = spec_of(name).stages[-1]
    maps = []
    for network in (strided, dilated):
        network.get_submodule(module).register_forward_hook(lambda m, args, out: maps.append(out))
        with torch.no_grad():
            network(x)
    expected, found = maps
    assert found.shape[-2:] == (8, 12)
    assert expected.std() > 0
    torch.testing.assert_close(found[..., ::4, ::4], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnetblur18", "it has parallel branches of different strides"),
        ("hrnet_w18_small", "it has parallel branches of different strides"),
    ],
)
def test_a_stride_that_cannot_be_taken_away_is_an_error(name: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(UserError) as caught:
        set_output_stride(spec_of(name).build(), 8, name)
    assert str(caught.value) == (
        f"backbone.output_stride=8 is not supported for {name}: {message} that segtune cannot turn into dilation. "
        "Leave it null, and choose taps of the strides you want."
    )
