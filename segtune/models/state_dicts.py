"""Tensors by name from files of other programs: nested dictionaries, and prefixes of names."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segtune.errors import UserError, some
from segtune.models.tensor_files import read_file, unusable
from segtune.runtime.paths import find_model_file

log = logging.getLogger(__name__)

#: BatchNorm's counter of batches, which many files lack and segtune does not use.
BATCH_COUNTER = "num_batches_tracked"

#: What wrappers of modules (torch.compile, FSDP, checkpointing) put into names.
_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

#: Entries that hold no weights, though they hold tensors.
_OTHERS = re.compile(r"optim|sched|scaler|movers|rng|random", re.IGNORECASE)

#: How deep dictionaries are searched for tensors.
_DEPTH = 4


def read_state_dict(path: Path, setting: str = "backbone.weights") -> dict[str, Tensor]:
    """Return the tensors of a safetensors or PyTorch file by name, without running any code in the file.

    A dictionary inside another, such as `state_dict`, is found; what wrappers put into names is removed. Both are said.

    Args:
        path: The file, or the folder of a run, whose best checkpoint is meant.
        setting: The setting that names it, for messages.

    Raises:
        UserError: The file is missing or unreadable, or holds no dictionary of tensors, or several.
    """
    path = find_model_file(setting, path, f"No weights file at {path}. Expected a .safetensors, .pth or .pt file.")
    expected = "Expected a .safetensors file, or a .pth or .pt file of tensors by name."
    content = read_file(path, "weights file", expected, "holds more than tensors")
    entry, found = _only(content, path)
    if entry and "settings" not in content:  # segtune's own files are not worth a line
        log.info("%s: took the tensors of its entry %s.", path, entry)
    for name, tensor in found.items():
        if why := unusable(tensor):
            raise UserError(f"{path} cannot be used: its tensor {name} is {why}. {expected}")
    names = {name: _WRAPPERS.sub("", name) for name in found}
    while names and all(name.startswith("module.") for name in names.values()):
        names = {name: ours.removeprefix("module.") for name, ours in names.items()}
    if len(set(names.values())) < len(names):
        return found
    if names and (theirs := next((name for name, ours in names.items() if ours != name), "")):
        log.info("%s: %s counts as %s, and so on.", path, theirs, names[theirs])
    return {ours: found[name] for name, ours in names.items()}


def _only(content: Any, path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the one dictionary of tensors that a file holds, and the name of its entry."""
    found = dict(_dictionaries(content)) if isinstance(content, dict) else {}
    if "" in found:
        return "", found[""]
    if len(found) > 1 and {"backbone", "encoder"} & found.keys() and not any("." in entry for entry in found):
        return ", ".join(found), {f"{entry}.{n}": t for entry, inside in found.items() for n, t in inside.items()}
    if len(found) > 1:
        entry = next(iter(found))
        keys = "".join(f"['{key}']" for key in entry.split("."))
        code = f"import torch; torch.save(torch.load('{path}', weights_only=True){keys}, 'new.pt')"
        each = some((f"{entry} ({len(inside)})" for entry, inside in found.items()), 8)
        raise UserError(
            f"{path} holds several dictionaries of tensors (their numbers): {each}. Write the one that you mean to a "
            f'file of its own, such as {entry}:\n  python -c "{code}"'
        )
    if not found:
        inside = some(map(str, content), 8) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise UserError(
            f"{path} is not a weights file: it holds {inside}. Expected a dictionary of tensors by name, "
            "such as a state_dict."
        )
    return next(iter(found.items()))


def _dictionaries(
    content: Mapping[Any, Any], entry: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the dictionaries of tensors inside one, by the dotted names of their entries."""
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors and all(isinstance(name, str) for name in content) and 2 * len(tensors) >= len(content):
        yield entry, tensors
    elif depth < _DEPTH:
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, dict) and not _OTHERS.search(key):
                yield from _dictionaries(value, f"{entry}.{key}".lstrip("."), depth + 1)


def best_prefixes(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], renamed: Callable[[str], str] = str
) -> tuple[list[str], int]:
    """Return the prefixes of a file's names behind which most of the wanted tensors are found, by name and shape.

    Args:
        found: The file's tensors.
        wanted: A network's tensors, whose names have no prefix.
        renamed: Maps the file's name of a tensor, without prefix, to the network's.

    Returns:
        The prefixes, more than one if they are equally good, and the number of tensors behind each.
    """
    fits: Counter[str] = Counter()
    for name, tensor in found.items():
        for at in (0, *(match.end() for match in re.finditer(r"\.", name))):
            own = wanted.get(renamed(name[at:]))
            if own is not None and not name.endswith(BATCH_COUNTER) and same_numbers(tensor, own):
                fits[name[:at]] += 1
    most = max(fits.values(), default=0)
    return [prefix for prefix, count in fits.items() if count == most], most


def same_numbers(tensor: Tensor, own: Tensor) -> bool:
    """Return whether a file's tensor has the shape of a network's, or is a fully connected layer of a convolution."""
    dense = own.ndim == 4 and tensor.shape == (own.shape[0], own.shape[1:].numel())
    return dense or tensor.shape == own.shape


def check_types(found: Mapping[str, Tensor], names: Iterable[str], path: Path) -> None:
    """Check that tensors of a file are numbers that a network's can take over.

    Raises:
        UserError: One is of a type that quantised weights or masks have, or complex.
    """
    for name in names:
        if (dtype := found[name].dtype) in (torch.int8, torch.uint8, torch.bool) or dtype.is_complex:
            raise UserError(
                f"{path} cannot be used: its tensor {name} holds {str(dtype).removeprefix('torch.')}; expected "
                "floating-point numbers. If its weights are quantised, convert them back first."
            )
