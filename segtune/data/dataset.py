"""Pairs as tensors, in an order and with an augmentation that follow from (seed, epoch, index) alone."""

import os
import random
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from segtune.data.images import Foreground
from segtune.data.pairs import Pair

if TYPE_CHECKING:
    import albumentations as A  # only segtune.data.transforms may import it: it keeps it off the network


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Reads a pair and augments it; `dataset[epoch, index]` is the same in every process and at every time.

    A sample holds `image` (uint8 RGB, `(3, h, w)`; the model normalises by itself), `mask` (uint8 0 or 1,
    `(1, h, w)`), `index` and, with `truth=True`, `truth`: the mask before any resizing (uint8 0 or 1, `(H,
    W)`).
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        foreground: Foreground,
        transform: "A.Compose",
        seed: int,
        *,
        truth: bool = False,
    ) -> None:
        self.pairs = pairs
        self.foreground = foreground
        self.transform = transform
        self.seed = seed
        self.truth = truth

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Read picture `index` as epoch `epoch` sees it, for `key = (epoch, index)`.

        Raises:
            ImageError: a file cannot be read.
        """
        epoch, index = key
        pair = self.pairs[index]
        truth = self.foreground(pair.read_mask()).astype(np.uint8)
        self._seed(epoch, index)
        out = self.transform(image=pair.read_photo(), mask=truth)
        sample = {
            "image": torch.from_numpy(np.ascontiguousarray(out["image"].transpose(2, 0, 1))),
            "mask": torch.from_numpy(np.ascontiguousarray(out["mask"][None])),
            "index": index,
        }
        return sample | {"truth": torch.from_numpy(truth)} if self.truth else sample

    def only(self, chosen: slice) -> "SegmentationDataset":
        """Give the same data set of some pairs alone."""
        return SegmentationDataset(self.pairs[chosen], self.foreground, self.transform, self.seed, truth=self.truth)

    def _seed(self, epoch: int, index: int) -> None:
        # Compose.set_random_seed would start every transform with the same numbers, so that a flip came only
        # ever with a rotation; one generator for all of them keeps them independent.
        source = np.random.SeedSequence(self.seed, spawn_key=(epoch, index))
        self.transform.set_random_state(np.random.default_rng(source), random.Random(int(source.generate_state(1)[0])))


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of `(epoch, index)` keys; the order of an epoch follows from the seed and `epoch`.

    Set `epoch` before each pass, and `start`, the first batch to give, to go on in the middle of one, or `end`, the
    batch before which to stop. The last batch may be smaller. Of `world` processes each takes a share of every batch,
    which together make the batch of a single process; one for which there is nothing left gets a picture that
    `share_of` gives no weight.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, *, shuffle: bool = True, rank: int = 0, world: int = 1
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.start = 0
        self.end = self.whole

    @property
    def whole(self) -> int:
        """The batches of a whole epoch."""
        return -(-self.length // self.batch_size)

    def share_of(self, batch: int) -> tuple[int, int]:
        """Give the pictures of a batch that are this process's, and those of all."""
        size = min(self.batch_size, self.length - batch * self.batch_size)
        return len(range(self.rank, size, self.world)), size

    def __len__(self) -> int:
        """Count the batches from `start` to `end`."""
        return max(0, self.end - self.start)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        source = np.random.SeedSequence(self.seed, spawn_key=(self.epoch,))
        order = np.random.default_rng(source).permutation(self.length) if self.shuffle else np.arange(self.length)
        epoch = self.epoch
        for number in range(self.start, self.end):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            mine = batch[self.rank :: self.world] if len(batch) > self.rank else batch[:1]
            yield [(epoch, int(index)) for index in mine]


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples: `image` `(N, 3, h, w)`, `mask` `(N, 1, h, w)`, `index` `(N,)`; `truth` stays a list."""
    batch: dict[str, Any] = {
        "image": torch.stack([sample["image"] for sample in samples]),
        "mask": torch.stack([sample["mask"] for sample in samples]),
        "index": torch.tensor([sample["index"] for sample in samples]),
    }
    if "truth" in samples[0]:
        batch["truth"] = [sample["truth"] for sample in samples]
    return batch


def make_loader(
    dataset: SegmentationDataset, batches: EpochBatches, workers: int, pin_memory: bool
) -> DataLoader[dict[str, Any]]:
    """Make a loader whose worker processes live as long as it does; `batches` stays in this process."""
    able = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, able)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
    )


def _start_worker(_: int) -> None:
    # Ctrl-C and a shell's kill reach the whole process group: the main process stops well, and ends the workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    # A worker is one of many: threads of its own would only fight over the cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
