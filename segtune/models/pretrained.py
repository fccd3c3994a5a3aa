"""Pretrained weights: find them in the caches, download or read them, and load them into an uncut backbone."""

import logging
import os
import socket
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from itertools import islice
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from segtune.errors import UserError, nearest, some
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.state_dicts import BATCH_COUNTER, best_prefixes, check_types, read_state_dict, same_numbers
from segtune.runtime.paths import expanded

log = logging.getLogger(__name__)

#: What to do about a file of which most fits.
_ONLY_FITTING = (
    "\nTo take what fits, and leave the rest new: "
    "backbone.weights=auto restore.checkpoint={path} restore.scope=backbone"
)

#: Seconds after which a server that does not answer counts as unreachable.
TIMEOUT_SECONDS = 8.0


@dataclass(frozen=True)
class LoadedWeights:
    """The result of `load_weights`: `source` is None for random weights; names are those of the uncut backbone.

    `trouble` says why there are none where pretrained ones were wanted, and how to get them.
    """

    source: str | None
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    trouble: str = ""


def load_weights(spec: BackboneSpec, network: nn.Module, weights: str) -> LoadedWeights:
    """Load pretrained weights into an uncut backbone, in place.

    Args:
        spec: The backbone's spec.
        network: What `spec.build()` returned.
        weights: `none`, `auto` (local cache, else download, else random with `trouble`), `imagenet` (the same, but
            an error instead of random weights) or the path of a safetensors or `.pth` file.

    Raises:
        UserError: The file is missing, unreadable or does not fit; or the weights of `imagenet` cannot be downloaded.
    """
    if weights == "none":
        return LoadedWeights(None)
    if weights in ("auto", "imagenet"):
        path, reason = find_pretrained(spec.architecture)
        if path:
            return _load_file(spec, network, path)
        trouble = f"no ImageNet weights for {spec.name}: {reason}\n{_ways_to_get(spec.architecture)}"
        if weights == "imagenet":
            raise UserError(f"backbone.weights=imagenet: {trouble}")
        return LoadedWeights(None, trouble=trouble)
    path = expanded(weights, "backbone.weights")
    if not path.suffix and not path.exists():
        words = ("auto", "imagenet", "none")
        raise UserError(
            f"backbone.weights={weights} is neither a file nor one of {', '.join(words)}.{nearest(weights, words)}"
        )
    return _load_file(spec, network, path)


def _load_file(spec: BackboneSpec, network: nn.Module, path: Path) -> LoadedWeights:
    wanted = network.state_dict()
    theirs = _without_prefix(spec, read_state_dict(path), wanted, path)
    found = {_rename(name, spec.renames): tensor for name, tensor in theirs.items()}
    for name, tensor in found.items():
        # A fully connected layer has the same numbers as the convolution over its whole input.
        if name in wanted and same_numbers(tensor, wanted[name]):
            found[name] = tensor.reshape(wanted[name].shape)
    match = match_tensors(found, wanted)
    missing, unused, named = match.missing, match.unexpected, len(match.fitting) + len(match.mismatched)
    if match.mismatched or len(missing) > named:
        raise UserError(
            f"The weights in {path} do not fit {spec.name}: {named} tensors match by name, "
            f"{len(missing)} are missing ({some(missing, 6)}), {len(unused)} are unexpected ({some(unused, 6)})."
            + "".join(
                f"\n  shape mismatch: {name}: got {file} from the file; expected {own}"
                for name, (file, own) in islice(match.mismatched.items(), 6)
            )
            + (f"\n  and {more} more" if (more := len(match.mismatched) - 6) > 0 else "")
            + (_ONLY_FITTING.format(path=path) if len(match.fitting) > len(match.mismatched) + len(missing) else "")
        )
    check_types(found, match.fitting, path)
    network.load_state_dict({name: found[name] for name in match.fitting}, strict=False)
    if taken := list(_taken(spec, theirs, wanted, match.fitting)):
        log.info("%s: took %s.", path, ", ".join(taken))
    if unused:
        log.info("Weights not used from %s: %s", path, some(unused, 6))
    return LoadedWeights(str(path), missing, unused)


def _taken(
    spec: BackboneSpec, theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], fitting: Iterable[str]
) -> Iterator[str]:
    """Yield what the layers are whose weights have other names in a file: `classifier.0 (…) as fc6 (…)`."""
    origin = {_rename(name, spec.renames): name for name in theirs if name.endswith(".weight")}
    for name in fitting:
        if origin.get(name, name) != name:
            there, here = origin[name], tuple(wanted[name].shape)
            layers = there.removesuffix(".weight"), name.removesuffix(".weight")
            yield f"{layers[0]} {tuple(theirs[there].shape)} as {layers[1]} {here}"


def _without_prefix(
    spec: BackboneSpec, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> Mapping[str, Tensor]:
    """Return a file's tensors without the prefix of the backbone's names, such as `encoder.`, which is said.

    Raises:
        UserError: The tensors behind several prefixes fit equally well.
    """
    prefixes, _ = best_prefixes(found, wanted, lambda name: _rename(name, spec.renames))
    if len(prefixes) > 1:
        first = prefixes[0]
        raise UserError(
            f"backbone.weights={path}: the tensors of {some(prefixes)} fit {spec.name} equally well. Name one: "
            f"backbone.weights=auto restore.checkpoint={path} restore.scope=backbone "
            f"'+restore.rename={{{first}:backbone.}}'"
        )
    if prefixes in ([], [""]):
        return found
    prefix = prefixes[0]
    inside = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    log.info("%s: took the %d tensors whose names begin with %s, without it.", path, len(inside), prefix)
    return inside


@dataclass(frozen=True)
class TensorMatch:
    """How the tensors of a file match a model's, by name; `mismatched` holds the file's shape and the model's.

    A batch counter that the file lacks is not `missing`; `unexpected` are tensors that the model does not have.
    """

    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


def match_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> TensorMatch:
    """Return how the tensors of a file, already renamed to the model's names, match those wanted."""
    shapes = {name: (tuple(found[name].shape), tuple(own.shape)) for name, own in wanted.items() if name in found}
    return TensorMatch(
        fitting=tuple(name for name, (file, own) in shapes.items() if file == own),
        missing=tuple(name for name in wanted if name not in found and not name.endswith(BATCH_COUNTER)),
        unexpected=tuple(name for name in found if name not in wanted),
        mismatched={name: (file, own) for name, (file, own) in shapes.items() if file != own},
    )


def _rename(name: str, renames: Mapping[str, str]) -> str:
    for old, new in renames.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def home_of(architecture: str) -> tuple[str, str]:
    """Return where timm's ImageNet weights are: a repository of the hub, or a URL; both are empty if there are none."""
    config = get_pretrained_cfg(architecture)
    if config is None:
        return "", ""
    plain = architecture.partition(".")[0]  # the name may include the tag of its weights
    repository = f"timm/{plain}.{config.tag}" if config.hf_hub_id == "timm/" else config.hf_hub_id
    return (str(repository), "") if repository else ("", str(config.url or ""))


def _ways_to_get(architecture: str) -> str:
    """Return what a user can do who has no weights."""
    repository, url = home_of(architecture)
    if repository:
        there = f"hf download {repository} model.safetensors"
        cache = f" Or fill the cache {HF_HUB_CACHE} with a network: {there}."
    else:
        cache = f" Or put the file of {url} into {Path(torch.hub.get_dir()) / 'checkpoints'}." if url else ""
    return (
        f"Give a file of them: backbone.weights=PATH (.safetensors, .pth or .pt).{cache} "
        "backbone.weights=none means random weights, on purpose."
    )


def find_pretrained(architecture: str) -> tuple[Path | None, str]:
    """Return timm's ImageNet weights, from the local caches or by download.

    Returns:
        The file and an empty text, or None and the reason. An unreachable server is given up within 15 s.
    """
    repository, url = home_of(architecture)
    if not repository and not url:
        return None, f"timm has none for {architecture}."
    if repository:
        cached = try_to_load_from_cache(repository, "model.safetensors")
        if isinstance(cached, str):
            return Path(cached), ""
        url, name = hf_hub_url(repository, "model.safetensors"), f"{repository.replace('/', '_')}.safetensors"
    else:
        name = url.rsplit("/", 1)[-1]
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
    except Exception as error:  # whatever goes wrong with network or disk, the reason is reported
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
    """Request a URL's header; return what is wrong, or an empty text.

    huggingface_hub would retry five times, with pauses, for about 23 s.
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

    # A DNS lookup has no time-out of its own, hence the thread.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS + 2)
    return answer[0] if answer else f"not in the local cache, and {url} does not answer."
