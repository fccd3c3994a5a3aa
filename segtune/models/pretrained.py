"""Pretrained weights: found in the caches, downloaded or read from a file, and loaded into an uncut backbone."""

import logging
import os
import socket
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from segtune.errors import UserError, nearest, some
from segtune.models.backbones.spec import BackboneSpec

log = logging.getLogger(__name__)

#: BatchNorm's count of batches, which many files lack and nothing here reads.
BATCH_COUNTER = "num_batches_tracked"

#: Seconds after which a server that does not answer counts as out of reach.
TIMEOUT_SECONDS = 8.0


@dataclass(frozen=True)
class LoadedWeights:
    """What came of `load_weights`: `source` is None for random weights; names are of the whole backbone's tensors."""

    source: str | None
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


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
    match = match_tensors(found, wanted)
    missing, unused, named = match.missing, match.unexpected, len(match.fitting) + len(match.misshapen)
    if match.misshapen or len(missing) > named:
        raise UserError(
            f"The weights in {path} do not fit {spec.name}: {named} tensors match by name, "
            f"{len(missing)} are missing ({some(missing, 6)}), {len(unused)} are unexpected ({some(unused, 6)})."
            + "".join(
                f"\n  wrong shape: {name}: the file has {file}, {spec.name} needs {own}"
                for name, (file, own) in match.misshapen.items()
            )
        )
    network.load_state_dict({name: found[name] for name in match.fitting}, strict=False)
    if unused:
        log.info("Weights not used from %s: %s", path, some(unused, 6))
    return LoadedWeights(str(path), missing, unused)


@dataclass(frozen=True)
class TensorMatch:
    """Which of the tensors wanted a file has, by name; `misshapen` gives the file's shape and the one wanted.

    A batch counter that the file lacks is not `missing`; `unexpected` are the file's tensors that are not wanted.
    """

    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


def match_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> TensorMatch:
    """Return how the tensors of a file, under the names used here, fit those wanted."""
    shapes = {name: (tuple(found[name].shape), tuple(own.shape)) for name, own in wanted.items() if name in found}
    return TensorMatch(
        fitting=tuple(name for name, (file, own) in shapes.items() if file == own),
        missing=tuple(name for name in wanted if name not in found and not name.endswith(BATCH_COUNTER)),
        unexpected=tuple(name for name in found if name not in wanted),
        misshapen={name: (file, own) for name, (file, own) in shapes.items() if file != own},
    )


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
    plain = architecture.partition(".")[0]  # the name may carry the tag of its weights
    repository = f"timm/{plain}.{config.tag}" if config.hf_hub_id == "timm/" else config.hf_hub_id
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
    if trouble := _unreachable(url):
        return None, trouble
    log.info("Downloading %s", url)
    try:
        if repository:
            return Path(hf_hub_download(repository, "model.safetensors", etag_timeout=TIMEOUT_SECONDS)), ""
        _download(url, local)
        return local, ""
    except Exception as error:  # whatever the network or the disk says, the user reads it and goes on
        return None, f"the download of {url} failed: {error}"


def _download(url: str, local: Path) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)  # torch.hub sets none, so a server that falls silent would hang the run
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(local))
    finally:
        socket.setdefaulttimeout(before)


def _unreachable(url: str) -> str:
    """Ask for a URL's header; return what is wrong, or an empty text.

    huggingface_hub would ask five times more and wait in between, for about 23 s.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "not in the local cache, and HF_HUB_OFFLINE is set."
    answer: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_SECONDS):
                answer.append("")
        except (OSError, HTTPException, ValueError) as error:
            answer.append(f"not in the local cache, and {url} cannot be reached ({getattr(error, 'reason', error)}).")

    # Looking up a name has no time-out of its own, hence the thread.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS + 2)
    return answer[0] if answer else f"not in the local cache, and {url} does not answer."
