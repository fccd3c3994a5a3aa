"""The state of a run between steps: its progress, and its optimizer, schedule and gradient scaler."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from segtune.config.schema import Settings
from segtune.data.loader import BatchLoader, EpochBatches
from segtune.evaluation.evaluator import Evaluator
from segtune.evaluation.selection import rank
from segtune.models.build import BuiltModel
from segtune.models.checkpoint import Checkpoint
from segtune.runtime import distributed
from segtune.runtime.device import Device
from segtune.runtime.files import Row
from segtune.training.epoch_log import EpochRecorder
from segtune.training.phases import Phase, Span, span_of
from segtune.training.resume_rules import check_length, check_phases
from segtune.training.run_folder import check_run_folder


@dataclass
class State:
    """The progress of a run in plain values, from which it can resume.

    `phase` is the running phase, `epoch` counts its finished epochs, `step` the finished batches of the running epoch.
    `best_dice` is the `val_dice` of the epoch `best_epoch`. `frozen` holds the checksums of the phase's frozen tensors,
    `phases` the facts of the phases begun so far; the last is the running one. `skipped` counts the optimizer steps
    skipped in the running epoch, because of an overflow in fp16; `skipped_in_a_row` those since a step was made.
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
    skipped: int = 0
    skipped_in_a_row: int = 0

    def skipped_in(self, phase: str) -> int:
        """Return the optimizer steps skipped in a phase so far."""
        finished = sum(int(row.get("skipped_steps", 0)) for row in self.rows if row["phase"] == phase)
        return finished + (self.skipped if phase == next(reversed(self.phases), None) else 0)


@dataclass
class OptimState:
    """Optimizer, schedule and gradient scaler of a phase; each phase has new ones."""

    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    scaler: torch.amp.GradScaler

    @property
    def made(self) -> int:
        """The steps made in the phase; skipped ones do not count."""
        return self.schedule.last_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the three states by name."""
        return {name: getattr(self, name).state_dict() for name in self.__dataclass_fields__}

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; the learning rates follow the present schedule."""
        for name, state in states.items():
            if state:  # a disabled scaler has none
                getattr(self, name).load_state_dict(state)
        if states:
            schedule = zip(self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
            for group, (base, factor) in zip(self.optimizer.param_groups, schedule, strict=True):
                group["lr"] = base * factor(self.schedule.last_epoch)


def check_place(state: State, settings: Settings, before: Settings, batches: int, steps: int) -> None:
    """Check that a run can resume with its settings: phases in order, and none shorter than its steps so far.

    Args:
        state: The progress of the run.
        settings: Its present settings.
        before: Its earlier settings.
        batches: Batches of a whole epoch.
        steps: Optimizer steps made in the running phase so far.

    Raises:
        UserError: It cannot resume.
    """
    phases = settings.freeze.phases
    check_phases(before.freeze.phases, phases, state.phase)
    name, phase = list(phases.items())[state.phase]
    of_epoch = -(-batches // settings.train.accumulate)
    longest, of_epochs = span_of(phase, batches, settings.train.accumulate).steps, state.epoch * of_epoch
    if phase.steps is None:
        steps += state.skipped_in(name)
    else:
        of_epochs -= state.skipped_in(name)
    check_length(name, steps, longest, of_epochs)


def since_best(state: State) -> int:
    """Return the number of epochs of the running phase after its best one."""
    ranks = [rank(row) for row in state.rows[len(state.rows) - state.epoch :]]
    known = [each for each in ranks if each is not None]
    return len(ranks) - 1 - ranks.index(max(known)) if known else 0


def is_better(row: Row, state: State) -> bool:
    """Return whether an epoch is better than all before; where none can be the best, the last one counts as such."""
    mine, best = rank(row), rank(state.rows[state.best_epoch - 1]) if state.best_epoch else None
    return mine is None or best is None or mine > best


def seed_of(seed: int, epoch: int, step: int) -> int:
    """Return the seed for the random draws of a step; it differs between processes."""
    source = np.random.SeedSequence([seed, epoch, step], spawn_key=(distributed.rank(),) if distributed.rank() else ())
    return int(source.generate_state(1)[0])


OnPhase = Callable[[int, dict[str, Any]], None]


@dataclass
class Run:
    """What the training loops share: the model on its device, its data, and the state."""

    settings: Settings
    built: BuiltModel
    folder: Path
    compute: Device
    state: State
    loader: BatchLoader
    batches: EpochBatches
    evaluator: Evaluator
    recorder: EpochRecorder | None
    phases: Sequence[Phase]
    facts: Mapping[str, dict[str, Any]]
    on_phase: OnPhase
    stopped: Callable[[], bool]
    proven: str = ""  # the phase whose gradients have been checked

    @property
    def model(self) -> nn.Module:
        """The model that trains."""
        return self.built.model

    def span(self, phase: Phase) -> Span:
        """Return the maximum length of a phase."""
        skipped = self.state.skipped_in(phase.name)
        return span_of(phase.settings, self.batches.whole, self.settings.train.accumulate, skipped)

    def asked_to_stop(self) -> bool:
        """Return whether any process has received a signal: all stop at the same step."""
        return distributed.all_reduce_sum([self.stopped()])[0] > 0

    @property
    def between_steps(self) -> bool:
        """Whether the run can be saved now: no gradient is accumulated, and no other process is in the next step."""
        return distributed.world() == 1 and self.state.step % self.settings.train.accumulate == 0

    def gives_up(self, waited: float) -> bool:
        """Return whether to stop although the next batch, for which this process has `waited` seconds, has not come."""
        return self.stopped() and (self.between_steps or waited > 10)

    @property
    def epochs(self) -> int:
        """The maximum number of epochs of all phases."""
        return sum(self.span(phase).epochs for phase in self.phases)

    def save(self, name: str, optimizer: Mapping[str, Any] | None = None) -> None:
        """Write a self-contained checkpoint, with the states of `OptimState` if given; only the first process does.

        Raises:
            FailedError: The run's folder has been deleted.
            UserError: The file cannot be written.
        """
        if distributed.rank() == 0:
            check_run_folder(self.folder)
            checkpoint = Checkpoint.of(self.built, self.settings, asdict(self.state), optimizer)
            checkpoint.save(self.folder / "checkpoints" / name)
