"""The settings of each command."""

from dataclasses import asdict, field, fields, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from segtune.config.parse import parse
from segtune.config.schema import (
    STRICT,
    Count,
    DataName,
    DataSettings,
    DeviceSettings,
    EmptyRule,
    ForegroundRule,
    Fraction,
    Positive,
    RunSettings,
    Scale,
    Settings,
    Size,
    SplitName,
    TrainSettings,
)


def _one_or_two(value: str | list[str]) -> str | list[str]:
    if isinstance(value, list) and len(value) != 2:
        raise ValueError("one file, or two to compare: [A,B]")
    return value


@dataclass(frozen=True, config=STRICT)
class TTASettings:
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


@dataclass(frozen=True, config=STRICT)
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


@dataclass(frozen=True, config=STRICT)
class EvaluateSettings:
    """Everything `evaluate` needs; None means: as in training.

    Two checkpoints are compared. `tolerance` is the boundary F-score's, in pixels; `resamples` the bootstrap's. With
    `tune` the validation pictures are predicted too, to choose a threshold.
    """

    checkpoint: Annotated[str | list[str], AfterValidator(_one_or_two)]
    data: EvaluationDataSettings
    train: ScoringSettings
    tta: TTASettings = field(default_factory=TTASettings)
    tolerance: Annotated[float, Field(ge=0, le=1000)] = 2.0
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    tune: bool = True
    seed: Annotated[int, Field(ge=0)] | None = None
    run_dir: str | None = None


@dataclass(frozen=True, config=STRICT)
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
    tta: TTASettings = field(default_factory=TTASettings)
    masks: bool = True
    probabilities: bool = False
    overlays: bool = True
    overwrite: bool = False
    frames: Count | None = None


@dataclass(frozen=True, config=STRICT)
class ExportSettings:
    """Everything `export` needs; `output` None is a file beside the checkpoint."""

    checkpoint: str
    format: Literal["onnx", "torch"] = "onnx"
    output: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, config=STRICT)
class ReportSettings:
    """Everything `report` needs: a folder with runs somewhere in it."""

    folder: str
    output: str | None = None


@dataclass(frozen=True, config=STRICT)
class CheckSettings(Settings):
    """Everything `check` needs: a run's settings, and what to show.

    `near` is the distance of two perceptual hashes of 64 bits up to which pictures count as near-duplicates, None to
    look for exact ones only; `sheet` is the number of pictures on the contact sheet.
    """

    near: Annotated[int, Field(ge=0, le=16)] | None = 6
    sheet: Annotated[int, Field(ge=0, le=400)] = 40


@dataclass(frozen=True, config=STRICT)
class PlanSettings(RunSettings):
    """Everything `plan` needs: a run's settings, and what to show beside the facts of its phases."""

    measure: bool = False
    details: bool = False
    output: str | None = None


@dataclass(frozen=True, config=STRICT)
class TapsSettings(RunSettings):
    """Everything `taps` needs: a run's settings, and how to show the layers."""

    details: bool = False
    measure: bool = True
    format: Literal["table", "json", "csv"] = "table"
    picture: str | None = None


@dataclass(frozen=True, config=STRICT)
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
