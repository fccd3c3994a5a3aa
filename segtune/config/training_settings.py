"""Settings of training: phases, optimizer, device, steps and checkpoints."""

from dataclasses import field, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from segtune.config.types import (
    STRICT,
    Count,
    EmptyRule,
    Fraction,
    NotNegative,
    OptimizerName,
    Positive,
    Schedule,
    UnitInterval,
    WarmUp,
)


def _all_or_count(value: int | str | list[str]) -> int | str | list[str]:
    if isinstance(value, str) and value != "all":
        raise ValueError("a number of blocks, all, or a list of module paths")
    return value


def _all_or_list(value: str | list[str]) -> str | list[str]:
    if isinstance(value, str) and value != "all":
        raise ValueError("all, or a list of module paths")
    return value


@dataclass(frozen=True, config=STRICT)
class PhaseSettings:
    """A phase of training: what trains, for how long, at which learning rates.

    `backbone` is the number of its deepest blocks that train, `all`, or a list of blocks, module paths and `re:`
    patterns; `decoder` is `all` or such a list. `stop_gradient` names a layer at which gradients stop. `epochs` or
    `steps` is the length or, with `until: plateau`, the maximum: the phase ends after `patience` epochs without a
    better validation Dice. The backbone's deepest block has the learning rate `lr` times `backbone_lr_scale`, and each
    block nearer the input `layer_decay` times that of the next deeper one. None: as in the optimizer group.
    """

    lr: Positive
    epochs: Count | None = None
    steps: Count | None = None
    until: Literal["plateau"] | None = None
    patience: Count = 3
    backbone: Annotated[Annotated[int, Field(ge=0)] | str | list[str], AfterValidator(_all_or_count)] = "all"
    decoder: Annotated[str | list[str], AfterValidator(_all_or_list)] = "all"
    stop_gradient: str | None = None
    batchnorm: Literal["train", "frozen"] = "train"
    backbone_lr_scale: Positive = 1.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    optimizer: OptimizerName | None = None
    weight_decay: NotNegative | None = None
    schedule: Schedule | None = None
    warmup: WarmUp | None = None

    def __post_init__(self) -> None:
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
class OptimizerSettings:
    """The optimizer of every phase and its learning rate schedule; `warmup` is a fraction of the phase's steps."""

    name: OptimizerName
    weight_decay: NotNegative = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    betas: Annotated[list[UnitInterval], Field(min_length=2, max_length=2)] = field(
        default_factory=lambda: [0.9, 0.999]
    )
    schedule: Schedule = "cosine"
    power: Positive = 0.9
    warmup: WarmUp = 0.05

    def of_phase(self, phase: PhaseSettings) -> "OptimizerSettings":
        """Return these settings, overridden by those of a phase."""
        own = {"name": phase.optimizer, **{n: getattr(phase, n) for n in ("weight_decay", "schedule", "warmup")}}
        return replace(self, **{name: value for name, value in own.items() if value is not None})


@dataclass(frozen=True, config=STRICT)
class DeviceSettings:
    """Device, precision, batch size and worker processes of a command."""

    batch_size: Count = 8
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    workers: Annotated[int, Field(ge=0)] = 2


@dataclass(frozen=True, config=STRICT)
class TrainSettings(DeviceSettings):
    """Settings of training steps and validation.

    `clip` is the largest gradient norm (0: no clipping). After `max_skipped_steps` in a row, whose gradients overflow
    in fp16, the run stops.
    """

    accumulate: Count = 1
    clip: NotNegative = 1.0
    max_skipped_steps: Count = 12
    threshold: Fraction = 0.5
    empty: EmptyRule = "one"
    samples: Annotated[int, Field(ge=0, le=64)] = 6
    sync_batchnorm: bool = True


@dataclass(frozen=True, config=STRICT)
class CheckpointSettings:
    """`minutes` is the time between saves within an epoch."""

    minutes: Positive = 10.0
