"""What every data source returns: pairs of image and mask, and problems."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segtune.data.images import read_mask, read_photo


@dataclass(frozen=True)
class Pair:
    """A photo and its mask; `name` is their common file stem. Whoever reads them need not know the format."""

    name: str
    photo: Path
    mask: Path

    def read_photo(self) -> NDArray[np.uint8]:
        """Return the photo as RGB, (H, W, 3).

        Raises:
            ImageError: The file is missing, damaged or no image.
        """
        return read_photo(self.photo)

    def read_mask(self) -> NDArray[np.integer[Any]]:
        """Return the ids in the mask, (H, W).

        Raises:
            ImageError: The file is missing, damaged or no mask.
        """
        return read_mask(self.mask)


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data; errors forbid training, warnings do not.

    What stands before the first colon of `text` is the kind of the problem; `where` is a file, list or split.
    """

    level: Literal["error", "warning"]
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.text}"
