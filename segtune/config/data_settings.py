"""Settings of images, masks and augmentation."""

from dataclasses import field
from typing import Any

from pydantic.dataclasses import dataclass

from segtune.config.foreground_rule import ForegroundRule
from segtune.config.types import (
    STRICT,
    Count,
    DataName,
    Fraction,
    MaskChannel,
    MaskName,
    MaxValue,
    Overlap,
    Size,
    SplitName,
    Tile,
)

#: Where the built-in data are drawn by default, relative to the current folder.
PORTRAITS_ROOT = "data/portraits"

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
    `mask_name` is the name of a mask, in which `*` stands for that of its photo, None for the same name, and
    `mask_channel` the channel of its file that counts. `max_value` is the value that is white in photos of 16 bits,
    None for 65535. `skin` and `groups` choose the subgroups of an evaluation: by skin tone, by the columns of a CSV
    file.
    """

    name: DataName
    root: str | None = None
    mask_name: MaskName | None = None
    mask_channel: MaskChannel = "all"
    foreground: ForegroundRule = "auto"
    invert: bool = False
    image_size: Size = 256
    eval_size: Size | None = None
    eval_tile: Tile | None = None
    eval_overlap: Overlap = 0.25
    val_share: Fraction = 0.15
    test_share: Fraction = 0.15
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


@dataclass(frozen=True, config=STRICT)
class AugmentSettings:
    """`crop`: of a random crop, or None; `transforms`: albumentations' by name, in order.

    The crop is resized, with albumentations' `scale` and `ratio`; or with `object_fraction` it is as many pixels of the
    image as the network takes, and not resized. Of these there are `per_image` of each image in an epoch.
    """

    crop: dict[str, Any] | None = None
    transforms: dict[str, dict[str, Any]] = field(default_factory=dict)

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
