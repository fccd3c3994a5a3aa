"""What a worker makes of a batch, and of what fails there."""

import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import get_worker_info

from segtune.data import worker
from segtune.data.images import ImageError
from segtune.data.sources.base import Pair
from segtune.data.worker import BatchedDataset, Failure, start_worker


class Samples:
    """A data set whose samples are computed, or raise."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = errors
        self.pairs = [Pair(f"p{i}", Path(f"images/p{i}.png"), Path(f"masks/p{i}.png")) for i in range(len(errors))]

    def __len__(self) -> int:
        return len(self.errors)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        if error := self.errors[key[1]]:
            raise error
        image = torch.full((3, 4, 4), key[1], dtype=torch.uint8)
        return {"image": image, "mask": image[:1], "index": key[1], "truth": image[0]}


def batch(*errors: BaseException | None) -> Any:
    return BatchedDataset(Samples(*errors)).__getitems__([(0, i) for i in range(len(errors))])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImageError(Path("images/p1.png"), "the file is empty"), Failure("images/p1.png: the file is empty")),
        (OSError("gone"), Failure("images/p1.png with masks/p1.png: OSError: gone")),
        (MemoryError(), Failure("images/p1.png with masks/p1.png: MemoryError: ", memory=True)),
        (
            cv2.error("(-4:Insufficient memory) Failed"),
            Failure("images/p1.png with masks/p1.png: error: (-4:Insufficient memory) Failed", True),
        ),
    ],
)
def test_a_failure_names_the_file(error: Exception, expected: Failure) -> None:
    assert batch(None, error) == expected


@pytest.mark.parametrize("full", [False, True])
def test_tensors_travel_in_shared_memory_unless_that_is_full(monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    def share(tensor: torch.Tensor) -> torch.Tensor:
        if full:
            raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")
        return tensor

    assert get_worker_info() is None
    monkeypatch.setattr(worker, "get_worker_info", lambda: "a worker")
    monkeypatch.setattr(torch.Tensor, "share_memory_", share)
    made = batch(None, None)
    kind = np.ndarray if full else torch.Tensor
    assert all(isinstance(each, kind) for each in (made["image"], made["mask"], made["index"], *made["truth"]))
    assert np.asarray(made["image"])[:, 0, 0, 0].tolist() == [0, 1]


def test_signals_of_a_batch_system_leave_workers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first SIGTERM too; a second one ends them."""
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(worker.os, "setpgrp", lambda: None)
    monkeypatch.setattr(worker.cv2, "setNumThreads", lambda _: None)
    start_worker(0)
    ignored = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    assert [handlers[number] for number in ignored] == [signal.SIG_IGN] * 4
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert handlers[signal.SIGTERM] == signal.SIG_DFL
