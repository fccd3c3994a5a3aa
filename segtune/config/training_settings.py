"""Settings of training: phases, optimizer, device, steps and checkpoints."""

from collections.abc import Mapping
from dataclasses import field, fields, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from segtune.config.types import (
    STRICT,
    BatchSize,
    BelowOne,
    Count,
    EmptyRule,
    Fraction,
    NotNegative,
    OptimizerName,
    Positive,
    Schedule,
    UnitInterval,
    WarmUp,
    Workers,
)


def _all_or_count(value: int | str | list[str]) -> int | str | list[str]:
    if isinstance(value, str) and value != "all":
        raise ValueError(f"a number of blocks, all, or a list of module paths, such as [{value!r}]")
    return value


def _increasing(value: list[Any]) -> list[Any]:
    if not value or value != sorted(set(value)):
        raise ValueError("a list of increasing numbers")
    return value


def _all_or_list(value: str | list[str]) -> str | list[str]:
    if isinstance(value, str) and value != "all":
        raise ValueError(f"all, or a list of module paths, such as [{value!r}]")
    return value


Increasing = AfterValidator(_increasing)

#: A name alone is a list of one.
TrackerNames = Annotated[
    list[Literal["mlflow", "wandb"]], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ScheduleSettings:
    """A learning rate schedule; `segtune.training.schedules` has the formulas. None: not set.

    `warmup` is a fraction of the phase's steps, from 1 on a number of steps. The others are of single schedules:
    `end_factor` is a fraction of the phase's learning rate, `gamma` a factor; `decay_epochs` or `decay_steps` is the
    length of a decay, `milestones` (in epochs) or `milestone_steps` are places in the phase.
    """

    schedule: Schedule | None = None
    warmup: WarmUp | None = None
    power: Positive | None = None
    end_factor: UnitInterval | None = None
    cycle: bool | None = None
    gamma: Annotated[float, Field(gt=0, le=1)] | None = None
    staircase: bool | None = None
    decay_epochs: Positive | None = None
    decay_steps: Count | None = None
    milestones: Annotated[list[Positive], Increasing] | None = None
    milestone_steps: Annotated[list[Count], Increasing] | None = None

    def __post_init__(self) -> None:
        for one, other in IN_EPOCHS_OR_STEPS:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                got = f"{one}={getattr(self, one)} and {other}={getattr(self, other)}"
                raise ValueError(f"expected one of {one} and {other}; got {got}: set one to null")


#: Settings of a schedule that are given in epochs or in steps.
IN_EPOCHS_OR_STEPS = (("decay_epochs", "decay_steps"), ("milestones", "milestone_steps"))

#: Settings of a schedule that hold for no other one: a phase with a schedule of its own does not take them over.
OF_ONE_SCHEDULE = ("gamma", *(name for pair in IN_EPOCHS_OR_STEPS for name in pair))

#: The settings of each schedule beside its warm-up, with its defaults: TF-slim's, of `multistep` PyTorch's.
SCHEDULE_DEFAULTS: Mapping[Schedule, Mapping[str, Any]] = {
    "cosine": {"end_factor": 0.0, "decay_epochs": None, "decay_steps": None},
    "poly": {"power": 0.9, "end_factor": 0.0, "cycle": False, "decay_epochs": None, "decay_steps": None},
    "exponential": {"gamma": 0.94, "staircase": True, "decay_epochs": 2.0, "decay_steps": None},
    "multistep": {"gamma": 0.1, "milestones": None, "milestone_steps": None},
    "constant": {},
}

#: The settings of each optimizer beside its weight decay, with its defaults: PyTorch's, but for the momentum of SGD;
#: of `rmsprop_tf` those of TF-slim and of the TensorFlow Object Detection API.
OPTIMIZER_DEFAULTS: Mapping[OptimizerName, Mapping[str, Any]] = {
    "adamw": {"betas": [0.9, 0.999], "epsilon": 1e-8},
    "adam": {"betas": [0.9, 0.999], "epsilon": 1e-8},
    "sgd": {"momentum": 0.9},
    "rmsprop": {"alpha": 0.99, "momentum": 0.0, "epsilon": 1e-8},
    "rmsprop_tf": {"alpha": 0.9, "momentum": 0.9, "epsilon": 1.0},
}


@dataclass(frozen=True, config=STRICT)
class PhaseSettings(ScheduleSettings):
    """A phase of training: what trains, for how long, at which learning rates.

    `backbone` is the number of its deepest blocks that train, `all`, or a list of blocks, module paths, Keras's layer
    names, ranges of Keras's layers such as `100:`, and `re:` patterns; `decoder` is `all` or a list of module paths and
    patterns. `freeze` lists what of both does not train; paths of the decoder begin with `decoder.`. `stop_gradient`
    names a layer at which gradients stop. `epochs` or `steps` is the length or, with `until: plateau`, the maximum: the
    phase ends after `patience` epochs without a better validation Dice. The backbone's deepest block has the learning
    rate `lr` times `backbone_lr_scale`, and each block nearer the input `layer_decay` times that of the next deeper
    one. `optimizer`, `weight_decay` and those of the schedule: None is as in the optimizer group.
    """

    lr: Positive
    epochs: Count | None = None
    steps: Count | None = None
    until: Literal["plateau"] | None = None
    patience: Count = 3
    backbone: Annotated[Annotated[int, Field(ge=0)] | str | list[str], AfterValidator(_all_or_count)] = "all"
    decoder: Annotated[str | list[str], AfterValidator(_all_or_list)] = "all"
    freeze: list[str] = field(default_factory=list)
    stop_gradient: str | None = None
    batchnorm: Literal["train", "frozen"] = "train"
    backbone_lr_scale: Positive = 1.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    optimizer: OptimizerName | None = None
    weight_decay: NotNegative | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.epochs is None) == (self.steps is None):
            got = "neither" if self.epochs is None else f"epochs={self.epochs} and steps={self.steps}: set one to null"
            raise ValueError(f"expected the length of the phase in epochs or in steps; got {got}")


@dataclass(frozen=True, config=STRICT)
class FreezeSettings:
    """The freezing policy: named phases, in order; `decoder` is the one whose modules they name, None: any."""

    phases: dict[str, PhaseSettings]
    decoder: str | None = None

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases is empty; expected at least one phase")


@dataclass(frozen=True, config=STRICT)
class OptimizerSettings(ScheduleSettings):
    """The optimizer of every phase and its schedule. None: the optimizer's or the schedule's own default.

    `alpha` is the decay of the mean square (rho, in TensorFlow decay), `epsilon` is added to the denominator.
    """

    name: OptimizerName
    weight_decay: NotNegative = 1e-4
    momentum: BelowOne | None = None
    betas: Annotated[list[BelowOne], Field(min_length=2, max_length=2)] = field(default_factory=lambda: [0.9, 0.999])
    alpha: BelowOne | None = None
    epsilon: Positive | None = None
    schedule: Schedule = field(default="cosine", kw_only=True)
    power: Positive = field(default=0.9, kw_only=True)
    end_factor: UnitInterval = field(default=0.0, kw_only=True)
    cycle: bool = field(default=False, kw_only=True)
    staircase: bool = field(default=True, kw_only=True)
    warmup: WarmUp = field(default=0.05, kw_only=True)

    @property
    def options(self) -> dict[str, Any]:
        """The settings that this optimizer and this schedule use, each as set or its default."""
        defaults = {**OPTIMIZER_DEFAULTS[self.name], **SCHEDULE_DEFAULTS[self.schedule]}
        given = {name: getattr(self, name) for name in defaults}
        return {**defaults, **{name: value for name, value in given.items() if value is not None}}

    def of_phase(self, phase: PhaseSettings) -> "OptimizerSettings":
        """Return these settings, overridden by those of a phase.

        With a schedule of its own, a phase takes over none of `OF_ONE_SCHEDULE`.
        """
        names = ("weight_decay", *(each.name for each in fields(ScheduleSettings)))
        own = {"name": phase.optimizer, **{name: getattr(phase, name) for name in names}}
        own = {name: value for name, value in own.items() if value is not None}
        unset = set() if own.get("schedule", self.schedule) == self.schedule else set(OF_ONE_SCHEDULE)
        for pair in IN_EPOCHS_OR_STEPS:
            if own.keys() & set(pair):
                unset |= set(pair)
        return replace(self, **{**dict.fromkeys(unset), **own})


@dataclass(frozen=True, config=STRICT)
class DeviceSettings:
    """Device, precision, batch size and worker processes (`auto`: from the cores) of a command."""

    batch_size: BatchSize = 8
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    workers: Workers = "auto"

    @property
    def images_per_batch(self) -> int:
        """The batch size as a number. `auto`, which `train` and `plan` have replaced, is 8 where nothing trains."""
        return 8 if self.batch_size == "auto" else self.batch_size


@dataclass(frozen=True, config=STRICT)
class TrainSettings(DeviceSettings):
    """Settings of training steps and validation.

    `clip` is the largest gradient norm (0: no clipping). After `max_skipped_steps` in a row, whose gradients overflow
    in fp16, the run stops. Every `log_every`-th step is logged (0: none), and one every `log_seconds` (None: no more).
    `trackers` are told the run's settings and numbers, beside TensorBoard. With `compile`, PyTorch compiles the network
    of training steps.
    """

    accumulate: Count = 1
    clip: NotNegative = 1.0
    max_skipped_steps: Count = 12
    threshold: Fraction = 0.5
    empty: EmptyRule = "one"
    log_every: Annotated[int, Field(ge=0)] = 10
    log_seconds: Positive | None = None
    trackers: TrackerNames = field(default_factory=list)
    samples: Annotated[int, Field(ge=0, le=64)] = 6
    sync_batchnorm: bool = True
    compile: bool = False


@dataclass(frozen=True, config=STRICT)
class CheckpointSettings:
    """`minutes` is the time between saves within an epoch."""

    minutes: Positive = 10.0
