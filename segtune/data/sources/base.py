"""Pairs of image and mask, and problems: what every data source returns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segtune.data.images import read_mask, read_photo
from segtune.data.labels import Mask


@dataclass(frozen=True)
class Pair:
    """A photo and its mask; `name` is their common file stem. Their methods hide the file format."""

    name: str
    photo: Path
    mask: Path

    def read_photo(self) -> NDArray[np.uint8]:
        """Return the photo as RGB, (H, W, 3).

        Raises:
            ImageError: The file is missing, damaged or not an image.
        """
        return read_photo(self.photo)

    def read_mask(self) -> Mask:
        """Return the mask as its file holds it, (H, W).

        Raises:
            ImageError: The file is missing, damaged or not a mask.
        """
        return read_mask(self.mask)


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
