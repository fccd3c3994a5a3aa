"""Building a model: what is refused, what is handed on, and where gradients stop."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from segtune.config.model_settings import BackboneSettings, DecoderSettings, DeepLabV3PlusSettings, FCN8sSettings
from segtune.errors import UserError
from segtune.models import build
from segtune.models.backbones.registry import BACKBONES
from segtune.models.build import BuiltModel, build_decoder, build_model, choose_taps
from segtune.models.pretrained import LoadedWeights
from segtune.models.taps import FeatureInfo

BuiltOf = Callable[[str], BuiltModel]


def build_error(decoder: DecoderSettings, taps: dict[str, str], backbone: str = "resnet50") -> str:
    with torch.device("meta"), pytest.raises(UserError) as caught:
        build_model(BackboneSettings(backbone, weights="none"), taps, decoder)  # type: ignore[arg-type]
    return str(caught.value)


def test_missing_roles() -> None:
    assert build_error(DeepLabV3PlusSettings(), {"high": "layer3"}) == (
        "The decoder deeplabv3plus reads the taps low, high; got high. Set taps.low=LAYER."
    )
    assert build_error(FCN8sSettings(), {}) == (
        "The decoder fcn8s reads the taps pool3, pool4, high; got none. "
        "Set taps.pool3=LAYER taps.pool4=LAYER taps.high=LAYER."
    )


def test_roles_of_another_decoder() -> None:
    assert build_error(DeepLabV3PlusSettings(), {"low": "layer1", "high": "layer3", "pool4": "layer2"}) == (
        "The decoder deeplabv3plus reads the taps low, high; got low, high, pool4. Set no others."
    )


def test_low_tap_coarser_than_the_high_one_after_an_unusual_cut() -> None:
    assert build_error(DeepLabV3PlusSettings(), {"low": "layer3", "high": "layer1"}).startswith(
        "The taps of resnet50 must be different layers, from shallow to deep in the order low, high."
    )


@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride_reaches_decoder_and_logits(stride: int) -> None:
    with torch.device("meta"):
        built = build_model(
            BackboneSettings("xception", weights="none", output_stride=stride),  # type: ignore[arg-type]
            {"low": "block4_sepconv1_act", "high": "exit"},
            DeepLabV3PlusSettings(),
        )
        assert built.model(torch.zeros(2, 3, 64, 96)).shape == (2, 1, 64, 96)
    assert built.model.features["high"] == FeatureInfo("act4", 2048, stride)
    rates = {layer.dilation for layer in built.model.decoder.modules() if isinstance(layer, nn.Conv2d)}
    assert rates == {(1, 1), *((16 // stride * rate,) * 2 for rate in (6, 12, 18))}


def test_blocks_and_weights_are_handed_on(built_of: BuiltOf) -> None:
    built = built_of("vgg16_fcn8s")
    assert built.blocks == BACKBONES["vgg16"].blocks
    assert built.weights.source is None
    assert built.new == ("decoder",)


def test_auto_is_the_last_layer_of_each_stride() -> None:
    spec = BACKBONES["resnet50"]
    with torch.device("meta"):
        network = spec.build()
    taps = {"high": "auto", "low": "conv2_block1_out"}
    chosen = choose_taps(network, spec, taps, DeepLabV3PlusSettings())
    assert list(chosen.items()) == [("low", "conv2_block1_out"), ("high", "layer3.5.act3")]


def test_a_decoder_gets_channels_and_strides_of_its_roles() -> None:
    features = {"low": FeatureInfo("a", 7, 4), "high": FeatureInfo("b", 9, 8)}
    decoder = build_decoder(DeepLabV3PlusSettings(channels=16, low_channels=8), features)
    shapes = {name: p.shape for name, p in decoder.named_parameters()}
    assert shapes["project.0.weight"][1] == 7
    assert shapes["aspp.convs.0.0.weight"][1] == 9
    assert {m.dilation for m in decoder.modules() if isinstance(m, nn.Conv2d)} >= {(12, 12), (24, 24), (36, 36)}


def test_layers_that_the_weights_file_lacks_are_new(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those behind the deepest tap do not matter."""
    lacking = LoadedWeights("a file", missing=("layer2.0.conv1.weight", "layer4.0.conv1.weight"))
    monkeypatch.setattr(build, "load_weights", lambda *_: lacking)
    with torch.device("meta"), caplog.at_level(logging.WARNING):
        built = build_model(BackboneSettings("resnet50"), {"low": "layer1", "high": "layer3"}, DeepLabV3PlusSettings())
    assert built.new == ("backbone.layer2.0.conv1", "decoder")
    assert caplog.messages == [
        "The weights file lacks layer2.0.conv1.weight: they start from random values and always train."
    ]


def test_a_stop_inside_the_decoder(network_of: Callable[[str], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("resnet50")
    monkeypatch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], build=lambda: network))
    decoder = DeepLabV3PlusSettings(channels=16, low_channels=8)
    built = build_model(
        BackboneSettings("resnet50", weights="none"), {"low": "layer1", "high": "layer3"}, decoder, ["decoder.aspp"]
    )
    built.stops["decoder.aspp"].active = True
    built.model.eval()(torch.zeros(1, 3, 64, 64)).sum().backward()
    reached = {name for name, p in built.model.named_parameters() if p.grad is not None}
    assert any(name.startswith("decoder.refine") for name in reached)
    assert not any(name.startswith(("decoder.aspp", "backbone.layer3")) for name in reached)
    assert "backbone.layer1.0.conv1.weight" in reached  # through the low tap
