"""Whether a file's backbone is the network of a model: tensors that fit by chance restore nothing."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from segtune.models.backbones.registry import BACKBONES
from segtune.models.state_dicts import BATCH_COUNTER
from segtune.runtime.paths import find_model_file

BACKBONE = "backbone."


def why_foreign(
    path: Path, name: str, found: Collection[str], wanted: Mapping[str, Tensor], fitting: Collection[str]
) -> tuple[bool, str]:
    """Return whether the backbone in a file is another network than a model's, and what to tell of it, if anything.

    A checkpoint of segtune names its backbone: another one is foreign unless every wanted tensor fits. Other files are
    foreign where less than half of the tensors fit, of the file's or of those wanted, whichever are fewer. Counters of
    batches are of every BatchNorm, so they prove nothing.

    Args:
        path: The file, whose tensors have been read.
        name: The name of the model's backbone; "" for no check.
        found: The names of the file's tensors, as the model would name them.
        wanted: The model's tensors to restore.
        fitting: The names of those that fit by name and shape.
    """
    file, own, fits = (
        [tensor for tensor in names if tensor.startswith(BACKBONE) and not tensor.endswith(BATCH_COUNTER)]
        for names in (found, wanted, fitting)
    )
    if not name or not file or not own:
        return False, ""
    counts = f"{len(fits)} of {len(own)} tensors of {name} fit by name and shape"
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
