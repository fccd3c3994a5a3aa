"""Freezing: which modules train in a phase.

Freezing is by module path: the same paths decide which parameters get gradients and which modules are in training mode,
so BatchNorm statistics and dropout of frozen parts are frozen too.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segtune.config.training_settings import PhaseSettings
from segtune.errors import UserError
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.module_paths import owners, within
from segtune.training.selection import Blocks, Selection


@dataclass(frozen=True)
class Scope:
    """The modules that train: paths inside the model, except for the paths `without`."""

    modules: tuple[str, ...]
    without: tuple[str, ...] = ()

    def holds(self, path: str) -> bool:
        """Return whether the module of a path trains."""
        return within(path, self.modules) and not within(path, self.without)


@dataclass(frozen=True)
class Audit:
    """Parameter counts of a phase: `trainable` and `total`, and the same pair by part of the model."""

    trainable: int
    total: int
    parts: Mapping[str, tuple[int, int]]


def choose(
    model: nn.Module,
    name: str,
    phase: PhaseSettings,
    blocks: Blocks,
    new: Collection[str] = (),
    reached: Collection[str] | None = None,
    spec: BackboneSpec | None = None,
) -> Scope:
    """Return what trains in a phase: the parts of backbone and decoder that it names, and all new modules.

    What the phase's `freeze` names does not train, whatever else names it.

    Args:
        model: A model with `backbone` and `decoder`.
        name: The phase's name, for messages.
        phase: The phase.
        blocks: The backbone's blocks from the input to the deepest, each a list of module paths inside the backbone.
        new: Modules without pretrained weights, as paths inside the backbone.
        reached: Paths of the modules that a gradient reaches; None: all. The others do not train.
        spec: The backbone's spec, for Keras's names and indices.

    Raises:
        UserError: A name or a pattern matches no module of the cut backbone or of the decoder, nothing would train, or
            a module that is named gets no gradient.
    """
    select = partial(Selection, model, blocks, spec)
    paths = _named(select, name, phase, new)
    freezing = select(f"freeze.phases.{name}.freeze", "freeze")
    without = [path for item in phase.freeze for path in freezing.of_model(item)]
    if reached is not None:
        without += _unreached(model, paths, without, reached, name, phase)
    if phase.batchnorm == "frozen":
        fresh = [f"backbone.{path}" for path in new]
        without += [
            path
            for path, module in model.named_modules()
            if isinstance(module, _BatchNorm) and path.startswith("backbone.") and not within(path, fresh)
        ]
    scope = Scope(tuple(paths), tuple(dict.fromkeys(without)))
    if not any(scope.holds(owner) for owner in owners(model)):
        reason = (
            f"no gradient passes stop_gradient={phase.stop_gradient}, and everything behind it is frozen"
            if phase.stop_gradient
            else "everything is frozen"
        )
        raise UserError(
            f"freeze.phases.{name}: nothing would train: {reason}. "
            "Name something to train with backbone (a number of its deepest blocks, all, or a list) or decoder"
            f"{', and less with freeze' if phase.freeze else ''}."
        )
    return scope


def block_of(parameter: str, blocks: Blocks) -> str:
    """Return the part that a parameter belongs to: a block, `decoder`, or `backbone` if it is in no block."""
    if parameter.startswith("decoder."):
        return "decoder"
    inside = parameter.removeprefix("backbone.")
    return next((name for name, paths in blocks.items() if within(inside, paths)), "backbone")


def freeze(model: nn.Module, scope: Scope) -> None:
    """Enable gradients for the parameters of the scope and disable them for all others. Call it once per phase."""
    model.requires_grad_(False)
    for path in scope.modules:
        model.get_submodule(path).requires_grad_(True)
    for path in scope.without:
        model.get_submodule(path).requires_grad_(False)


def train_mode(model: nn.Module, scope: Scope) -> None:
    """Set the scope to training mode and everything else to evaluation mode. Call it before every epoch."""
    model.eval()
    for path in scope.modules:
        model.get_submodule(path).train()
    for path in scope.without:
        model.get_submodule(path).eval()


def audit(model: nn.Module, blocks: Blocks) -> Audit:
    """Return the counts of trainable and all parameters, by block of the backbone and for the decoder."""
    parts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        counted = parts.setdefault(block_of(name, blocks), [0, 0])
        counted[0] += parameter.numel() * parameter.requires_grad
        counted[1] += parameter.numel()
    pairs = {name: (trainable, total) for name, (trainable, total) in parts.items()}
    return Audit(sum(t for t, _ in pairs.values()), sum(n for _, n in pairs.values()), pairs)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore `requires_grad`, gradients and training modes of a model when the block ends."""
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    modules = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for parameter, requires_grad, gradient in parameters:
            parameter.requires_grad_(requires_grad).grad = gradient
        for module, training in modules:
            module.training = training


def find_reached(model: nn.Module) -> set[str]:
    """Return the paths of the layers that gradients from the logits reach, found by a backward pass."""
    found: set[str] = set()

    def watch(path: str, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda _: found.add(path))  # type: ignore[no-untyped-call]

    with unchanged(model), ExitStack() as hooks:
        model.eval().requires_grad_(True)
        model.zero_grad(set_to_none=True)  # otherwise the backward pass would add to existing gradients
        for path, module in model.named_modules():
            if not list(module.children()) or next(module.parameters(recurse=False), None) is not None:
                hooks.enter_context(module.register_forward_hook(lambda m, a, output, path=path: watch(path, output)))
        device = next(model.parameters()).device
        logits = model(torch.zeros(1, 3, 64, 64, device=device))
        if logits.requires_grad:
            logits.sum().backward()
    return found


def _named(select: Callable[[str], Selection], name: str, phase: PhaseSettings, new: Collection[str]) -> list[str]:
    """Return the modules that `backbone` and `decoder` of a phase name, and the new ones."""
    paths = ["backbone"]
    if phase.backbone != "all":
        lists = select(f"freeze.phases.{name}.backbone")
        if isinstance(phase.backbone, int):
            blocks = list(lists.present.values())
            inside = blocks[len(blocks) - min(phase.backbone, len(blocks)) :]
        else:
            inside = [lists.of_backbone(item) for item in phase.backbone]
        paths = [f"backbone.{path}" for path in dict.fromkeys([*chain(*inside), *new])]
    lists = select(f"freeze.phases.{name}.decoder")
    inside = [["decoder"]] if phase.decoder == "all" else [lists.of_decoder(item) for item in phase.decoder]
    return [*paths, *chain(*inside)]


def _unreached(
    model: nn.Module,
    paths: Sequence[str],
    frozen: Collection[str],
    reached: Collection[str],
    name: str,
    phase: PhaseSettings,
) -> list[str]:
    """Return the layers among `paths` that no gradient reaches, including those without parameters."""
    if not reached:
        raise UserError(
            f"freeze.phases.{name}.stop_gradient={phase.stop_gradient}: this layer is at or behind the logits, and no "
            "gradient passes it, so nothing would train. Stop the gradient at a layer of the backbone."
        )
    layers = [p for p, m in model.named_modules() if not list(m.children()) or list(m.parameters(recurse=False))]
    away = [path for path in layers if within(path, paths) and path not in reached]
    for path in paths if isinstance(phase.backbone, list) else ():
        owned = {owner for owner in owners(model) if within(owner, [path]) and not within(owner, frozen)}
        if owned and owned <= set(away):
            raise UserError(
                f"freeze.phases.{name}: backbone names {path.removeprefix('backbone.')}, but with "
                f"stop_gradient={phase.stop_gradient} no gradient reaches it. Leave it out, or stop the gradient "
                "nearer to the input."
            )
    return away
