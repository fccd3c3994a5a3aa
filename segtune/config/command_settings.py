"""The settings of each command."""

import os
from collections.abc import Mapping
from dataclasses import asdict, field, fields, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from segtune.config.data_settings import LAYOUT, PORTRAITS_ROOT, DataSettings, only_one
from segtune.config.foreground_rule import ForegroundRule, IgnoreRule
from segtune.config.output_settings import CleanSettings, Formats, PolygonSettings
from segtune.config.parse import parse
from segtune.config.schema import RunSettings, Settings
from segtune.config.training_settings import DeviceSettings, TrainSettings
from segtune.config.types import (
    STRICT,
    Count,
    DataName,
    EmptyRule,
    Fold,
    Folds,
    Fraction,
    MaskChannel,
    MaskName,
    MaskSuffix,
    MaxValue,
    Missing,
    Overlap,
    Picture,
    Place,
    Positive,
    Scale,
    Size,
    SplitName,
    Tile,
    without_fields_of,
)
from segtune.errors import UserError


def _one_or_two(value: str | list[str]) -> str | list[str]:
    if isinstance(value, list) and len(value) != 2:
        raise ValueError("one file, or two to compare: [A,B]")
    return value


@dataclass(frozen=True, config=STRICT)
class TTASettings:
    """Test-time augmentation: average predictions over mirror images (`flips`) and image scales (`scales`)."""

    flips: bool = False
    scales: Annotated[list[Scale], Field(min_length=1)] = field(default_factory=lambda: [1.0])


@dataclass(frozen=True, config=STRICT)
class ScoringSettings(DeviceSettings):
    """The settings of the group `train` that `evaluate` and `predict` use; None: as in training."""

    threshold: Fraction | None = None
    empty: EmptyRule | None = None

    def completed(self, trained: TrainSettings) -> TrainSettings:
        """Return the settings of a training run, overridden by those given here; a batch size of `auto` is not."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) is not None}
        if self.batch_size == "auto":
            del given["batch_size"]
        return replace(trained, **given)


def _without_steps(value: Any) -> Any:
    """What the group `train` says of training steps means nothing here, but must not be nonsense."""
    kept = without_fields_of(value, [TrainSettings], ScoringSettings)
    if isinstance(value, Mapping):
        try:
            TypeAdapter(TrainSettings).validate_python({name: value[name] for name in value.keys() - kept.keys()})
        except ValidationError as error:
            problem = error.errors()[0]
            expected = problem["msg"].removeprefix("Input should be ")
            raise ValueError(f"{problem['loc'][0]}: got {problem['input']!r}; expected {expected}") from None
    return kept


GroupTrain = Annotated[ScoringSettings, BeforeValidator(_without_steps)]


@dataclass(frozen=True, config=STRICT)
class EvaluationDataSettings:
    """The images to evaluate on; None: as in training, and `image_size` and `eval_tile` as in its validation.

    A `root` without `name` is a folder of data. A size means whole images, whatever the validation was.
    """

    name: DataName | None = None
    root: str | None = None
    images: Place | None = None
    masks: Place | None = None
    mask_name: MaskName | None = None
    mask_channel: MaskChannel | None = None
    mask_suffix: MaskSuffix | None = None
    pairs: str | None = None
    missing: Missing | None = None
    foreground: ForegroundRule | None = None
    invert: bool | None = None
    ignore: IgnoreRule = None
    image_size: Size | None = None
    eval_size: Size | None = None
    eval_tile: Tile | None = None
    eval_overlap: Overlap | None = None
    val_share: Fraction | None = None
    test_share: Fraction | None = None
    group: str | None = None
    folds: Folds | None = None
    fold: Fold | None = None
    limit: Count | None = None
    max_value: MaxValue | None = None
    skin: bool | None = None
    groups: str | None = None
    split: SplitName = "test"

    def __post_init__(self) -> None:
        if (self.val_share or 0) + (self.test_share or 0) >= 1:
            raise ValueError("val_share and test_share together leave nothing to train on")
        if self.name == "folder" and self.root is None:
            raise ValueError("root is required where name is folder")

    @property
    def named(self) -> bool:
        """Whether these settings name a data set, rather than leave it to the checkpoint."""
        return self.name is not None or self.root is not None

    def completed(self, trained: DataSettings) -> DataSettings:
        """Return these settings with those of a training run where they are None.

        How images and masks are kept in the folder of the training run says nothing of another folder.

        Raises:
            UserError: val_share and test_share together leave nothing to train on, or a size and a tile are given.
        """
        given = {each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) is not None}
        if self.named:
            given = {"name": "folder", "root": PORTRAITS_ROOT} | given
        if sizes := [f"data.{name}={given[name]}" for name in ("image_size", "eval_size") if name in given]:
            if self.eval_tile is not None:
                raise UserError(f"{only_one(f'data.eval_tile={self.eval_tile}', sizes[0])}.")
            given["eval_tile"] = None
        had = asdict(trained)
        if "root" in given and os.path.realpath(given["root"]) != os.path.realpath(trained.root):
            had |= dict.fromkeys(LAYOUT)
        if given.keys() & {"mask_name", "mask_suffix"}:
            had |= dict.fromkeys(("mask_name", "mask_suffix"))
        size = {"image_size": trained.eval_size or trained.image_size, "eval_size": None, "limit": None, "groups": None}
        return parse(DataSettings, had | size | given)


@dataclass(frozen=True, config=STRICT)
class EvaluateSettings:
    """Everything `evaluate` needs; None means: as in training.

    Two checkpoints are compared. `clean` corrects the masks that are scored. `tolerance` is that of the boundary
    F-score in pixels, `resamples` the number of bootstrap resamples. With `tune` the validation images are predicted
    too, to choose a threshold.
    """

    checkpoint: Annotated[str | list[str], AfterValidator(_one_or_two)]
    data: EvaluationDataSettings
    train: GroupTrain
    tta: TTASettings = field(default_factory=TTASettings)
    clean: CleanSettings = field(default_factory=CleanSettings)
    tolerance: Annotated[float, Field(ge=0, le=1000)] = 2.0
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    tune: bool = True
    seed: Annotated[int, Field(ge=0)] | None = None
    run_dir: str | None = None


@dataclass(frozen=True, config=STRICT)
class PredictSettings:
    """Everything `predict` needs.

    `input` is a file, a folder, a pattern, a list of these as a text file, or several of all that; or a video, or
    `camera:N`, whose frames `frames` limits, None for all. `image_size` is the size to which whole images are resized;
    `tile` is the side of the window for sliding-window inference at the image's own size, and `overlap` the fraction of
    a window that its neighbour covers too. Where neither size nor tile is given, images are predicted as in the
    validation of the training run. `max_value` is the value that is white in photos of 16 bits, None as in training.
    `clean` corrects masks. `format` is what they are written as, beside images of them (`masks`; None: if `format` says
    so); `category` is what the objects are called, None as in training.
    """

    checkpoint: str
    input: str | Annotated[list[str], Field(min_length=1)]
    train: GroupTrain
    output: str = "predictions"
    image_size: Size | None = None
    tile: Tile | None = None
    overlap: Overlap | None = None
    max_value: MaxValue | None = None
    tta: TTASettings = field(default_factory=TTASettings)
    clean: CleanSettings = field(default_factory=CleanSettings)
    format: Formats = "masks"
    category: Annotated[str, Field(min_length=1)] | None = None
    polygons: PolygonSettings = field(default_factory=PolygonSettings)
    masks: bool | None = None
    probabilities: bool = False
    overlays: bool = True
    overwrite: bool = False
    frames: Count | None = None

    @property
    def formats(self) -> list[str]:
        """What masks are written as, each once; "masks" for images of them."""
        given: list[str] = [self.format] if isinstance(self.format, str) else list(self.format)
        if self.masks is not None:
            given = ["masks"] * self.masks + [each for each in given if each != "masks"]
        return list(dict.fromkeys(given))


@dataclass(frozen=True, config=STRICT)
class ExportSettings:
    """Everything `export` needs; `output` None writes a file beside the checkpoint."""

    checkpoint: str
    format: Literal["onnx", "torch"] = "onnx"
    output: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, config=STRICT)
class ReportSettings:
    """Everything `report` needs: a folder that contains runs, at any depth."""

    folder: str
    output: str | None = None


@dataclass(frozen=True, config=STRICT)
class CheckSettings(Settings):
    """Everything `check` needs: a run's settings, and what to show.

    `near` is the largest distance of two 64-bit perceptual hashes at which images count as near-duplicates, None for
    exact duplicates only; `sheet` is the number of images on the contact sheet.
    """

    near: Annotated[int, Field(ge=0, le=16)] | None = 6
    sheet: Annotated[int, Field(ge=0, le=400)] = 40


@dataclass(frozen=True, config=STRICT)
class PlanSettings(RunSettings):
    """Everything `plan` needs: a run's settings, and what to show besides its phases."""

    measure: bool = False
    details: bool = False
    summary: bool = False
    picture: Picture | None = None
    output: str | None = None


@dataclass(frozen=True, config=STRICT)
class TapsSettings(RunSettings):
    """Everything `taps` needs: a run's settings, and how to show the layers."""

    details: bool = False
    measure: bool = True
    format: Literal["table", "json", "csv"] = "table"
    picture: Picture | None = None


@dataclass(frozen=True, config=STRICT)
class ProbeSettings(Settings):
    """Everything `probe` needs: a run's settings, and how to fit the classifiers.

    `layers` are the candidates, names or `re:` patterns, None for a default selection; `compare` maps names of your
    own to further tap maps to measure. `pixels` is the number sampled from each image; `ridge` regularises.
    """

    layers: Annotated[list[str], Field(min_length=1)] | None = None
    compare: dict[str, list[str]] = field(default_factory=dict)
    train_images: Annotated[int, Field(ge=5)] | None = 100
    val_images: Count | None = 50
    pixels: Annotated[int, Field(ge=2)] = 500
    ridge: Positive = 0.03


@dataclass(frozen=True, config=STRICT)
class CacheCommandSettings:
    """Everything `cache` needs.

    `clear` removes what would be listed: what was not used for `days`. `folder` None is the user's cache folder.
    """

    clear: bool = False
    days: Annotated[int, Field(ge=0)] = 0
    folder: str | None = None
    format: Literal["table", "json"] = "table"


#: The settings of each command.
SETTINGS: dict[str, type] = {
    "train": Settings,
    "evaluate": EvaluateSettings,
    "plan": PlanSettings,
    "taps": TapsSettings,
    "probe": ProbeSettings,
    "check": CheckSettings,
    "predict": PredictSettings,
    "export": ExportSettings,
    "report": ReportSettings,
    "cache": CacheCommandSettings,
}
