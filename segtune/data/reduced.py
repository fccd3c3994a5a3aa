"""Photos that are much larger than the network needs: shrunk once, by area averaging, and kept."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtune.data.decoding import ImageError
from segtune.data.labels import Foreground
from segtune.data.record import content_name, is_unchanged
from segtune.data.sources.base import Pair
from segtune.data.transforms import crop_ranges, resize
from segtune.metrics import VOID

log = logging.getLogger(__name__)

#: To be raised when photos are reduced in another way.
FORMAT = 3
#: Photos are reduced if they are so many times as large as needed; the smallest crop then keeps so many times the size
#: of the network's input, and twice its pixels: most of the time of a sample is shrinking its crop.
_LARGE, _MARGIN = 4.0, math.sqrt(2)
#: The decoder may reduce a photo, with a random crop, as long as it stays so many times as large as its target.
_DECODED = 2


class Keeper(Protocol):
    """Keeps tensors by name."""

    def read(self, name: str) -> Mapping[str, Tensor] | None:
        """Return what is kept, None if it is missing or damaged."""

    def write(self, name: str, record: Mapping[str, Tensor]) -> None:
        """Keep tensors; raises OSError if that is impossible."""


class ReducedPhotos:
    """Reads photos and masks; those of photos that are four times as large as the network needs, or larger, reduced.

    With a random crop, needed is that the smallest one still has the network's input size; the reduced photo has twice
    as many pixels. Without a crop it has the input's size itself, so no sample changes. Whether a reduced photo is kept
    does not matter for its content. Smaller photos stay as they are.

    With a crop, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that divides its sides and leaves twice the size
    of the reduced photo or more. Drawn scenes then differ by at most 1.5 of 255 levels on average and 24 anywhere from
    those decoded whole.
    """

    def __init__(
        self, size: tuple[int, int], crop: Mapping[str, Any] | None, store: Keeper | None = None, *, truth: bool = False
    ) -> None:
        """Create a reader for the network's input size, height and width, and the settings `augment.crop`.

        With `truth` the masks are kept at their original size too, a bit a pixel, or two where some are void.
        """
        self.size, self.store, self.truth = size, store, truth
        self.ranges = None if crop is None else crop_ranges(size, crop)

    def target(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the height and width to which a photo is reduced; None if it stays as it is."""
        if self.ranges is None:
            target, needed = self.size, max(self.size[0] / height, self.size[1] / width)
        else:
            (least, _), (narrow, wide) = self.ranges
            # The sides of the smallest crop that RandomResizedCrop draws, or takes where none fits.
            crop_height = min(math.sqrt(height * width * least / wide), height, width / narrow)
            crop_width = min(math.sqrt(height * width * least * narrow), width, height * wide)
            needed = max(self.size[0] / crop_height, self.size[1] / crop_width)
            target = math.ceil(height * _MARGIN * needed), math.ceil(width * _MARGIN * needed)
        return target if needed <= 1 / _LARGE else None

    def enough(self, height: int, width: int) -> tuple[int, int] | None:
        """Return the height and width at which it is enough to decode a photo; None for its full size."""
        target = self.target(height, width) if self.ranges else None
        return target and (_DECODED * target[0], _DECODED * target[1])

    def read(
        self, pair: Pair, foreground: Foreground, max_value: int | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a photo (H, W, 3) and its labels (H, W), 0, 1 or `VOID`, both reduced if the photo is large.

        The third is with `truth` the labels at their original size, else the second again.

        Raises:
            ImageError: A file cannot be read.
        """
        name = f"{content_name(pair)}-0" if pair.checksums else ""
        if self.store and name and (record := self.store.read(name)):
            photo, mask = record["photo"].numpy(), record["mask"].numpy()
            return photo, mask, _unpacked(record) if self.truth else mask
        truth = mask = foreground(pair.read_mask())
        loaded = pair.load_photo(self.enough)
        photo = loaded.pixels(max_value)
        if mask.shape != loaded.size:
            sizes = "{} x {} pixels, its photo {} x {}".format(*mask.shape, *loaded.size)
            raise ImageError(pair.mask, f"{sizes}; a mask must have the size of its photo")
        if target := self.target(*loaded.size):
            photo, mask = resize(photo, mask, target)
            if self.store and name and is_unchanged(pair):  # else it would be kept under the name of what was there
                record = {"photo": torch.from_numpy(photo), "mask": torch.from_numpy(mask)}
                self._keep(self.store, name, record | (_packed(truth) if self.truth else {}))
        return photo, mask, truth if self.truth else mask

    def _keep(self, store: Keeper, name: str, record: Mapping[str, Tensor]) -> None:
        try:
            store.write(name, record)
        except OSError as error:
            log.warning("Reduced photos are no longer kept: %s. They are read from their files each time.", error)
            self.store = None


def _packed(truth: NDArray[np.uint8]) -> dict[str, Tensor]:
    planes = {"truth": truth == 1, "void": truth == VOID}
    planes = {name: plane for name, plane in planes.items() if name == "truth" or plane.any()}
    packed = {name: torch.from_numpy(np.packbits(plane)) for name, plane in planes.items()}
    return packed | {"size": torch.tensor(truth.shape)}


def _unpacked(record: Mapping[str, Tensor]) -> NDArray[np.uint8]:
    height, width = record["size"].tolist()
    truth, *void = (
        np.unpackbits(record[name].numpy(), count=height * width).reshape(height, width)
        for name in ("truth", "void")
        if name in record
    )
    return np.where(void[0], np.uint8(VOID), truth) if void else truth
