"""Whether a file's backbone is the network of a model: tensors that fit by chance restore nothing."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from segtune.models.backbones.registry import BACKBONES
from segtune.runtime.paths import find_model_file

BACKBONE = "backbone."


def why_foreign(
    path: Path, name: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], fitting: Collection[str]
) -> tuple[bool, str]:
    """Return whether the backbone in a file is another network than a model's, and what to tell of it, if anything.

    A checkpoint of segtune names its backbone: another one is foreign unless every wanted weight fits. Other files are
    foreign where less than half of the weights fit, of the file's or of those wanted, whichever are fewer. Only weights
    of layers prove something: vectors, as those of BatchNorm, fit between many networks.

    Args:
        path: The file, whose tensors have been read.
        name: The name of the model's backbone; "" for no check.
        found: The file's tensors by the names that the model would give them.
        wanted: The model's tensors to restore.
        fitting: The names of those that fit by name and shape.
    """
    file, own = layer_weights(found), layer_weights(wanted)
    fits = own & set(fitting)
    if not name or not file or not own:
        return False, ""
    counts = f"{len(fits)} of {len(own)} weights of {name} fit by name and shape"
    theirs = backbone_in(path)
    if theirs and _plain(theirs) == _plain(name):
        return False, ""
    if theirs:
        trained = f"{path} was trained with the backbone {theirs}, not {name}"
        if len(fits) == len(own):
            return False, f"{trained}; all {counts}, so they are restored."
        return True, f"{trained}: its backbone is not restored ({counts})."
    if 2 * len(fits) < min(len(file), len(own)):
        return True, f"The backbone in {path} is another network than {name}: it is not restored ({counts})."
    return False, ""


def layer_weights(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the names of a backbone's tensors of two or more dimensions: the weights of its layers."""
    return {name for name, tensor in tensors.items() if name.startswith(BACKBONE) and tensor.ndim > 1}


def backbone_in(path: Path) -> str:
    """Return the name of the backbone of a checkpoint that segtune wrote; "" for other files."""
    try:
        file = find_model_file("restore.checkpoint", path, "")
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)  # tensors stay on the disk
    except Exception:  # safetensors, or a format of before PyTorch 1.6; the caller has read it
        return ""
    for key in ("settings", "backbone", "name"):
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, str) else ""


def _plain(name: str) -> str:
    """Return the architecture of a backbone, without the tag of its weights."""
    spec = BACKBONES.get(name)
    return (spec.architecture if spec else name).partition(".")[0]
