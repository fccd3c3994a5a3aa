"""The state of a run between steps: its progress, and its optimizer, schedule and gradient scaler."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.optim.rmsprop_tf import RMSpropTF
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from segtune.config.schema import Settings
from segtune.data.loader import BatchLoader, EpochBatches
from segtune.errors import UserError, some
from segtune.evaluation.evaluator import Evaluator
from segtune.evaluation.selection import rank
from segtune.models.build import BuiltModel
from segtune.models.checkpoint import Checkpoint
from segtune.models.progress import State
from segtune.models.tensor_files import unusable
from segtune.runtime import distributed
from segtune.runtime.device import Device
from segtune.runtime.files import Row
from segtune.training.epoch_log import EpochRecorder
from segtune.training.features import FeatureSource
from segtune.training.phases import Phase, Span, span_of
from segtune.training.resume_rules import check_length, check_phases
from segtune.training.run_folder import check_run_folder
from segtune.training.step_log import StepLog
from segtune.training.trial import Trial
from segtune.training.unread import Unread
from segtune.training.waiting import Waiting


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
        """Load what `state_dict` returned: moments, step and scale. Rates and the like follow the present settings.

        Raises:
            UserError: The states are not of these parameters.
        """
        if not states:
            return
        self._check(states)
        own = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": states["optimizer"]["state"], "param_groups": own["param_groups"]})
        # A fused step pairs values by their place in memory, so the moments must be laid out as their parameter.
        for parameter, moments in self.optimizer.state.items():
            for name, value in moments.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    moments[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        if states["scaler"]:  # a disabled one has no state
            self.scaler.load_state_dict(states["scaler"])
        self.schedule.last_epoch = states["schedule"]["last_epoch"]
        self.schedule._step_count = self.schedule.last_epoch + 1
        schedule = zip(self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
        for group, (base, factor) in zip(self.optimizer.param_groups, schedule, strict=True):
            group["lr"] = base * factor(self.schedule.last_epoch)

    def _check(self, states: Mapping[str, Any]) -> None:
        begin = "The optimizer's states in the checkpoint do not fit the phase that the run is in"
        moments = states["optimizer"]["state"]
        theirs, own = (
            [group["params"] for group in each["param_groups"]]
            for each in (states["optimizer"], self.optimizer.state_dict())
        )
        if theirs != own:
            raise UserError(
                f"{begin}: {sum(map(len, theirs))} parameters in {len(theirs)} groups; expected {sum(map(len, own))} "
                f"in {len(own)}."
            )
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        needed = _MOMENTS[type(self.optimizer)]
        if not self.optimizer.defaults.get("momentum"):
            needed = needed - {"momentum_buffer"}
        for index, state in moments.items():
            if not 0 <= index < len(parameters) or state.keys() != needed:
                raise UserError(f"{begin}: parameter {index} of {len(parameters)} has {some(state)}.")
            for name, value in state.items():
                shape = () if name == "step" else parameters[index].shape
                if name == "step" and isinstance(value, int):  # in RMSpropTF of earlier timm
                    continue
                if not _is_moment(value, shape) and not (value is None and name == "momentum_buffer"):
                    got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                    raise UserError(f"{begin}: {name} of parameter {index} has {got}; expected {tuple(shape)}.")
        scaler = states["scaler"]
        if scaler and not all(type(scaler.get(name)) in (int, float) for name in _OF_SCALER):
            raise UserError(f"{begin}: the gradient scaler has {some(scaler)}; expected numbers {some(_OF_SCALER)}.")


#: What an optimizer holds for each parameter that has made a step.
_MOMENTS: Mapping[type, set[str]] = {
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.RMSprop: {"step", "square_avg", "momentum_buffer"},
    RMSpropTF: {"step", "square_avg", "momentum_buffer"},
}
_OF_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


def _is_moment(value: Any, shape: Sequence[int]) -> bool:
    fits = isinstance(value, Tensor) and not unusable(value) and tuple(value.shape) == tuple(shape)
    return fits and bool(value.is_floating_point())


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
    span, of_epochs = span_of(phase, batches, settings.train.accumulate), state.epoch * of_epoch
    taken, most = steps + state.skipped_in(name), of_epochs + -(-state.step // settings.train.accumulate)
    if phase.steps is None:
        steps += state.skipped_in(name)
    else:
        of_epochs -= state.skipped_in(name)
    check_length(name, steps, span.steps, of_epochs)
    if taken > most or state.step > span.of(state.epoch) or state.images > state.step * settings.train.images_per_batch:
        raise UserError(
            f"The run cannot resume: its checkpoint has made {steps} steps and {state.epoch} epochs of the phase, and "
            f"{state.step} batches and {state.images} images of an epoch of {span.of(state.epoch)} batches of "
            f"{settings.train.images_per_batch}; these contradict each other."
        )


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
    facts: Callable[[Phase], dict[str, Any]]
    on_phase: OnPhase
    stopped: Callable[[], bool]
    waiting: Waiting
    compiles: bool = True  # until compiling fails
    proven: str = ""  # the phase whose gradients have been checked
    features: FeatureSource | None = None  # in the place of images in the running phase
    data: Mapping[str, Any] | None = None  # the record of its data
    trial: Trial | None = None  # of a search; only the first process has one
    step_log: StepLog | None = None  # only the first process has one
    started: bool = False  # whether this process has made a step
    last_step: dict[str, float] = field(default_factory=dict)  # what the log tells of the last step
    unread: Unread = field(init=False)

    def __post_init__(self) -> None:
        self.unread = Unread(self.compute.device)

    @property
    def model(self) -> nn.Module:
        """The model that trains."""
        return self.built.model

    def span(self, phase: Phase) -> Span:
        """Return the maximum length of a phase."""
        skipped = self.state.skipped_in(phase.name)
        return span_of(phase.settings, self.batches.whole, self.settings.train.accumulate, skipped)

    @property
    def steps_of_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        return -(-self.batches.whole // self.settings.train.accumulate)

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

    @property
    def step(self) -> int:
        """The optimizer steps of all phases so far, skipped ones too."""
        done = Counter(row["phase"] for row in self.state.rows)
        finished = sum(self._steps_of(phase, done[phase.name]) for phase in self.phases)
        return finished + -(-self.state.step // self.settings.train.accumulate)

    @property
    def steps(self) -> int:
        """The maximum number of optimizer steps of all phases, with those skipped so far."""
        return sum(self._steps_of(phase, self.span(phase).epochs) for phase in self.phases)

    def _steps_of(self, phase: Phase, epochs: int) -> int:
        return self.span(phase).steps_of(epochs, self.settings.train.accumulate)

    def save(self, name: str, optimizer: Mapping[str, Any] | None = None) -> None:
        """Write a self-contained checkpoint, with the states of `OptimState` if given; only the first process does.

        Raises:
            FailedError: The run's folder has been deleted.
            UserError: The file cannot be written.
        """
        if distributed.rank() == 0:
            check_run_folder(self.folder)
            checkpoint = Checkpoint.of(self.built, self.settings, self.state, optimizer, self.data)
            checkpoint.save(self.folder / "checkpoints" / name)
