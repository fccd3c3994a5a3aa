"""The networks the tests share, built once, with random weights and without a download."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from torch import nn

from segtune.backbones import BACKBONES
from segtune.build import BuiltModel, build_model
from segtune.config import BackboneSettings, DecoderSettings, DeepLabV3PlusSettings, FCN8sSettings

CONF = Path(__file__).parents[1] / "conf"


def enliven(network: nn.Module) -> None:
    """Give every BatchNorm random values, as training would: fresh ones of residual branches multiply by zero."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)


def create_narrow(architecture: str, **options: Any) -> nn.Module:
    """Create a timm network; of VGG16's two fully connected layers the first gets 32 channels, for memory and time."""
    narrow: dict[str, Any] = {"mlp_ratio": 32 / 4096} if architecture == "vgg16" else {}
    return ORIGINAL_CREATE(architecture, **options, **narrow)


ORIGINAL_CREATE = timm.create_model


@pytest.fixture(scope="session")
def network_of() -> Callable[[str], nn.Module]:
    """Give a fresh copy of a whole backbone by name, in evaluation mode, with random weights."""

    @cache
    def original(name: str) -> nn.Module:
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.setattr(timm, "create_model", create_narrow)
            torch.manual_seed(0)
            network = BACKBONES[name].build().eval()
            enliven(network)
        return network

    return lambda name: copy.deepcopy(original(name))


@pytest.fixture(scope="session")
def built_of(network_of: Callable[[str], nn.Module]) -> Callable[[str], BuiltModel]:
    """Give a fresh copy of a model by BACKBONE_DECODER, with the taps of `conf/taps` and a narrow decoder."""
    decoders: dict[str, DecoderSettings] = {
        "deeplabv3plus": DeepLabV3PlusSettings(channels=16, low_channels=8),
        "fcn8s": FCN8sSettings(),
    }

    @cache
    def original(pair: str) -> BuiltModel:
        name, decoder = pair.split("_")
        taps = yaml.safe_load((CONF / "taps" / f"{pair}.yaml").read_text(encoding="utf-8"))
        network = network_of(name)
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.setitem(BACKBONES, name, replace(BACKBONES[name], build=lambda: network))
            torch.manual_seed(0)
            return build_model(BackboneSettings(name, weights="none"), taps, decoders[decoder])  # type: ignore[arg-type]

    return lambda pair: copy.deepcopy(original(pair))
