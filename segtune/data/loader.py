"""Batches whose order follows from seed and epoch, and the loader that reads them."""

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from segtune.data.dataset import SegmentationDataset


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
        """Return the pictures of a batch that are this process's, and those of all."""
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
