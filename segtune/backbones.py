"""The backbones: how to build each, and its facts as data.

A spec holds what cannot be read off the network: the order of its blocks, the normalisation its weights were trained
with, and the names people know its layers by. The networks are timm's. For three of them the facts are written here;
for all others they follow from what timm says of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, cast

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from segtune.config import UserError, close_matches


@dataclass(frozen=True)
class BackboneSpec:
    """What segtune knows about a backbone.

    `blocks` maps block names to the module paths they hold, from the input to the deepest. `aliases` maps layer names
    of Keras Applications to module paths, and `ambiguous` those that Keras has given to several layers to what they
    may mean. `stages` names modules, a stride each, whose end is the last layer of its stride that later stages build
    on. `renames` maps prefixes of tensor names found in weights files to ours. `mean` and `std` normalise RGB values in
    0..1.
    """

    name: str
    build: Callable[[], nn.Module]
    architecture: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    blocks: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    ambiguous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
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
        units = 2 if n in _XCEPTION_SHORTCUTS else 3
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
    for keras, paths in _xception_unnamed().items():  # only the first and the last mean one layer, however counted
        aliases |= {keras: paths[0], f"{keras}_{len(paths)}": paths[-1]}
    return blocks, aliases


#: Blocks of Xception whose shortcut is a convolution.
_XCEPTION_SHORTCUTS = (1, 2, 3, 12)


def _xception_unnamed() -> dict[str, list[str]]:
    """Give the layers to which Keras gives no name but a number, from 0 (then left out) or, in old versions, from 1."""
    return {
        "add": [f"block{n}.add" for n in range(1, 13)],
        "conv2d": [f"block{n}.skip" for n in _XCEPTION_SHORTCUTS],
        "batch_normalization": [f"block{n}.skipbn" for n in _XCEPTION_SHORTCUTS],
    }


def _xception_ambiguous() -> dict[str, tuple[str, ...]]:
    return {
        f"{keras}_{n}": (paths[n - 1], paths[n])
        for keras, paths in _xception_unnamed().items()
        for n in range(1, len(paths))
    }


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

VGG16 = BackboneSpec(
    "vgg16",
    FullyConvolutionalVGG16,
    "vgg16",
    IMAGENET_MEAN,
    IMAGENET_STD,
    *_vgg16_layout(),
    stages=("features.3", "features.8", "features.15", "features.22", "features.29", "drop7"),
    # timm's and torchvision's names of the hidden fully connected layers
    renames={"pre_logits.fc1.": "fc6.", "pre_logits.fc2.": "fc7.", "classifier.0.": "fc6.", "classifier.3.": "fc7."},
)

RESNET50 = BackboneSpec(
    "resnet50",
    _resnet50,
    "resnet50",
    IMAGENET_MEAN,
    IMAGENET_STD,
    *_resnet50_layout(),
    stages=("act1", "layer1", "layer2", "layer3", "layer4"),
)

XCEPTION = BackboneSpec(
    "xception",
    _xception,
    "legacy_xception",
    (0.5,) * 3,
    (0.5,) * 3,
    *_xception_layout(),
    ambiguous=_xception_ambiguous(),
    stages=("act2", "block2.rep.0", "block3.rep.0", "block12.rep.0", "act4"),
)

#: A new backbone is a spec in a file of its own, and a name here.
BACKBONES: Mapping[str, BackboneSpec] = {spec.name: spec for spec in (VGG16, RESNET50, XCEPTION)}


def spec_of(name: str) -> BackboneSpec:
    """Give a backbone's spec by its name: one of `BACKBONES`, or any network of timm, such as `convnext_tiny`.

    Raises:
        UserError: timm has no such network, or no such weights of it, or cannot build it here.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if not timm.is_model(name):
        near = [*close_matches(name, BACKBONES, 1), *list_similar(name, 4)]
        raise UserError(
            f"backbone.name={name}: neither segtune nor timm {timm.__version__} has a network of this name. "
            f"The nearest: {', '.join(dict.fromkeys(near)) or 'none'}. timm.list_models() lists all."
        )
    return _timm_spec(name)


@cache
def _timm_spec(name: str) -> BackboneSpec:
    """Describe a network of timm.

    Raises:
        UserError: timm cannot build it here.
    """
    build = partial(timm.create_model, name, num_classes=0)
    try:
        with torch.device("meta"):
            network: Any = build()
    except Exception as error:  # an unknown tag of weights, or a network that needs more than PyTorch
        raise UserError(f"backbone.name={name}: timm cannot build it: {str(error).splitlines()[0]}") from error
    config = network.pretrained_cfg
    return BackboneSpec(
        name,
        build,
        name,
        tuple(config.get("mean", IMAGENET_MEAN)),
        tuple(config.get("std", IMAGENET_STD)),
        _timm_blocks(network),
        stages=_timm_stages(network),
    )


def list_similar(name: str, most: int) -> list[str]:
    """Name the networks of timm whose names come closest."""
    known = [other for other in timm.list_models() if other != name]
    family = name.split(".")[0].split("_")[0]
    near = close_matches(name, known, most)
    return list(dict.fromkeys([*near, *(other for other in known if other.startswith(family))]))[:most]


def _timm_stages(network: Any) -> tuple[str, ...]:
    info = getattr(network, "feature_info", None) or []
    entries = info if isinstance(info, list) else info.info
    return tuple(entry["module"] for entry in entries if entry["module"])


def _timm_blocks(network: Any) -> dict[str, tuple[str, ...]]:
    """Divide a network into blocks as timm divides it for layer-wise rates, from the input to the deepest."""
    try:
        groups: Mapping[int, Sequence[str]] = group_parameters(network, network.group_matcher(coarse=True))
    except (AttributeError, AssertionError):  # timm has no division of it, or no coarse one
        return {path: (path,) for path, child in network.named_children() if list(child.parameters())}
    blocks: dict[str, tuple[str, ...]] = {}
    for number in sorted(groups):
        paths = _cover(network, groups[number])
        ends = {0: "stem", max(groups): "head"}
        blocks[paths[0] if len(paths) == 1 else ends.get(number, f"group{number}")] = paths
    return blocks


def _cover(network: nn.Module, parameters: Iterable[str]) -> tuple[str, ...]:
    """Give the fewest module paths that hold these parameters and no others."""
    wanted = set(parameters)

    def inside(module: nn.Module, path: str) -> list[str]:
        names = {f"{path}.{name}" if path else name for name, _ in module.named_parameters()}
        if not names & wanted:
            return []
        if names <= wanted and path:
            return [path]
        return [p for n, child in module.named_children() for p in inside(child, f"{path}.{n}" if path else n)]

    return tuple(inside(network, ""))
