"""Pairs of image and mask, and problems: what every data source returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segtune.config.types import MaskChannel
from segtune.data.decoding import Enough
from segtune.data.images import LoadedMask, Photo, load_mask, load_photo
from segtune.data.labels import Mask


@dataclass(frozen=True)
class Pair:
    """A photo and its mask; their methods hide the file format.

    `name` is unique in a data set: the photo's file name without extension, with folders before it where there are
    any, separated by `/`.

    `checksums` are those of the contents, once these have been read, and `stamp` is what the disk said of the files
    before: see `segtune.data.record`. `channel` is that of the mask's file which counts: see `load_mask`.
    """

    name: str
    photo: Path
    mask: Path
    checksums: str = field(default="", compare=False, repr=False)
    stamp: str = field(default="", compare=False, repr=False)
    channel: MaskChannel = "all"

    def load_photo(self, enough: Enough | None = None) -> Photo:
        """Return the photo with all its bits, and what its file says of it.

        With `enough` it may be smaller, see `segtune.data.decoding.decode`.

        Raises:
            ImageError: The file is missing, damaged or not an image.
        """
        return load_photo(self.photo, enough)

    def load_mask(self) -> LoadedMask:
        """Return the mask, and what its file says of it.

        Raises:
            ImageError: The file is missing, damaged or not a mask.
        """
        return load_mask(self.mask, self.channel)

    def read_photo(self, max_value: int | None = None) -> NDArray[np.uint8]:
        """Return the photo as RGB of 8 bits, (H, W, 3); `max_value` is white in 16 bits, None for 65535."""
        return self.load_photo().pixels(max_value)

    def read_mask(self) -> Mask:
        """Return the mask as its file holds it, (H, W)."""
        return self.load_mask().mask


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data; errors prevent training, warnings do not.

    The kind of the problem is the part of `text` before its first colon; `where` is a file, list or split.
    """

    level: Literal["error", "warning"]
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.text}"


def place(path: Path) -> str:
    """Return how a problem names a file: with the folder that it is in."""
    return f"{path.parent.name}/{path.name}"


@dataclass(frozen=True)
class Found:
    """What a data source found.

    Attributes:
        pairs: Sorted by name.
        problems: What is wrong, as far as names and annotations tell.
        layout: Where images and masks are, in words, as the first line of a command says it.
        splits: Names of the pairs by split where the source fixes the split; None: lists of names or the seed do.
        split_by: What fixes it, in words, as in "split by folders".
        settings: Settings of `data` that were chosen by looking at the folder, by name; they then are the run's.
        skipped: Names of images that are left out because they have no mask.
        groups: The group of each pair by name, which stays in one split; None: a pattern of names tells it, if any.
    """

    pairs: Sequence[Pair]
    problems: Sequence[Problem] = ()
    layout: str = ""
    splits: Mapping[str, Sequence[str]] | None = None
    split_by: str = "folders"
    settings: Mapping[str, object] = field(default_factory=dict)
    skipped: Sequence[str] = ()
    groups: Mapping[str, str] | None = None
