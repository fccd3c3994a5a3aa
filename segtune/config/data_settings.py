"""Settings of images, masks and augmentation."""

from dataclasses import field
from typing import Any

from pydantic.dataclasses import dataclass

from segtune.config.foreground_rule import ForegroundRule
from segtune.config.types import STRICT, Count, DataName, Fraction, MaskChannel, MaskName, MaxValue, Size, SplitName

#: Where the built-in data are drawn by default, relative to the current folder.
PORTRAITS_ROOT = "data/portraits"


def _height_and_width(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass(frozen=True, config=STRICT)
class ImageSettings:
    """Settings of images and masks; sizes are a side or [height, width] in pixels.

    `image_size` is the network's input size in training, `eval_size` in validation and evaluation, None for the same.
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

    @property
    def random(self) -> bool:
        """Whether an image differs from epoch to epoch."""
        return self.crop is not None or bool(self.transforms)
