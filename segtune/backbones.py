"""The backbones: how to build each, its facts as data, and its pretrained weights.

A spec holds what cannot be read off the network: the order of its blocks, the normalisation its weights were trained
with, and the names people know its layers by. The networks are timm's.
"""

import logging
import os
import socket
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import timm
import torch
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from segtune.config import UserError, nearest, some

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


@dataclass(frozen=True)
class LoadedWeights:
    """What came of `load_weights`: `source` is None for random weights; names are of the whole backbone's tensors."""

    source: str | None
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


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


def load_weights(spec: BackboneSpec, network: nn.Module, weights: str) -> LoadedWeights:
    """Load pretrained weights into an uncut backbone, in place.

    Args:
        spec: The backbone's spec.
        network: What `spec.build()` gave.
        weights: `none`, `auto` (local cache, else download, else random with a warning), `imagenet` (the same, but
            an error instead of random weights) or the path of a safetensors or `.pth` file.

    Raises:
        UserError: The file is missing, unreadable or does not fit; or `imagenet` is out of reach.
    """
    if weights == "none":
        return LoadedWeights(None)
    if weights in ("auto", "imagenet"):
        path, trouble = find_pretrained(spec.architecture)
        if path is None and weights == "imagenet":
            raise UserError(
                f"backbone.weights=imagenet: no ImageNet weights for {spec.name}: {trouble}\n"
                "Give a local file (backbone.weights=PATH), or go without (backbone.weights=none)."
            )
        if path is None:
            log.warning(
                "No ImageNet weights for %s: %s\nThe backbone starts from RANDOM weights, so nothing of it is frozen. "
                "Expect a lower Dice; give a local file with backbone.weights=PATH.",
                spec.name,
                trouble,
            )
            return LoadedWeights(None)
        return _load_file(spec, network, path)
    path = Path(weights).expanduser()
    if not path.suffix and not path.exists():
        words = ("auto", "imagenet", "none")
        raise UserError(
            f"backbone.weights={weights} is no file, and none of {', '.join(words)}.{nearest(weights, words)}"
        )
    return _load_file(spec, network, path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a safetensors file or a PyTorch file, without running any code of the file.

    Raises:
        UserError: The file is missing or unreadable, or holds no dictionary of tensors.
    """
    if not path.is_file():
        raise UserError(f"No weights file at {path}. Expected a .safetensors, .pth or .pt file.")
    try:
        safe = path.suffix == ".safetensors"
        content: Any = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes lead the reader into
        # PyTorch's text advises to run the file's code, so it is not passed on.
        reason = error if isinstance(error, SafetensorError | OSError) else type(error).__name__
        raise UserError(
            f"Cannot read the weights file {path}: it is damaged, or holds more than tensors ({reason}).\n"
            "Expected a .safetensors file, or a .pth or .pt file of tensors by name."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no plain dictionary of tensors, so it is not a weights file segtune can read.")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _load_file(spec: BackboneSpec, network: nn.Module, path: Path) -> LoadedWeights:
    found = {_rename(name, spec.renames): tensor for name, tensor in read_state_dict(path).items()}
    wanted = network.state_dict()
    for name, tensor in found.items():
        # A fully connected layer is the same numbers as the convolution over its whole input.
        if name in wanted and tensor.ndim == 2 and wanted[name].ndim == 4 and tensor.numel() == wanted[name].numel():
            found[name] = tensor.reshape(wanted[name].shape)
    misshapen = [
        f"{name}: the file has {tuple(found[name].shape)}, {spec.name} needs {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    unused = tuple(name for name in found if name not in wanted)
    matched = [name for name in wanted if name in found]
    if misshapen or len(missing) > len(matched):
        raise UserError(
            f"The weights in {path} do not fit {spec.name}: {len(matched)} tensors match by name, "
            f"{len(missing)} are missing ({some(missing, 6)}), {len(unused)} are unexpected ({some(unused, 6)})."
            + "".join(f"\n  wrong shape: {line}" for line in misshapen)
        )
    network.load_state_dict({name: found[name] for name in matched}, strict=False)
    if unused:
        log.info("Weights not used from %s: %s", path, some(unused, 6))
    return LoadedWeights(str(path), tuple(missing), unused)


def _rename(name: str, renames: Mapping[str, str]) -> str:
    for old, new in renames.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def find_pretrained(architecture: str) -> tuple[Path | None, str]:
    """Find timm's ImageNet weights: in the local caches, else by download.

    Returns:
        The file and an empty text, or None and the reason. A server out of reach is given up within 15 s.
    """
    config = get_pretrained_cfg(architecture)
    if config is None:
        return None, f"timm names none for {architecture}."
    repository = f"timm/{architecture}.{config.tag}" if config.hf_hub_id == "timm/" else config.hf_hub_id
    if repository:
        cached = try_to_load_from_cache(repository, "model.safetensors")
        if isinstance(cached, str):
            return Path(cached), ""
        url, name = hf_hub_url(repository, "model.safetensors"), f"{repository.replace('/', '_')}.safetensors"
    else:
        url, name = str(config.url), str(config.url).rsplit("/", 1)[-1]
    local = Path(torch.hub.get_dir()) / "checkpoints" / name
    if local.is_file():
        return local, ""
    if trouble := _probe(url):
        return None, trouble
    log.info("Downloading %s", url)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PROBE_SECONDS)  # torch.hub sets none, so a server that falls silent would hang the run
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(local))
        return local, ""
    except Exception as error:  # whatever the network or the disk says, the user reads it and goes on
        return None, f"the download of {url} failed: {error}"
    finally:
        socket.setdefaulttimeout(before)


def _probe(url: str) -> str:
    """Ask for a URL's header; return what is wrong, or an empty text."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "not in the local cache, and HF_HUB_OFFLINE is set."
    answer: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS):
                answer.append("")
        except (OSError, HTTPException, ValueError) as error:
            answer.append(f"not in the local cache, and {url} cannot be reached ({getattr(error, 'reason', error)}).")

    # Looking up a name has no time-out of its own, hence the thread.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS + 2)
    return answer[0] if answer else f"not in the local cache, and {url} does not answer."
