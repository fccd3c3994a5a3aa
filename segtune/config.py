"""The whole schema: every setting of a run as frozen dataclasses, checked together.

What is wrong is reported all at once, by setting, with what came and what was expected.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, field, fields, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

_STRICT_NAMES = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


class UserError(Exception):
    """Something the user can put right: one message, no traceback, exit code 2."""


class LostError(UserError):
    """Another process of the run has ended, or cannot be reached."""


class FailedError(Exception):
    """A command has done its work, but what it was asked for did not come out of it: exit code 1."""


class DivergedError(FailedError):
    """The loss or its gradient is not finite."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the run; everything up to the last step is saved."""


Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
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


def _height_and_width(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _all_or_count(value: int | str | list[str]) -> int | str | list[str]:
    if isinstance(value, str) and value != "all":
        raise ValueError("a number of blocks, all, or a list of module paths")
    return value


def _one_or_two(value: str | list[str]) -> str | list[str]:
    if isinstance(value, list) and len(value) != 2:
        raise ValueError("one file, or two to compare: [A,B]")
    return value


def _all_or_list(value: str | list[str]) -> str | list[str]:
    if isinstance(value, str) and value != "all":
        raise ValueError("all, or a list of module paths")
    return value


@dataclass(frozen=True, config=_STRICT_NAMES)
class BackboneSettings:
    """Which network, one of three or any CNN of timm, with which weights, at which output stride (None: its own)."""

    name: str
    weights: str = "auto"
    output_stride: Literal[8, 16, 32] | None = None


@dataclass(frozen=True, config=_STRICT_NAMES)
class FCN8sSettings:
    """FCN-8s: `outputs` 1 is a sigmoid logit, 2 a softmax over background and object."""

    name: Literal["fcn8s"] = "fcn8s"
    outputs: Outputs = 1


@dataclass(frozen=True, config=_STRICT_NAMES)
class DeepLabV3PlusSettings:
    """DeepLabV3+: widths in channels; `atrous_rates` None follows from the high tap's stride."""

    name: Literal["deeplabv3plus"] = "deeplabv3plus"
    outputs: Outputs = 1
    channels: Count = 256
    low_channels: Count = 48
    atrous_rates: list[Count] | None = None
    separable: bool = True
    dropout: Share = 0.5

    def __post_init__(self) -> None:
        if self.atrous_rates is not None and len(self.atrous_rates) != 3:
            raise ValueError(
                f"atrous_rates must be three dilation rates, such as [6, 12, 18]; came {self.atrous_rates}"
            )


DecoderSettings = Annotated[FCN8sSettings | DeepLabV3PlusSettings, Field(discriminator="name")]


OptimizerName = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "poly", "constant"]
WarmUp = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, config=_STRICT_NAMES)
class PhaseSettings:
    """A span of training: what trains, for how long, at which rates.

    `backbone` is the number of its deepest blocks that train, `all`, or a list of blocks, module paths and `re:`
    patterns; `decoder` is `all` or such a list. `cut` names a layer that no gradient passes. `epochs` or `steps` say
    how long, or, with `until: plateau`, how long at most: the phase ends after `patience` epochs without a better
    validation Dice. The rate of the backbone's deepest block is `lr` times `backbone_lr_scale`, and each block further
    from the decoder has `layer_decay` times the rate of the one behind it. What is None is the optimizer group's.
    """

    lr: Positive
    epochs: Count | None = None
    steps: Count | None = None
    until: Literal["plateau"] | None = None
    patience: Count = 3
    backbone: Annotated[Annotated[int, Field(ge=0)] | str | list[str], AfterValidator(_all_or_count)] = "all"
    decoder: Annotated[str | list[str], AfterValidator(_all_or_list)] = "all"
    cut: str | None = None
    batchnorm: Literal["train", "frozen"] = "train"
    backbone_lr_scale: Positive = 1.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    optimizer: OptimizerName | None = None
    weight_decay: NotNegative | None = None
    schedule: Schedule | None = None
    warmup: WarmUp | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            came = "neither" if self.epochs is None else f"epochs={self.epochs} and steps={self.steps}: set one to null"
            raise ValueError(f"a phase lasts a number of epochs or of steps; came {came}")


@dataclass(frozen=True, config=_STRICT_NAMES)
class FreezeSettings:
    """The freezing policy: named phases in order."""

    phases: dict[str, PhaseSettings]

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases is empty: at least one phase must train something")


@dataclass(frozen=True, config=_STRICT_NAMES)
class ImageSettings:
    """What is known of images and masks before any is read; sizes are a side or [height, width] in pixels.

    `image_size` is what the network sees in training, `eval_size` in validation and evaluation, None for the same.
    `skin` and `groups` say by what evaluation compares images: the tone of the skin, columns of a CSV file.
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
        """Height and width the network sees in training, in pixels."""
        return _height_and_width(self.image_size)

    @property
    def evaluation_size(self) -> tuple[int, int]:
        """Height and width the network sees in validation and evaluation, in pixels."""
        return self.size if self.eval_size is None else _height_and_width(self.eval_size)


@dataclass(frozen=True, config=_STRICT_NAMES)
class DataSettings(ImageSettings):
    """Images and masks in the folder `root`."""

    root: str = field()  # else the default None would be inherited


@dataclass(frozen=True, config=_STRICT_NAMES)
class AugmentSettings:
    """`crop`: arguments of a random resized crop, or None; `transforms`: albumentations' by name, in order."""

    crop: dict[str, Any] | None = None
    transforms: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT_NAMES)
class LossSettings:
    """Soft Dice, binary cross-entropy, or both; `empty` is the Dice loss's rule for masks without foreground."""

    name: Literal["dice_bce", "dice", "bce"]
    dice_weight: NotNegative = 1.0
    bce_weight: NotNegative = 1.0
    per_image: bool = True
    empty: Literal["background", "smooth", "skip"] = "background"
    smooth: Positive = 1.0

    def __post_init__(self) -> None:
        if self.name == "dice_bce" and self.dice_weight + self.bce_weight == 0:
            raise ValueError("dice_weight and bce_weight are both 0: the loss would be constant")


@dataclass(frozen=True, config=_STRICT_NAMES)
class OptimizerSettings:
    """The optimizer of every phase and the course of its rate; `warmup` is a share of the phase's steps."""

    name: OptimizerName
    weight_decay: NotNegative = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = field(default_factory=lambda: [0.9, 0.999])
    schedule: Schedule = "cosine"
    power: Positive = 0.9
    warmup: WarmUp = 0.05

    def of_phase(self, phase: PhaseSettings) -> "OptimizerSettings":
        """Put what a phase says of its own in the place of these."""
        own = {"name": phase.optimizer, **{n: getattr(phase, n) for n in ("weight_decay", "schedule", "warmup")}}
        return replace(self, **{name: value for name, value in own.items() if value is not None})


@dataclass(frozen=True, config=_STRICT_NAMES)
class DeviceSettings:
    """On what, in which precision, and how many images at a time a command computes."""

    batch_size: Count = 8
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    workers: Annotated[int, Field(ge=0)] = 2


@dataclass(frozen=True, config=_STRICT_NAMES)
class TrainSettings(DeviceSettings):
    """How steps are made. `clip` is the largest gradient norm (0: none)."""

    accumulate: Count = 1
    clip: NotNegative = 1.0
    threshold: Fraction = 0.5
    empty: EmptyRule = "one"
    samples: Annotated[int, Field(ge=0, le=64)] = 6
    sync_batchnorm: bool = True


@dataclass(frozen=True, config=_STRICT_NAMES)
class CheckpointSettings:
    """`minutes` between saves in the middle of an epoch."""

    minutes: Positive = 10.0


@dataclass(frozen=True, config=_STRICT_NAMES)
class RestoreSettings:
    """Start from the tensors of another run's checkpoint, or of a plain state dict.

    `scope` says for which part; `exclude` names tensors of this model that stay as they are, by module path or `re:`
    pattern; `rename` maps beginnings of the file's names to ours; `strict` makes an error of what does not fit.
    """

    checkpoint: str | None = None
    scope: Literal["all", "backbone", "decoder"] = "all"
    exclude: list[str] = field(default_factory=list)
    rename: dict[str, str] = field(default_factory=dict)
    strict: bool = False


@dataclass(frozen=True, config=_STRICT_NAMES)
class RunSettings:
    """Everything that describes a training run but for where its images are."""

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


@dataclass(frozen=True, config=_STRICT_NAMES)
class Settings(RunSettings):
    """Everything `train` needs."""

    data: DataSettings


@dataclass(frozen=True, config=_STRICT_NAMES)
class AveragingSettings:
    """Test-time augmentation: predictions averaged over mirror images (`flips`) and sizes (`scales`, 1 as it is)."""

    flips: bool = False
    scales: Annotated[list[Scale], Field(min_length=1)] = field(default_factory=lambda: [1.0])


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class ScoringSettings(DeviceSettings):
    """What `evaluate` and `predict` read of the group `train`; None: as in training. The rest says nothing there."""

    threshold: Fraction | None = None
    empty: EmptyRule | None = None

    def completed(self, trained: TrainSettings) -> TrainSettings:
        """Return the settings of a training run with what is given here in their place."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) is not None}
        return replace(trained, **given)


@dataclass(frozen=True, config=_STRICT_NAMES)
class EvaluationDataSettings:
    """The images to evaluate on; None: as in training, and `image_size` as in its validation."""

    name: DataName
    root: str
    foreground: ForegroundRule | None = None
    invert: bool | None = None
    image_size: Size | None = None
    eval_size: Size | None = None
    val_share: Fraction | None = None
    test_share: Fraction | None = None
    limit: Count | None = None
    skin: bool | None = None
    groups: str | None = None
    split: SplitName = "test"

    def completed(self, trained: DataSettings) -> DataSettings:
        """Return these settings with those of a training run where they are None.

        Raises:
            UserError: Together they leave nothing to train on.
        """
        given = {each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) is not None}
        size = {"image_size": trained.eval_size or trained.image_size, "eval_size": None, "limit": None, "groups": None}
        return parse(DataSettings, asdict(trained) | size | given)


@dataclass(frozen=True, config=_STRICT_NAMES)
class EvaluateSettings:
    """Everything `evaluate` needs; None means: as in training.

    Two checkpoints are compared. `tolerance` is the boundary F-score's, in pixels; `resamples` the bootstrap's. With
    `tune` the validation pictures are predicted too, to choose a threshold.
    """

    checkpoint: Annotated[str | list[str], AfterValidator(_one_or_two)]
    data: EvaluationDataSettings
    train: ScoringSettings
    average: AveragingSettings = field(default_factory=AveragingSettings)
    tolerance: Annotated[float, Field(ge=0, le=1000)] = 2.0
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    tune: bool = True
    seed: Annotated[int, Field(ge=0)] | None = None
    run_dir: str | None = None


@dataclass(frozen=True, config=_STRICT_NAMES)
class PredictSettings:
    """Everything `predict` needs.

    `input` is a file, a folder, a pattern, a video, or `camera:N`; `frames` is how many of a video or a camera are
    taken, None for all. `image_size` None is the size of the evaluation in training. `tile` is the side of the tiles
    in which a picture is predicted at its own size, None for the whole picture at `image_size`; `overlap` is the share
    of a tile that its neighbour covers too.
    """

    checkpoint: str
    input: str
    train: ScoringSettings
    output: str = "predictions"
    image_size: Size | None = None
    tile: Annotated[int, Field(ge=128, le=8192)] | None = None
    overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    average: AveragingSettings = field(default_factory=AveragingSettings)
    masks: bool = True
    probabilities: bool = False
    overlays: bool = True
    overwrite: bool = False
    frames: Count | None = None


@dataclass(frozen=True, config=_STRICT_NAMES)
class ExportSettings:
    """Everything `export` needs; `output` None is a file beside the checkpoint."""

    checkpoint: str
    format: Literal["onnx", "torch"] = "onnx"
    output: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, config=_STRICT_NAMES)
class ReportSettings:
    """Everything `report` needs: a folder with runs somewhere in it."""

    folder: str
    output: str | None = None


@dataclass(frozen=True, config=_STRICT_NAMES)
class CheckSettings(Settings):
    """Everything `check` needs: a run's settings, and what to show.

    `near` is the distance of two perceptual hashes of 64 bits up to which pictures count as near-duplicates, None to
    look for exact ones only; `sheet` is the number of pictures on the contact sheet.
    """

    near: Annotated[int, Field(ge=0, le=16)] | None = 6
    sheet: Annotated[int, Field(ge=0, le=400)] = 40


@dataclass(frozen=True, config=_STRICT_NAMES)
class PlanSettings(RunSettings):
    """Everything `plan` needs: a run's settings, and what to show beside the facts of its phases."""

    measure: bool = False
    details: bool = False
    output: str | None = None


@dataclass(frozen=True, config=_STRICT_NAMES)
class TapsSettings(RunSettings):
    """Everything `taps` needs: a run's settings, and how to show the layers."""

    details: bool = False
    measure: bool = True
    format: Literal["table", "json", "csv"] = "table"
    picture: str | None = None


@dataclass(frozen=True, config=_STRICT_NAMES)
class ProbeSettings(Settings):
    """Everything `probe` needs: a run's settings, and how to fit the classifiers.

    `layers` are the candidates, names or `re:` patterns, None for a choice; `compare` are tap maps to measure as well,
    by names of one's own. `pixels` are drawn of each picture; `ridge` regularises.
    """

    layers: Annotated[list[str], Field(min_length=1)] | None = None
    compare: dict[str, list[str]] = field(default_factory=dict)
    train_images: Annotated[int, Field(ge=5)] | None = 100
    val_images: Count | None = 50
    pixels: Annotated[int, Field(ge=2)] = 500
    ridge: Positive = 0.03


S = TypeVar("S")


def parse(schema: type[S], values: Mapping[str, Any]) -> S:
    """Check plain nested values against a schema.

    Raises:
        UserError: Something is wrong; the message lists every problem.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        problems: list[str] = list(_describe(error, TypeAdapter(schema).json_schema()))
    heading = "One setting is wrong:" if len(problems) == 1 else f"{len(problems)} settings are wrong:"
    raise UserError("\n".join([heading, *(f"  {problem}" for problem in problems)]))


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask whether the known name closest to a wrong one was meant, as a sentence; nothing if none is close."""
    near = close_matches(name, known, 1)
    return f" Did you mean {near[0]}?" if near else ""


def close_matches(name: str, known: Iterable[str], most: int, cutoff: float = 0.6) -> list[str]:
    """Return up to `most` known names at least `cutoff` (0 to 1) like a wrong one, the closest first."""
    return difflib.get_close_matches(name, list(known), most, cutoff)


def some(names: Iterable[str], most: int = 5) -> str:
    """Name the first few of many, and say how many more there are."""
    names = list(names)
    shown = ", ".join(names[:most]) or "none"
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def matching(pattern: str, names: Iterable[str], setting: str) -> list[str]:
    """Give the dotted names that a pattern means: itself and all below it, or, after `re:`, what it matches as a whole.

    Raises:
        UserError: No name matches, or the expression is not one.
    """
    names = list(names)
    if pattern.startswith("re:"):
        try:
            found = [name for name in names if re.fullmatch(pattern[3:], name)]
        except re.error as error:
            raise UserError(f"{setting}: '{pattern}' is no regular expression: {error}.") from error
    else:
        found = [name for name in names if name == pattern or name.startswith(f"{pattern}.")]
    if not found:
        hint = "" if pattern.startswith("re:") else nearest(pattern, names)
        some = ", ".join(names[:3] + (["…", *names[-2:]] if len(names) > 5 else names[3:]))
        raise UserError(f"{setting}: '{pattern}' matches nothing.{hint} The names are: {some or 'none'}.")
    return found


def _describe(error: ValidationError, schema: dict[str, Any]) -> Iterator[str]:
    names = {name for part in (schema, *schema.get("$defs", {}).values()) for name in part.get("properties", {})}
    expected: dict[str, tuple[Any, list[str]]] = {}
    for problem in error.errors(include_url=False):
        # Parts of the location that name a choice of type, not a setting, are left out.
        parts = [str(p) for p in problem["loc"] if not ("[" in str(p) or str(p) in _CHOICES)]
        name, came, kind = ".".join(parts), problem["input"], problem["type"]
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if kind == "unexpected_keyword_argument":
            yield f"{name}: there is no such setting.{nearest(parts[-1], names)}"
        elif kind in ("missing", "missing_argument"):
            yield f"{name}: not set, and it has no default. Give {name}=…"
        elif kind == "value_error" and isinstance(came, Mapping):
            yield f"{name}: {message}." if name else f"{message}."
        else:
            expected.setdefault(name, (came, []))[1].append(message.partition(", unable")[0])
    for name, (came, messages) in expected.items():
        yield f"{name}: came {came!r}; expected: {', or '.join(dict.fromkeys(messages))}."


_CHOICES = {"fcn8s", "deeplabv3plus", "int", "str", "list", "constrained-int"}
