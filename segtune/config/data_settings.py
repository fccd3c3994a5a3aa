"""Settings of images, masks and augmentation."""

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from segtune.config.foreground_rule import ForegroundRule, IgnoreRule, both_named
from segtune.config.types import (
    STRICT,
    Count,
    DataName,
    Fold,
    Folds,
    Fraction,
    MaskChannel,
    MaskName,
    MaskSuffix,
    MaxValue,
    Missing,
    Overlap,
    Place,
    Size,
    SplitName,
    Tile,
)

#: Where the built-in data are drawn by default, relative to the current folder.
PORTRAITS_ROOT = "data/portraits"

#: Settings that say how photos and masks are kept in a folder, and so mean nothing in another.
LAYOUT = ("images", "masks", "mask_name", "mask_suffix", "pairs")
#: Settings that are found by looking at the data where they are not given, and then are the run's.
FOUND = (*LAYOUT, "missing", "group")

#: The arguments of `augment.crop` for crops of fixed size, which are not resized; the first is required.
OBJECT_FRACTION, PER_IMAGE = "object_fraction", "per_image"


def only_one(tile: str, size: str) -> str:
    """Return what is wrong with two settings, each with its value, of which one excludes the other."""
    return f"{tile} predicts an image at its own size, {size} at a fixed one: set only one of them"


def _height_and_width(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass(frozen=True, config=STRICT)
class ImageSettings:
    """Settings of images and masks; sizes are a side or [height, width] in pixels.

    `image_size` is the network's input size in training, `eval_size` in validation and evaluation, None for the same.
    With `eval_tile`, the side of a window, these see images at their own size by sliding-window inference; a window and
    its neighbour share the fraction `eval_overlap`.
    `images` and `masks` are folders or patterns relative to `root`, and `mask_name` is the name of a mask, in which `*`
    stands for that of its photo; None: to be found. `mask_suffix` is its part behind the `*`, where nothing is before,
    and `mask_channel` the channel of its file that counts. `pairs` is a CSV file that names images and masks instead.
    `missing` says what becomes of an image without mask, None for an error, except in the layout of VOC. `group` is a
    column of `pairs` or a pattern of names: images that agree in it stay in one split. With `folds`, the one numbered
    `fold` is the validation. `ignore` are the values of masks that count nowhere, None for none. `max_value` is the
    value that is white in photos of 16 bits, None for 65535. `skin` and `groups` choose the subgroups of an evaluation:
    by skin tone, by the columns of a CSV file.
    """

    name: DataName
    root: str | None = None
    images: Place | None = None
    masks: Place | None = None
    mask_name: MaskName | None = None
    mask_channel: MaskChannel = "all"
    mask_suffix: MaskSuffix | None = None
    pairs: str | None = None
    missing: Missing | None = None
    foreground: ForegroundRule = "auto"
    invert: bool = False
    ignore: IgnoreRule = None
    image_size: Size = 256
    eval_size: Size | None = None
    eval_tile: Tile | None = None
    eval_overlap: Overlap = 0.25
    val_share: Fraction = 0.15
    test_share: Fraction = 0.15
    group: str | None = None
    folds: Folds | None = None
    fold: Fold = 0
    limit: Count | None = None
    max_value: MaxValue | None = None
    skin: bool = False
    groups: str | None = None
    split: SplitName = "test"

    def __post_init__(self) -> None:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share together leave nothing to train on")
        if self.eval_tile is not None and self.eval_size is not None:
            raise ValueError(only_one(f"eval_tile={self.eval_tile}", f"eval_size={self.eval_size}"))
        if self.mask_name is not None and self.mask_suffix is not None:
            raise ValueError("mask_name and mask_suffix say the same: give one of them")
        if self.fold >= (self.folds or 1):
            raise ValueError(
                f"fold={self.fold} is not one of folds={self.folds}: expected 0 to {self.folds - 1}"
                if self.folds
                else f"fold={self.fold} needs folds, the number of folds, such as folds=5"
            )
        if both := both_named(self.foreground, self.ignore):
            named = ", ".join(map(str, both))
            raise ValueError(f"foreground and ignore both name {named}: a value is the object, or counts nowhere")

    @property
    def mask_pattern(self) -> str | None:
        """The name of a mask, in which `*` stands for that of its photo; None: to be found."""
        return self.mask_name if self.mask_suffix is None else f"*{self.mask_suffix}"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input in training, in pixels."""
        return _height_and_width(self.image_size)

    @property
    def evaluation_size(self) -> tuple[int, int]:
        """Height and width of the network's input in validation and evaluation, in pixels."""
        if self.eval_tile is not None:
            return self.eval_tile, self.eval_tile
        return self.size if self.eval_size is None else _height_and_width(self.eval_size)

    @property
    def tiles(self) -> str:
        """How images are predicted in tiles, as text; empty if they are not."""
        if self.eval_tile is None:
            return ""
        return f"in tiles of {self.eval_tile} x {self.eval_tile} pixels that share {self.eval_overlap:.0%}"


@dataclass(frozen=True, config=STRICT)
class DataSettings(ImageSettings):
    """Images and masks in the folder `root`."""

    root: str = field()  # else the default None would be inherited


def of_earlier_run(given: Any, had: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the values of an earlier run for those settings of data that are not given."""
    named = given.mask_name is not None or given.mask_suffix is not None
    silent = (name for name in names if getattr(given, name) is None)
    return {name: had[name] for name in silent if not (named and name.startswith("mask_"))}


@dataclass(frozen=True, config=STRICT)
class AugmentSettings:
    """`crop`: of a random crop, or None; `transforms`: albumentations' by name, in order.

    The crop is resized, with albumentations' `scale` and `ratio`; or with `object_fraction` it is as many pixels of the
    image as the network takes, and not resized. Of these there are `per_image` of each image in an epoch. `border` is
    what rotations and shifts bring in from outside: `void`, or None for what each transform says.
    """

    crop: dict[str, Any] | None = None
    transforms: dict[str, dict[str, Any]] = field(default_factory=dict)
    border: Literal["void"] | None = None

    def __post_init__(self) -> None:
        if not self.at_own_scale or self.crop is None:
            return
        if others := sorted(self.crop.keys() - {OBJECT_FRACTION, PER_IMAGE}):
            raise ValueError(
                f"crop: got {OBJECT_FRACTION} and {', '.join(others)}; expected {OBJECT_FRACTION} and {PER_IMAGE}, for "
                "crops of data.image_size pixels that are not resized (augment=crops has them), or scale and ratio, "
                "for crops that are"
            )
        fraction, number = self.crop[OBJECT_FRACTION], self.crops_per_image
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise ValueError(f"crop.{OBJECT_FRACTION}: got {fraction!r}; expected a number from 0 to 1")
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"crop.{PER_IMAGE}: got {number!r}; expected a whole number of 1 or more")

    @property
    def at_own_scale(self) -> bool:
        """Whether training sees pixels of the images as they are, in crops of fixed size that are not resized."""
        return self.crop is not None and OBJECT_FRACTION in self.crop

    @property
    def crops_per_image(self) -> int:
        """How often each image comes in an epoch."""
        number: int = (self.crop or {}).get(PER_IMAGE, 1)
        return number

    @property
    def random(self) -> bool:
        """Whether an image differs from epoch to epoch."""
        return self.crop is not None or bool(self.transforms)
