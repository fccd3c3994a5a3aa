"""The batch sampler, whose order depends on seed and epoch alone, and the data loader."""

import atexit
import logging
import multiprocessing
import os
import queue
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import cache
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from segtune.data.dataset import SegmentationDataset
from segtune.data.worker import BatchedDataset, Failure, start_worker
from segtune.errors import StoppedError
from segtune.runtime.cores import usable_cores

log = logging.getLogger(__name__)


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


def _as_tensors(value: Any) -> Any:
    """Return a batch with the arrays of `_shared` as tensors."""
    if isinstance(value, dict):
        return {name: _as_tensors(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_tensors(each) for each in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


class BatchLoader:
    """The batches of a data set, made by worker processes that stay alive between passes."""

    def __init__(
        self, dataset: SegmentationDataset, batches: Sampler[list[tuple[int, int]]], workers: int, pin_memory: bool
    ) -> None:
        self.dataset, self.batches, self.pin_memory = dataset, batches, pin_memory
        self.loader = self._loader(min(workers, usable_cores()))
        self.thread: threading.Thread | None = None
        self.waited = 0.0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Return an iterator over the batches; see `until`."""
        return self.until(lambda waited: False)

    def until(self, give_up: Callable[[float], bool]) -> Generator[dict[str, Any]]:
        """Yield the batches, and end early if `give_up(seconds)` while this process has waited so long for the next.

        Raises:
            StoppedError: A file cannot be read, or a worker has ended.
            MemoryError: A batch is too large for the memory.
        """
        given = self._given(give_up) if self.loader.num_workers else iter(self.loader)
        while True:
            began = time.perf_counter()
            batch = next(given, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            if isinstance(batch, Failure):
                raise MemoryError(batch.text) if batch.memory else StoppedError(batch.text)
            if isinstance(batch["image"], np.ndarray):
                _warn_of_shared_memory()
            yield _as_tensors(batch)

    def take_wait(self) -> float:
        """Return the seconds that batches were waited for since this was last called."""
        taken, self.waited = self.waited, 0.0
        return taken

    def _given(self, give_up: Callable[[float], bool]) -> Iterator[Any]:
        """Yield what the workers make. A thread waits for them, so that this one can look around while it waits."""
        if self.thread:
            self.thread.join()  # it may still wait for the last batch of a pass that was given up
        made: queue.Queue[Any] = queue.Queue(1)
        ended = threading.Event()
        self.thread = threading.Thread(target=self._feed, args=(made, ended), daemon=True)
        self.thread.start()
        try:
            while True:
                began, warned = time.monotonic(), False
                while True:
                    try:
                        item = made.get(timeout=_POLL)
                        break
                    except queue.Empty:
                        waited = time.monotonic() - began
                        if give_up(waited):
                            return
                        if waited > _LONG and not warned:
                            log.warning(_SLOW, waited)
                            warned = True
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise _explained(item) from item
                yield item
        finally:
            ended.set()

    def _feed(self, made: "queue.Queue[Any]", ended: threading.Event) -> None:
        """Put the batches into a queue, then None or the exception that ended it."""
        try:
            for batch in self._started():
                _put(made, batch, ended)
                if ended.is_set():
                    return
            last = None
        except BaseException as error:
            last = error
        _put(made, last, ended)

    def _started(self) -> Iterator[Any]:
        """Return an iterator over the batches; without workers if these cannot be started."""
        try:
            # What they need is tried first: a data loader that has failed half-way prints a traceback when it is freed.
            tried: list[Any] = [multiprocessing.Queue() for _ in range(self.loader.num_workers + 2)]
            del tried
            others = set(multiprocessing.active_children())
            batches = iter(self.loader)
            _workers.update(set(multiprocessing.active_children()) - others)
            return batches
        except OSError as error:
            _warn_of_workers(error.strerror or str(error))
            self.loader = self._loader(0)
            return iter(self.loader)

    def _loader(self, workers: int) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            BatchedDataset(self.dataset),
            batch_sampler=self.batches,  # it stays in this process
            num_workers=workers,
            pin_memory=self.pin_memory,
            collate_fn=_unchanged,
            worker_init_fn=start_worker,
            persistent_workers=workers > 0,
        )


#: Seconds between two looks at whether to stop, and of waiting until it is said.
_POLL, _LONG = 0.2, 120.0
_SLOW = "No batch has come for %.0f s: is the storage slow, or do the worker processes hang? See train.workers."


def _put(made: "queue.Queue[Any]", item: Any, ended: threading.Event) -> None:
    while not ended.is_set():
        with suppress(queue.Full):
            made.put(item, timeout=_POLL)
            return


def _explained(error: BaseException) -> BaseException:
    """Return the error of a data loader, with an explanation if a worker has ended."""
    # A worker that ends while it hands over a batch breaks the connection before PyTorch notices its end.
    broken = isinstance(error, ConnectionError | EOFError)
    if not broken and not (isinstance(error, RuntimeError) and "DataLoader worker" in str(error)):
        return error
    return StoppedError(
        "A worker process that reads images has ended: it was killed, most likely because the system has run out of "
        "memory. Use fewer of them (train.workers=0 uses none), or give the job more memory."
    )


#: The worker processes of all loaders.
_workers: "weakref.WeakSet[BaseProcess]" = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """End workers that are left at exit, such as those of a loader that a traceback refers to.

    Python would send SIGTERM, of which they ignore the first, and wait for them.
    """
    for process in _workers & set(multiprocessing.active_children()):
        process.kill()


@cache
def _warn_of_workers(reason: str) -> None:
    log.warning(
        "The worker processes cannot be started (%s); they need space in /dev/shm, open files and memory. "
        "Images are read in the main process instead, as with train.workers=0, which is slower.",
        reason,
    )


@cache
def _warn_of_shared_memory() -> None:
    size = shutil.disk_usage("/dev/shm").total / 2**20 if os.path.isdir("/dev/shm") else 0
    log.warning(
        "The shared memory, /dev/shm (%.0f MB), is full, so batches come from the workers in a slower way. More of it "
        "(docker run --shm-size=2g or --ipc=host) or train.workers=0 avoids this.",
        size,
    )


def _unchanged(batch: Any) -> Any:
    return batch


def make_loader(dataset: SegmentationDataset, batches: EpochBatches, workers: int, pin_memory: bool) -> BatchLoader:
    """Return a loader with persistent worker processes, no more of them than there are cores."""
    return BatchLoader(dataset, batches, workers, pin_memory)
