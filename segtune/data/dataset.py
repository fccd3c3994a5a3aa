"""A data set of image and mask pairs; augmentation depends on (seed, epoch, index) alone."""

import random
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from segtune.config.data_settings import AugmentSettings, DataSettings
from segtune.data.labels import Foreground, foreground
from segtune.data.reduced import ReducedPhotos
from segtune.data.sources.base import Pair
from segtune.data.transforms import build_transform

if TYPE_CHECKING:
    import albumentations as A  # imported only by segtune.data.transforms and object_crop


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Reads and augments pairs; `dataset[epoch, index]` is the same sample in every process and at any time.

    A sample holds `image` (uint8 RGB, `(3, h, w)`; the model does the normalisation), `mask` (uint8 0, 1 or `VOID`,
    `(1, h, w)`), `index` and, with `truth=True`, `truth`: the mask at its original size (uint8 as well, `(H, W)`).
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        foreground: Foreground,
        transform: "A.Compose",
        seed: int,
        *,
        max_value: int | None = None,
        truth: bool = False,
        by_content: bool = False,
        photos: ReducedPhotos | None = None,
    ) -> None:
        """Create a data set.

        With `by_content` augmentation depends on the image's checksum instead of its index. `photos` reads the pairs,
        None: at their full size.
        """
        self.pairs = pairs
        self.foreground = foreground
        self.transform = transform
        self.seed = seed
        self.max_value = max_value
        self.truth = truth
        self.by_content = by_content
        self.photos = photos

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return sample `index`, augmented for epoch `epoch`; `key` is `(epoch, index)`.

        Raises:
            ImageError: A file cannot be read.
        """
        epoch, index = key
        pair = self.pairs[index]
        if self.photos:
            photo, mask, truth = self.photos.read(pair, self.foreground, self.max_value)
        else:
            truth = mask = self.foreground(pair.read_mask())
            photo = pair.read_photo(self.max_value)
        self._seed(epoch, index)
        out = self.transform(image=photo, mask=mask)
        sample = {
            "image": torch.from_numpy(np.ascontiguousarray(out["image"].transpose(2, 0, 1))),
            "mask": torch.from_numpy(np.ascontiguousarray(out["mask"][None])),
            "index": index,
        }
        return sample | {"truth": torch.from_numpy(truth)} if self.truth else sample

    def only(self, chosen: slice) -> "SegmentationDataset":
        """Return this data set restricted to some pairs."""
        return SegmentationDataset(
            self.pairs[chosen],
            self.foreground,
            self.transform,
            self.seed,
            max_value=self.max_value,
            truth=self.truth,
            by_content=self.by_content,
            photos=self.photos,
        )

    def _seed(self, epoch: int, index: int) -> None:
        # Compose.set_random_seed would seed every transform alike, so that a flip always came with a rotation;
        # one generator shared by all keeps them independent.
        image = zlib.crc32(self.pairs[index].checksums.encode()) if self.by_content else index
        source = np.random.SeedSequence(self.seed, spawn_key=(epoch, image))
        self.transform.set_random_state(np.random.default_rng(source), random.Random(int(source.generate_state(1)[0])))


def build_dataset(
    pairs: Sequence[Pair],
    data: DataSettings,
    augment: AugmentSettings | None,
    seed: int = 0,
    *,
    by_content: bool = False,
    photos: ReducedPhotos | None = None,
) -> SegmentationDataset:
    """Return a data set for training or, without augmentation, for evaluation (with masks at their original size).

    In tiles (`data.eval_tile`) evaluation has the images at their original size too, so they fit into no common batch.
    """
    if augment is None:
        transform = build_transform(data.evaluation_size if data.eval_tile is None else None, None, {})
    else:
        void_border = augment.border == "void"
        transform = build_transform(data.size, augment.crop, augment.transforms, void_border=void_border)
    return SegmentationDataset(
        pairs,
        foreground(data),
        transform,
        seed,
        max_value=data.max_value,
        truth=augment is None,
        by_content=by_content,
        photos=photos,
    )
