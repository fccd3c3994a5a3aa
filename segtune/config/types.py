"""The types of settings: numbers in ranges, and words to choose from."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
Positive = Annotated[float, Field(gt=0)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
MaxValue = Annotated[int, Field(ge=1, le=65535)]
NotNegative = Annotated[float, Field(ge=0)]
Scale = Annotated[float, Field(ge=0.25, le=4)]
Side = Annotated[int, Field(ge=32, le=8192)]
HeightWidth = Annotated[list[Side], Field(min_length=2, max_length=2)]
Size = Side | HeightWidth
Tile = Annotated[int, Field(ge=128, le=8192)]
Overlap = Annotated[float, Field(ge=0, le=0.5)]
Outputs = Literal[1, 2]
DataName = Literal["folder", "portraits"]
MaskChannel = Literal["all", "red", "green", "blue", "alpha"]
SplitName = Literal["train", "val", "test", "all"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
EmptyRule = Literal["one", "zero", "skip"]
EmptyMaskRule = Literal["background", "smooth", "skip"]
OptimizerName = Literal["adamw", "adam", "sgd", "rmsprop", "rmsprop_tf"]
Schedule = Literal["cosine", "poly", "exponential", "multistep", "constant"]


def _auto_or_count(value: int | str) -> int | str:
    if isinstance(value, str) and value != "auto":
        raise ValueError("auto, or a number of 0 or more")
    return value


#: A number of worker processes, or `auto`: see `segtune.runtime.cores`.
Workers = Annotated[Annotated[int, Field(ge=0)] | str, AfterValidator(_auto_or_count)]


#: Images of a batch, or `auto`: see `segtune.training.batch_size`.
BatchSize = Count | Literal["auto"]


def _fraction_or_steps(value: float) -> float:
    if value >= 1 and not value.is_integer():
        raise ValueError("a fraction of the phase below 1, or a whole number of steps")
    return value


WarmUp = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_fraction_or_steps)]


def _with_a_star(value: str) -> str:
    if value.count("*") != 1 or "/" in value:
        raise ValueError("a name without extension in which one * stands for the photo's, such as *_mask")
    return value


#: What stands for the name of a split in `data.images` and `data.masks`.
SPLIT = "{split}"


def _a_place(value: str) -> str:
    if "{" in value.replace(SPLIT, "") or not value.strip("/"):
        raise ValueError("a folder or a pattern, in which {split} may stand for train, val and test")
    return value


def _a_suffix(value: str) -> str:
    """Return what masks have behind the names of photos without the extension that the user may have added."""
    stem, extension = PurePath(value).stem, PurePath(value).suffix.lower()
    if "*" in value or "/" in value:
        raise ValueError("what masks have behind the names of photos, such as _mask; with a * it is data.mask_name")
    return stem if extension in (".png", ".tif", ".tiff", ".bmp", ".gif") and stem else value


#: The formats of drawings.
PICTURES = ("png", "svg", "pdf")


def _picture(value: str) -> str:
    if PurePath(value).suffix.lower().removeprefix(".") not in PICTURES:
        raise ValueError("a file name that ends in .png, .svg or .pdf")
    return value


Picture = Annotated[str, AfterValidator(_picture)]
MaskName = Annotated[str, AfterValidator(_with_a_star)]
MaskSuffix = Annotated[str, AfterValidator(_a_suffix)]
Place = Annotated[str, AfterValidator(_a_place)]
Missing = Literal["error", "skip"]
Folds = Annotated[int, Field(ge=2, le=100)]
Fold = Annotated[int, Field(ge=0)]


def without_fields_of(value: Any, others: Iterable[type], own: type | None) -> Any:
    """Return a mapping without the fields that only other classes have; anything else as it is."""
    if not isinstance(value, Mapping) or own is None:
        return value
    foreign = {each.name for other in others for each in fields(other)} - {each.name for each in fields(own)}
    return {name: each for name, each in value.items() if name not in foreign}
