"""Turn a freezing policy into phases of a model: what trains in each, checked before training begins."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from segtune.config.schema import RunSettings
from segtune.config.training_settings import PhaseSettings
from segtune.errors import UserError, some
from segtune.models.build import BuiltModel
from segtune.models.module_paths import owners, within
from segtune.training.freezing import Scope, choose, find_reached, freeze, train_mode, unchanged

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """A phase, resolved for a model: `scope` is what trains."""

    name: str
    settings: PhaseSettings
    scope: Scope


@dataclass(frozen=True)
class Span:
    """The maximum length of a phase: `epochs` of `batches` each, except the `last`, and all optimizer `steps`."""

    epochs: int
    batches: int
    last: int
    steps: int

    def of(self, epoch: int) -> int:
        """Return the batches of an epoch, counted from 0."""
        return self.last if epoch == self.epochs - 1 else self.batches

    def steps_of(self, epochs: int, accumulate: int) -> int:
        """Return the optimizer steps of the first `epochs`, skipped ones too."""
        return sum(-(-self.of(epoch) // accumulate) for epoch in range(epochs))


def span_of(phase: PhaseSettings, batches: int, accumulate: int, skipped: int = 0) -> Span:
    """Return a phase's length, given the batches of a whole epoch, `accumulate` of which make a step.

    An epoch is its batches, whatever comes of them; a phase with a length in steps makes up for those `skipped`.
    """
    steps = -(-batches // accumulate)
    if phase.steps is None:
        epochs = phase.epochs or 0
        return Span(epochs, batches, batches, epochs * steps)
    epochs = -(-(phase.steps + skipped) // steps)
    rest = phase.steps + skipped - (epochs - 1) * steps
    return Span(epochs, batches, min(batches, rest * accumulate), phase.steps)


def plan_phases(settings: RunSettings, built: BuiltModel) -> list[Phase]:
    """Return the phases of a model, each with what trains in it.

    Raises:
        UserError: A name or pattern matches nothing; nothing would train; a gradient stop leaves nothing to train; or
            layers with random weights would be frozen.
    """
    phases = []
    fixed = [f"decoder.{name}" for name in getattr(built.model.decoder, "fixed_start", ())]
    fresh = [path for path in owners(built.model) if within(path, built.new) and not within(path, fixed)]
    for name, given in settings.freeze.phases.items():
        phase = given if built.weights.source else _all_trains(name, given)
        reached = _reached(built, phase, name)
        new = [path.removeprefix("backbone.") for path in built.new if path.startswith("backbone.")]
        scope = choose(built.model, name, phase, built.blocks, new, reached, built.spec)
        whole = all(scope.holds(f"backbone.{owner}") for owner in owners(built.model.backbone))
        if not (built.weights.source or whole):
            raise _freezes_random(name, f"freeze=[{','.join(phase.freeze)}]")
        if frozen := [path for path in fresh if not scope.holds(path)]:
            raise UserError(
                f"freeze.phases.{name} freezes {some(frozen, 3)}, whose random weights no earlier phase has trained. "
                "Train them first, or load weights for them (restore.checkpoint=FILE)."
            )
        fresh = []
        if phase != given:
            log.warning("Phase %s trains all of the backbone, which has random weights, at the full rate.", name)
        phases.append(Phase(name, phase, scope))
    return phases


def enter(built: BuiltModel, phase: Phase) -> None:
    """Set the model up for a phase: gradient stops, trainable parameters, and training modes."""
    _stop_at(built, phase.settings.stop_gradient)
    freeze(built.model, phase.scope)
    train_mode(built.model, phase.scope)


@contextmanager
def entered(built: BuiltModel, phase: Phase) -> Iterator[None]:
    """Set the model up for a phase inside the block, and restore it at the end."""
    with _unchanged_stops(built), unchanged(built.model):
        enter(built, phase)
        yield


def _all_trains(name: str, phase: PhaseSettings) -> PhaseSettings:
    """Return the phase with all of the backbone trained, at one learning rate: random weights are never frozen.

    Raises:
        UserError: The phase names what to train, so training everything would contradict it.
    """
    if phase.stop_gradient or isinstance(phase.backbone, list):
        what = f"stop_gradient={phase.stop_gradient}"
        if isinstance(phase.backbone, list) and not phase.stop_gradient:
            what = f"backbone=[{','.join(phase.backbone)}]"
        raise _freezes_random(name, what)
    return replace(phase, backbone="all", backbone_lr_scale=1.0, layer_decay=1.0, batchnorm="train")


def _freezes_random(name: str, what: str) -> UserError:
    return UserError(
        f"freeze.phases.{name}: {what} would freeze layers with random weights: the backbone has no pretrained "
        "ones. Load some (backbone.weights=PATH or restore.checkpoint=FILE), or train everything "
        f"(backbone: all, no stop_gradient{', nothing of it in freeze' if what.startswith('freeze=') else ''})."
    )


def _reached(built: BuiltModel, phase: PhaseSettings, name: str) -> set[str] | None:
    if phase.stop_gradient is None:
        return None
    stop = built.stops[phase.stop_gradient]
    with _unchanged_stops(built):
        _stop_at(built, phase.stop_gradient)
        stop.passed = False
        reached, passed = find_reached(built.model), stop.passed
    if not passed:
        raise UserError(
            f"freeze.phases.{name}.stop_gradient={phase.stop_gradient}: the model never calls this module itself, so "
            "no gradient can be stopped there. Name one of the modules inside it."
        )
    return reached


@contextmanager
def _unchanged_stops(built: BuiltModel) -> Iterator[None]:
    before = [(stop, stop.active, stop.passed) for stop in built.stops.values()]
    try:
        yield
    finally:
        for stop, active, passed in before:
            stop.active, stop.passed = active, passed


def _stop_at(built: BuiltModel, layer: str | None) -> None:
    for name, stop in built.stops.items():
        stop.active = name == layer
