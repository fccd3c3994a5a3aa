"""What runs in the worker processes of the data loader: whole batches, and why one cannot be made."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch.utils.data import Dataset, get_worker_info

from segtune.data.dataset import SegmentationDataset
from segtune.errors import UserError, out_of_memory
from segtune.runtime.interrupts import stop_numbers


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


@dataclass(frozen=True)
class Failure:
    """Why a batch could not be made: it travels from a worker to the main process better than an exception."""

    text: str
    memory: bool = False


class BatchedDataset(Dataset[dict[str, Any]]):
    """A data set that makes whole batches; in a worker process their tensors are put into shared memory.

    PyTorch would do so in a thread of the worker, where an error is printed and the batch is lost: with a full /dev/shm
    (64 MB in a Docker container, unless told otherwise) training would wait for it for ever.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> dict[str, Any] | Failure:
        """Return a batch of samples, or why it cannot be made."""
        samples = []
        for key in keys:
            pair = self.dataset.pairs[key[1]]
            try:
                samples.append(self.dataset[key])
            except UserError as error:  # it names the file
                return Failure(str(error))
            except Exception as error:
                text = f"{pair.photo} with {pair.mask}: {type(error).__name__}: {error}"
                return Failure(text, memory=out_of_memory(error))
        try:
            batch = collate(samples)
        except Exception as error:
            return Failure(f"{type(error).__name__}: {error}", memory=out_of_memory(error))
        return batch if get_worker_info() is None else _shared(batch)


def _shared(value: Any) -> Any:
    """Return a batch with its tensors in shared memory, or as arrays, which travel through a pipe, if that is full."""
    if isinstance(value, dict):
        return {name: _shared(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shared(each) for each in value]
    try:
        return value.share_memory_()
    except (RuntimeError, OSError):
        return value.numpy()


def start_worker(_: int) -> None:
    """Set up a worker process."""
    # Ctrl-C, a closed terminal and a batch system reach all processes, but the main one must stop first and end these.
    for number in stop_numbers():
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))  # the second one ends it
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    # With several workers, threads inside each would compete for the same cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
