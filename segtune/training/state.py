"""What a run is made of between its steps: how far it has come, and what moves its weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from segtune.config.schema import Settings
from segtune.data.loader import EpochBatches
from segtune.evaluation.evaluator import Evaluator
from segtune.models.build import BuiltModel
from segtune.models.checkpoint import Checkpoint
from segtune.runtime import distributed
from segtune.runtime.device import Device
from segtune.runtime.files import Row
from segtune.training.epoch_log import EpochRecorder
from segtune.training.phases import Phase, Span, span_of
from segtune.training.resume_rules import check_length, check_phases


@dataclass
class State:
    """How far a run has come, in plain values: the place where a resume goes on.

    `phase` is the running phase, `epoch` counts its finished epochs, `step` the finished batches of the running epoch.
    `frozen` holds the digests of what is frozen in the phase, `phases` the facts of the phases begun so far.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    lr: float = 0.0
    best_dice: float = -1.0
    best_epoch: int = 0
    trained_images: int = 0
    train_seconds: float = 0.0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    frozen: dict[str, str] = field(default_factory=dict)


@dataclass
class OptimState:
    """What moves the weights in a phase; made anew for each."""

    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    scaler: torch.amp.GradScaler

    def state_dict(self) -> dict[str, Any]:
        """Return the three states by name."""
        return {name: getattr(self, name).state_dict() for name in self.__dataclass_fields__}

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; the rates are those of the schedule as it is now."""
        for name, state in states.items():
            if state:  # a scaler that was off has none
                getattr(self, name).load_state_dict(state)
        if states:
            course = zip(self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
            for group, (base, factor) in zip(self.optimizer.param_groups, course, strict=True):
                group["lr"] = base * factor(self.schedule.last_epoch)


def check_place(state: State, settings: Settings, before: Settings, batches: int, steps: int) -> None:
    """Check that a resumed run can go on where it is: with the phases it has had, and no shorter than it is by now.

    Args:
        state: How far the run has come.
        settings: Its settings.
        before: The settings it had.
        batches: Batches of a whole epoch.
        steps: The optimizer's steps in the running phase so far.

    Raises:
        UserError: It cannot.
    """
    phases = settings.freeze.phases
    check_phases(before.freeze.phases, phases, state.phase)
    name, phase = list(phases.items())[state.phase]
    of_epoch = -(-batches // settings.train.accumulate)
    longest = span_of(phase, batches, settings.train.accumulate).steps
    check_length(name, steps, longest, state.epoch * of_epoch)


def since_best(state: State) -> int:
    """Count the epochs of the running phase after its best one."""
    dices = [row["val_dice"] for row in state.rows[len(state.rows) - state.epoch :]]
    return len(dices) - 1 - int(np.nanargmax(dices)) if dices and not np.isnan(dices).all() else 0


def seed_of(seed: int, epoch: int, step: int) -> int:
    """Return the seed of what a step draws, in each process another."""
    source = np.random.SeedSequence([seed, epoch, step], spawn_key=(distributed.rank(),) if distributed.rank() else ())
    return int(source.generate_state(1)[0])


OnPhase = Callable[[int, dict[str, Any]], None]


@dataclass
class Run:
    """What the loops share: the model on its device, its data, and the state."""

    settings: Settings
    built: BuiltModel
    folder: Path
    compute: Device
    state: State
    loader: DataLoader[dict[str, Any]]
    batches: EpochBatches
    evaluator: Evaluator
    recorder: EpochRecorder | None
    phases: Sequence[Phase]
    facts: Mapping[str, dict[str, Any]]
    on_phase: OnPhase
    stopped: Callable[[], bool]
    proven: str = ""  # the phase in which a gradient was seen to reach all that trains

    @property
    def model(self) -> nn.Module:
        """The model that trains."""
        return self.built.model

    def span(self, phase: Phase) -> Span:
        """How long a phase lasts at most."""
        return span_of(phase.settings, self.batches.whole, self.settings.train.accumulate)

    def asked_to_stop(self) -> bool:
        """Return whether a signal has come, to whichever process: all stop at the same step."""
        return distributed.all_reduce_sum([self.stopped()])[0] > 0

    @property
    def epochs(self) -> int:
        """Epochs of all phases, at most."""
        return sum(self.span(phase).epochs for phase in self.phases)

    def save(self, name: str, movers: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint that is complete in itself; of several processes the first does."""
        if distributed.rank() == 0:
            now = Checkpoint.of(self.built, self.settings, asdict(self.state), movers)
            now.save(self.folder / "checkpoints" / name)
