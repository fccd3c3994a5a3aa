"""The schema of a run's settings: frozen dataclasses, validated together by `segtune.config.parse`."""

from collections.abc import Iterable, Mapping
from dataclasses import field, fields, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


Positive = Annotated[float, Field(gt=0)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Scale = Annotated[float, Field(ge=0.25, le=4)]
Side = Annotated[int, Field(ge=32, le=8192)]
HeightWidth = Annotated[list[Side], Field(min_length=2, max_length=2)]
Size = Side | HeightWidth
Outputs = Literal[1, 2]
DataName = Literal["folder", "portraits"]
SplitName = Literal["train", "val", "test", "all"]
ForegroundRule = Literal["auto", "nonzero"] | int | list[int]
Fraction = Annotated[float, Field(gt=0, lt=1)]
EmptyRule = Literal["one", "zero", "skip"]
EmptyMaskRule = Literal["background", "smooth", "skip"]


def _height_and_width(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _all_or_count(value: int | str | list[str]) -> int | str | list[str]:
    if isinstance(value, str) and value != "all":
        raise ValueError("a number of blocks, all, or a list of module paths")
    return value


def _all_or_list(value: str | list[str]) -> str | list[str]:
    if isinstance(value, str) and value != "all":
        raise ValueError("all, or a list of module paths")
    return value


@dataclass(frozen=True, config=STRICT)
class BackboneSettings:
    """The network, built in or any CNN of timm, its weights, and its output stride (None: the network's own)."""

    name: str
    weights: str = "auto"
    output_stride: Literal[8, 16, 32] | None = None


@dataclass(frozen=True, config=STRICT)
class FCN8sSettings:
    """FCN-8s: `outputs` 1 is a sigmoid logit, 2 a softmax over background and object."""

    name: Literal["fcn8s"] = "fcn8s"
    outputs: Outputs = 1


@dataclass(frozen=True, config=STRICT)
class DeepLabV3PlusSettings:
    """DeepLabV3+: widths in channels; `atrous_rates` None: chosen by the high tap's stride."""

    name: Literal["deeplabv3plus"] = "deeplabv3plus"
    outputs: Outputs = 1
    channels: Count = 256
    low_channels: Count = 48
    atrous_rates: list[Count] | None = None
    separable: bool = True
    dropout: UnitInterval = 0.5

    def __post_init__(self) -> None:
        if self.atrous_rates is not None and len(self.atrous_rates) != 3:
            raise ValueError(
                f"atrous_rates: got {self.atrous_rates}; expected three dilation rates, such as [6, 12, 18]"
            )


DecoderSettings = Annotated[FCN8sSettings | DeepLabV3PlusSettings, Field(discriminator="name")]


OptimizerName = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "poly", "constant"]
WarmUp = Annotated[float, Field(ge=0, lt=1)]


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
    """The freezing policy: named phases, in order."""

    phases: dict[str, PhaseSettings]

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases is empty; expected at least one phase")


@dataclass(frozen=True, config=STRICT)
class ImageSettings:
    """Settings of images and masks; sizes are a side or [height, width] in pixels.

    `image_size` is the network's input size in training, `eval_size` in validation and evaluation, None for the same.
    `skin` and `groups` choose the subgroups of an evaluation: by skin tone, by the columns of a CSV file.
    """

    name: DataName
    root: str | None = None
    foreground: ForegroundRule = "auto"
    invert: bool = False
    image_size: Size = 256
    eval_size: Size | None = None
    val_share: Fraction = 0.15
    test_share: Fraction = 0.15
    limit: Count | None = None
    skin: bool = False
    groups: str | None = None
    split: SplitName = "test"

    def __post_init__(self) -> None:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share together leave nothing to train on")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input in training, in pixels."""
        return _height_and_width(self.image_size)

    @property
    def evaluation_size(self) -> tuple[int, int]:
        """Height and width of the network's input in validation and evaluation, in pixels."""
        return self.size if self.eval_size is None else _height_and_width(self.eval_size)


@dataclass(frozen=True, config=STRICT)
class DataSettings(ImageSettings):
    """Images and masks in the folder `root`."""

    root: str = field()  # else the default None would be inherited


@dataclass(frozen=True, config=STRICT)
class AugmentSettings:
    """`crop`: arguments of a random resized crop, or None; `transforms`: albumentations' by name, in order."""

    crop: dict[str, Any] | None = None
    transforms: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class BCESettings:
    """Binary cross-entropy."""

    name: Literal["bce"] = "bce"


@dataclass(frozen=True, config=STRICT)
class DiceSettings:
    """Soft Dice; `empty` is its rule for masks without foreground."""

    name: Literal["dice"] = "dice"
    per_image: bool = True
    empty: EmptyMaskRule = "background"
    smooth: Positive = 1.0


@dataclass(frozen=True, config=STRICT)
class DiceBCESettings:
    """The weighted sum of soft Dice and binary cross-entropy."""

    name: Literal["dice_bce"] = "dice_bce"
    dice_weight: NotNegative = 1.0
    bce_weight: NotNegative = 1.0
    per_image: bool = True
    empty: EmptyMaskRule = "background"
    smooth: Positive = 1.0

    def __post_init__(self) -> None:
        if self.dice_weight + self.bce_weight == 0:
            raise ValueError("dice_weight and bce_weight are both 0: the loss would be constant")


def without_fields_of(value: Any, others: Iterable[type], own: type | None) -> Any:
    """Return a mapping without the fields that only other classes have; anything else as it is."""
    if not isinstance(value, Mapping) or own is None:
        return value
    foreign = {each.name for other in others for each in fields(other)} - {each.name for each in fields(own)}
    return {name: each for name, each in value.items() if name not in foreign}


def _own_options(value: Any) -> Any:
    """Settings that were saved before each loss had a class of its own name the options of all."""
    classes = (DiceBCESettings, DiceSettings, BCESettings)
    name = value.get("name") if isinstance(value, Mapping) else None
    return without_fields_of(value, classes, next((each for each in classes if each.name == name), None))


LossSettings = Annotated[
    Annotated[DiceBCESettings | DiceSettings | BCESettings, Field(discriminator="name")], BeforeValidator(_own_options)
]


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
    """Settings of training steps and validation. `clip` is the largest gradient norm (0: no clipping)."""

    accumulate: Count = 1
    clip: NotNegative = 1.0
    threshold: Fraction = 0.5
    empty: EmptyRule = "one"
    samples: Annotated[int, Field(ge=0, le=64)] = 6
    sync_batchnorm: bool = True


@dataclass(frozen=True, config=STRICT)
class CheckpointSettings:
    """`minutes` is the time between saves within an epoch."""

    minutes: Positive = 10.0


@dataclass(frozen=True, config=STRICT)
class RestoreSettings:
    """Start from the tensors of another run's checkpoint, or of a plain state dict.

    `scope` is the part to restore; `exclude` names tensors of this model to leave as they are, by module path or `re:`
    pattern; `rename` maps prefixes of the file's names to ours; `strict` makes every mismatch an error.
    """

    checkpoint: str | None = None
    scope: Literal["all", "backbone", "decoder"] = "all"
    exclude: list[str] = field(default_factory=list)
    rename: dict[str, str] = field(default_factory=dict)
    strict: bool = False


@dataclass(frozen=True, config=STRICT)
class RunSettings:
    """All settings of a training run, except that data.root may be missing."""

    backbone: BackboneSettings
    taps: dict[str, str]
    decoder: DecoderSettings
    freeze: FreezeSettings
    data: ImageSettings
    augment: AugmentSettings
    loss: LossSettings
    optimizer: OptimizerSettings
    train: TrainSettings
    checkpoint: CheckpointSettings
    restore: RestoreSettings = field(default_factory=RestoreSettings)
    seed: Annotated[int, Field(ge=0)] = 0
    run_dir: str | None = None
    resume: str | None = None


@dataclass(frozen=True, config=STRICT)
class Settings(RunSettings):
    """Everything `train` needs."""

    data: DataSettings
