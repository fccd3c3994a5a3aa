"""The backbones: how to build each, its facts as data, and its pretrained weights.

A spec holds what cannot be read off the network: the order of its blocks, the normalisation its weights were trained
with, and the names people know its layers by. The networks are timm's.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

import timm
from torch import Tensor, nn

log = logging.getLogger(__name__)

#: Seconds after which a server that does not answer counts as out of reach.
PROBE_SECONDS = 8.0


@dataclass(frozen=True)
class BackboneSpec:
    """What segtune knows about a backbone.

    `blocks` maps block names to the module paths they hold, from the input to the deepest. `aliases` maps layer names
    of Keras Applications to module paths. `renames` maps prefixes of tensor names found in weights files to ours.
    `mean` and `std` normalise RGB values in 0..1.
    """

    name: str
    build: Callable[[], nn.Module]
    architecture: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    blocks: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)


class FullyConvolutionalVGG16(nn.Module):
    """VGG16 with its two hidden fully connected layers as padded convolutions (Long et al. 2015, "FCN").

    At the centre of a 224 x 224 input `fc6` and `fc7` compute exactly what the fully connected layers do; padding by 3
    keeps the map at a thirty-second of the input, where the paper pads the picture by 100 and crops.
    """

    def __init__(self) -> None:
        super().__init__()
        source: Any = timm.create_model("vgg16", num_classes=0)
        self.features: nn.Sequential = source.features
        self.fc6: nn.Conv2d = source.pre_logits.fc1
        self.fc6.padding = (3, 3)
        self.relu6 = nn.ReLU()
        self.drop6 = nn.Dropout(0.5)
        self.fc7: nn.Conv2d = source.pre_logits.fc2
        self.relu7 = nn.ReLU()
        self.drop7 = nn.Dropout(0.5)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised RGB (N, 3, H, W) to (N, 4096, H / 32, W / 32)."""
        x = self.drop6(self.relu6(self.fc6(self.features(x))))
        x = self.drop7(self.relu7(self.fc7(x)))
        return x


def _resnet50() -> nn.Module:
    return timm.create_model("resnet50", num_classes=0)


def _xception() -> nn.Module:
    network: Any = timm.create_model("legacy_xception", num_classes=0)
    # The stem is unpadded as published: 256 px give maps of 125, 63, 32, ... Padded, every stride is exact.
    network.conv1.padding = network.conv2.padding = (1, 1)
    return cast(nn.Module, network)


_VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)


def _vgg16_layout() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    blocks, aliases, index = {}, {}, 0
    for block, convolutions in enumerate(_VGG16_CONVOLUTIONS, start=1):
        layers = 2 * convolutions + 1
        blocks[f"block{block}"] = tuple(f"features.{i}" for i in range(index, index + layers))
        for conv in range(convolutions):
            # A Keras convolution includes its ReLU.
            aliases[f"block{block}_conv{conv + 1}"] = f"features.{index + 2 * conv + 1}"
        index += layers
        aliases[f"block{block}_pool"] = f"features.{index - 1}"
    blocks["fc"] = ("fc6", "relu6", "drop6", "fc7", "relu7", "drop7")
    return blocks, aliases | {"fc1": "relu6", "fc2": "relu7"}


_RESNET50_DEPTHS = (3, 4, 6, 3)


def _resnet50_layout() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    blocks: dict[str, tuple[str, ...]] = {"stem": ("conv1", "bn1", "act1", "maxpool")}
    aliases = {"conv1_conv": "conv1", "conv1_bn": "bn1", "conv1_relu": "act1", "pool1_pool": "maxpool"}
    for stage, depth in enumerate(_RESNET50_DEPTHS, start=1):
        blocks[f"layer{stage}"] = (f"layer{stage}",)
        for unit in range(depth):
            keras, path = f"conv{stage + 1}_block{unit + 1}", f"layer{stage}.{unit}"
            for k in (1, 2, 3):
                aliases |= {f"{keras}_{k}_conv": f"{path}.conv{k}", f"{keras}_{k}_bn": f"{path}.bn{k}"}
            aliases |= {f"{keras}_1_relu": f"{path}.act1", f"{keras}_2_relu": f"{path}.act2"}
            aliases |= {f"{keras}_add": f"{path}.add", f"{keras}_out": f"{path}.act3"}
        first = f"conv{stage + 1}_block1_0"
        aliases |= {f"{first}_conv": f"layer{stage}.0.downsample.0", f"{first}_bn": f"layer{stage}.0.downsample.1"}
    return blocks, aliases


def _xception_layout() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    blocks: dict[str, tuple[str, ...]] = {"stem": ("conv1", "bn1", "act1", "conv2", "bn2", "act2")}
    blocks |= {f"block{n}": (f"block{n}",) for n in range(1, 13)}
    blocks["exit"] = ("conv3", "bn3", "act3", "conv4", "bn4", "act4")
    aliases: dict[str, str] = {}
    for keras, n in {"block1_conv1": 1, "block1_conv2": 2, "block14_sepconv1": 3, "block14_sepconv2": 4}.items():
        aliases |= {keras: f"conv{n}", f"{keras}_bn": f"bn{n}", f"{keras}_act": f"act{n}"}
    # Keras counts the stem as block 1, so its block N is timm's block N - 1.
    for n in range(1, 13):
        units = 2 if n in (1, 2, 3, 12) else 3
        index = 0
        for unit in range(1, units + 1):
            keras = f"block{n + 1}_sepconv{unit}"
            if (n, unit) != (1, 1):  # the first block starts without an activation
                aliases[f"{keras}_act"] = f"block{n}.rep.{index}"
                index += 1
            aliases |= {keras: f"block{n}.rep.{index}", f"{keras}_bn": f"block{n}.rep.{index + 1}"}
            index += 2
        if units == 2:
            aliases[f"block{n + 1}_pool"] = f"block{n}.rep.{index}"
    return blocks, aliases


def _spec(
    name: str,
    build: Callable[[], nn.Module],
    architecture: str,
    layout: tuple[dict[str, tuple[str, ...]], dict[str, str]],
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
    std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    renames: Mapping[str, str] = MappingProxyType({}),
) -> BackboneSpec:
    blocks, aliases = layout
    return BackboneSpec(name, build, architecture, mean, std, blocks, aliases, renames)


BACKBONES: Mapping[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _spec(
            "vgg16",
            FullyConvolutionalVGG16,
            "vgg16",
            _vgg16_layout(),
            # timm's and torchvision's names of the hidden fully connected layers
            renames={
                "pre_logits.fc1.": "fc6.",
                "pre_logits.fc2.": "fc7.",
                "classifier.0.": "fc6.",
                "classifier.3.": "fc7.",
            },
        ),
        _spec("resnet50", _resnet50, "resnet50", _resnet50_layout()),
        _spec("xception", _xception, "legacy_xception", _xception_layout(), mean=(0.5,) * 3, std=(0.5,) * 3),
    )
}
