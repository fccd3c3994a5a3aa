"""A tapped backbone: its layers, its cut, and the smallest image; the network is built once."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from segtune.config.model_settings import BackboneSettings, DecoderSettings, DeepLabV3PlusSettings, FCN8sSettings
from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES
from segtune.models.tapped import TappedBackbone, build_tapped


def tapped(
    taps: dict[str, str], size: tuple[int, int], decoder: DecoderSettings | None = None, stride: int | None = None
) -> TappedBackbone:
    settings = SimpleNamespace(
        backbone=BackboneSettings("resnet50", output_stride=stride),  # type: ignore[arg-type]
        taps=taps,
        decoder=decoder or DeepLabV3PlusSettings(),
    )
    with torch.device("meta"):
        return build_tapped(settings, size)  # type: ignore[arg-type]


def test_names_lead_to_layers_of_this_size() -> None:
    found = tapped({"low": "conv2_block3_out", "high": "layer3"}, (96, 128))
    assert found.names == {"low": "conv2_block3_out", "high": "layer3"}
    assert found.nodes == {"low": "layer1.2.act3", "high": "layer3.5.act3"}
    high = found.layers["high"]
    assert (high.channels, high.stride, high.height, high.width) == (1024, 16, 6, 8)


def test_the_cut_has_the_layers_features() -> None:
    found = tapped({"pool3": "layer2", "pool4": "layer3", "high": "layer4"}, (64, 64), FCN8sSettings())
    with torch.device("meta"):
        trunk, features = found.cut()
    assert {role: feature.node for role, feature in features.items()} == found.nodes
    shapes = {role: tuple(x.shape) for role, x in trunk(torch.zeros(1, 3, 64, 64, device="meta")).items()}
    assert shapes == {"pool3": (1, 512, 8, 8), "pool4": (1, 1024, 4, 4), "high": (1, 2048, 2, 2)}


def test_auto_goes_by_the_strides_before_the_output_stride_is_set() -> None:
    plain, dilated = (tapped({"low": "auto", "high": "auto"}, (64, 64), stride=stride) for stride in (None, 8))
    assert plain.nodes == dilated.nodes == {"low": "layer1.2.act3", "high": "layer3.5.act3"}
    assert (plain.layers["high"].stride, dilated.layers["high"].stride) == (16, 8)


def test_an_image_that_leaves_one_pixel_of_the_deepest_tap() -> None:
    found = tapped({"low": "layer1", "high": "layer4"}, (32, 64))
    with pytest.raises(UserError) as caught:
        found.check_size((32, 64))
    assert str(caught.value) == (
        "Images of 32 x 64 pixels are too small for the deepest tap, layer4.2.act3: its map would have 1 x 2 pixels. "
        "Its stride is 32: set data.image_size to 64 or more, or choose a shallower tap."
    )
    tapped({"low": "layer1", "high": "layer4"}, (64, 64)).check_size((64, 64))


def test_the_network_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, built = BACKBONES["resnet50"], []

    def build() -> nn.Module:
        built.append(spec.build())
        return built[-1]

    monkeypatch.setitem(BACKBONES, "resnet50", replace(spec, build=build))
    found = tapped({"low": "layer1", "high": "auto"}, (64, 64), stride=16)
    with torch.device("meta"):
        found.cut()
    assert len(built) == 1
    assert found.network is built[0]
