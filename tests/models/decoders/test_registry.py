"""Every decoder of the registry keeps the contract."""

from typing import Any, get_args

import pytest
import torch
from torch import nn

from segtune.config.model_settings import DecoderSettings, DeepLabV3PlusSettings, FCN8sSettings
from segtune.models.decoders.registry import DECODERS
from segtune.models.module_paths import within

SETTINGS: dict[str, Any] = {"deeplabv3plus": DeepLabV3PlusSettings, "fcn8s": FCN8sSettings}


def test_every_decoder_has_settings_and_every_settings_a_decoder() -> None:
    assert DECODERS.keys() == SETTINGS.keys() == {kind().name for kind in get_args(get_args(DecoderSettings)[0])}


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("name", DECODERS)
def test_features_become_logits(name: str, outputs: int) -> None:
    decoder_class = DECODERS[name]
    assert tuple(decoder_class.strides) == decoder_class.roles
    assert list(decoder_class.strides.values()) == sorted(decoder_class.strides.values())
    channels = {role: 5 + index for index, role in enumerate(decoder_class.roles)}
    decoder = decoder_class(channels, decoder_class.strides, SETTINGS[name](outputs=outputs))
    assert isinstance(decoder, nn.Module)
    features = {
        role: torch.rand(2, channels[role], 96 // stride, 64 // stride)
        for role, stride in decoder_class.strides.items()
    }
    finest = min(decoder_class.strides.values())
    assert decoder(features).shape == (2, outputs, 96 // finest, 64 // finest)


@pytest.mark.parametrize("name", DECODERS)
def test_only_fixed_starts_are_the_same_with_every_seed(name: str) -> None:
    decoder_class = DECODERS[name]
    starts = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            built = decoder_class(dict.fromkeys(decoder_class.roles, 5), decoder_class.strides, SETTINGS[name]())
        layers = {name: layer for name, layer in built.named_modules() if isinstance(layer, nn.Conv2d)}
        layers |= {name: layer for name, layer in built.named_modules() if isinstance(layer, nn.ConvTranspose2d)}
        starts.append({name: layer.weight for name, layer in layers.items()})
    same = {name for name, weight in starts[0].items() if torch.equal(weight, starts[1][name])}
    fixed = getattr(decoder_class, "fixed_start", ())
    assert {name.partition(".")[0] for name in same} == set(fixed)
    assert all(within(name, fixed) == (name in same) for name in starts[0])
