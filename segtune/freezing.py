"""Who trains in a phase.

Freezing is by module path: the same paths decide which parameters get gradients and which modules are in training mode,
so BatchNorm statistics and dropout of frozen parts stand still too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from segtune.config import PhaseSettings, UserError, nearest


@dataclass(frozen=True)
class Audit:
    """Parameter counts of a phase: `trainable` and `total` numbers, and the same by part of the model."""

    trainable: int
    total: int
    parts: Mapping[str, tuple[int, int]]


def trainable_modules(
    model: nn.Module, phase: PhaseSettings, blocks: Mapping[str, Sequence[str]], new: Sequence[str]
) -> tuple[str, ...]:
    """Say which modules train in a phase: the decoder, new modules, and what the phase names of the backbone.

    Args:
        model: A model with `backbone` and `decoder`.
        phase: The phase.
        blocks: The backbone's blocks from the input to the deepest, each a list of module paths inside the backbone.
        new: Module paths inside the backbone that have no pretrained weights.

    Returns:
        Module paths inside the model.

    Raises:
        UserError: A listed module does not exist in the cut backbone.
    """
    if phase.backbone == "all":
        return ("backbone", "decoder")
    kept = {path: module for path, module in model.get_submodule("backbone").named_modules() if path}
    present = {name: [path for path in paths if path in kept] for name, paths in blocks.items()}
    # A tap right behind a block's first activation leaves nothing to train of that block: it does not count.
    present = {name: paths for name, paths in present.items() if any(list(kept[path].parameters()) for path in paths)}
    if isinstance(phase.backbone, int):
        deepest = list(present)[len(present) - min(phase.backbone, len(present)) :]
        chosen = [path for name in deepest for path in present[name]]
    else:
        chosen = [path for name in phase.backbone for path in present.get(name, [name])]
        for path in chosen:
            if path not in kept:
                raise UserError(
                    f"backbone: '{path}' is no module of the cut backbone.{nearest(path, [*present, *kept])} "
                    f"Its blocks: {', '.join(present)}."
                )
    return (*dict.fromkeys(f"backbone.{path}" for path in [*chosen, *new]), "decoder")


def freeze(model: nn.Module, modules: Sequence[str]) -> None:
    """Let gradients into the parameters of the named modules, and no others. Once per phase."""
    model.requires_grad_(False)
    for path in modules:
        model.get_submodule(path).requires_grad_(True)


def train_mode(model: nn.Module, modules: Sequence[str]) -> None:
    """Put the named modules in training mode and everything else in evaluation mode. Before every epoch."""
    model.eval()
    for path in modules:
        model.get_submodule(path).train()


def audit(model: nn.Module, blocks: Mapping[str, Sequence[str]]) -> Audit:
    """Count what really trains, by block of the backbone and for the decoder."""
    parts: dict[str, list[int]] = {}
    owner = {path: name for name, paths in blocks.items() for path in paths}
    for name, parameter in model.named_parameters():
        inside = name.removeprefix("backbone.")
        part = (
            "decoder"
            if name.startswith("decoder.")
            else next((n for p, n in owner.items() if inside.startswith(f"{p}.")), "backbone")
        )
        counted = parts.setdefault(part, [0, 0])
        counted[0] += parameter.numel() * parameter.requires_grad
        counted[1] += parameter.numel()
    pairs = {name: (trainable, total) for name, (trainable, total) in parts.items()}
    return Audit(sum(t for t, _ in pairs.values()), sum(n for _, n in pairs.values()), pairs)
