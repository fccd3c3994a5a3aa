"""The batch sampler, whose order depends on seed and epoch alone, and the data loader."""

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
    """Batches of `(epoch, index)` keys; an epoch's order depends on the seed and `epoch` alone.

    Set `epoch` before each pass; `start` is the first batch, to resume in the middle of an epoch, and `end` the batch
    to stop before. The last batch may be smaller. Each batch is divided among `world` processes; a process for which
    no image is left gets one that `share_of` gives no weight.
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
        """The number of batches in a whole epoch."""
        return -(-self.length // self.batch_size)

    def share_of(self, batch: int) -> tuple[int, int]:
        """Return the number of images of a batch in this process, and in all processes."""
        size = min(self.batch_size, self.length - batch * self.batch_size)
        return len(range(self.rank, size, self.world)), size

    def __len__(self) -> int:
        """Return the number of batches from `start` to `end`."""
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
    """Return a batch of samples: `image` `(N, 3, h, w)`, `mask` `(N, 1, h, w)`, `index` `(N,)`; `truth` is a list."""
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
    """Return a loader with persistent worker processes; `batches` stays in this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, cores)
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
    # Ctrl-C and a shell's kill reach the whole process group, but the main process must stop first and end the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    # With several workers, threads inside each would compete for the same cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
