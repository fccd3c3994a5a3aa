"""Batches and their order as functions of seed and epoch, for one process and for several."""

import errno
import multiprocessing
import os
import signal
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segtune.data import loader as module
from segtune.data.dataset import SegmentationDataset
from segtune.data.labels import Foreground, Mask
from segtune.data.loader import BatchLoader, EpochBatches, make_loader
from segtune.data.sources.base import Pair
from segtune.data.transforms import build_transform
from segtune.data.worker import collate
from segtune.errors import StoppedError


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    rng, made = np.random.default_rng(0), []
    for i in range(7):
        pair = Pair(f"p{i}", tmp_path / f"p{i}.png", tmp_path / f"m{i}.png")
        Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), np.uint8)).save(pair.photo)
        Image.fromarray(rng.integers(0, 2, (40 + i, 50), np.uint8) * np.uint8(255)).save(pair.mask)
        made.append(pair)
    return made


def dataset(pairs: list[Pair], truth: bool = False) -> SegmentationDataset:
    augment = {"HorizontalFlip": {"p": 0.5}, "GaussNoise": {"p": 0.5}}
    transform = build_transform((32, 48), {"scale": [0.5, 1.0], "ratio": [0.8, 1.25]}, augment)
    return SegmentationDataset(pairs, Foreground(), transform, 0, truth=truth)


def same(a: dict, b: dict) -> bool:
    return torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])


def test_workers_change_nothing_and_stay_for_all_epochs(pairs: list[Pair]) -> None:
    batches = [EpochBatches(7, 3, seed=0) for _ in range(2)]
    alone, helped = (
        make_loader(dataset(pairs), batches[0], 0, False),
        make_loader(dataset(pairs), batches[1], 2, False),
    )
    seen = []
    for epoch in range(2):
        batches[0].epoch = batches[1].epoch = epoch
        expected, got = list(alone), list(helped)
        assert [len(batch["index"]) for batch in got] == [3, 3, 1]
        assert all(same(a, b) and torch.equal(a["index"], b["index"]) for a, b in zip(expected, got, strict=True))
        seen.append(got)
    assert sorted(torch.cat([batch["index"] for batch in seen[1]]).tolist()) == list(range(7))
    assert not same(seen[0][0], seen[1][0])


def test_the_time_of_waiting_is_counted_and_nothing_else(pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which reading an image takes a second, and a step ten."""
    clock, read = [0.0], SegmentationDataset.__getitem__

    def slowly(self: SegmentationDataset, key: tuple[int, int]) -> dict:
        clock[0] += 1
        return read(self, key)

    monkeypatch.setattr(SegmentationDataset, "__getitem__", slowly)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    loader = make_loader(dataset(pairs), EpochBatches(7, 3, seed=0), 0, False)
    assert loader.take_wait() == 0
    for _ in loader:
        clock[0] += 10
    assert [loader.take_wait(), loader.take_wait()] == [7, 0]


@pytest.mark.slow
def test_an_image_takes_the_same_work_and_memory_in_a_hundred_times_as_many() -> None:
    """By calls of functions and by allocated bytes, which no other process on the machine changes."""

    class Drawn(Pair):
        def read_photo(self, max_value: int | None = None) -> np.ndarray:
            return np.zeros((40, 50, 3), np.uint8)

        def read_mask(self) -> Mask:
            return Mask(np.ones((40, 50), np.uint8))

    def epoch(count: int) -> tuple[float, float]:
        pairs: list[Pair] = [Drawn(f"p{i}", Path(f"p{i}.png"), Path(f"m{i}.png")) for i in range(count)]
        loader, calls = make_loader(dataset(pairs), EpochBatches(count, 8, seed=0), 0, False), [0]
        list(loader)  # caches are filled

        def called(*_: object) -> None:
            calls[0] += 1

        sys.setprofile(called)
        try:
            images = sum(len(batch["index"]) for batch in loader)
        finally:
            sys.setprofile(None)
        assert images == count
        tracemalloc.start()
        try:
            for _ in loader:
                pass
            return calls[0] / count, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    (few_calls, few_bytes), (many_calls, many_bytes) = epoch(100), epoch(10_000)
    assert many_calls == pytest.approx(few_calls, rel=0.1)
    assert many_bytes < few_bytes + 10_000 * 16  # the order, and what a batch holds of it


def test_a_resumed_epoch_gives_the_tail() -> None:
    whole, tail = EpochBatches(23, 4, seed=5), EpochBatches(23, 4, seed=5)
    whole.epoch = tail.epoch = 6
    tail.start = 2
    assert list(tail) == list(whole)[2:]
    assert (len(whole), len(tail)) == (6, 4)
    tail.start = 9
    assert (list(tail), len(tail)) == ([], 0)


@pytest.mark.parametrize(("length", "size", "world"), [(6, 4, 2), (5, 4, 2), (5, 4, 3), (23, 7, 4), (3, 8, 8)])
def test_shares_of_several_processes_make_the_batches_of_one(length: int, size: int, world: int) -> None:
    whole = EpochBatches(length, size, seed=3)
    shares = [EpochBatches(length, size, seed=3, rank=rank, world=world) for rank in range(world)]
    for batches in (whole, *shares):
        batches.epoch = 2
    assert {len(share) for share in shares} == {len(whole)}
    for number, (expected, *parts) in enumerate(zip(whole, *shares, strict=True)):
        counted = [share.share_of(number) for share in shares]
        assert {everyones for _, everyones in counted} == {len(expected)}
        given = [key for (mine, _), part in zip(counted, parts, strict=True) for key in part[:mine]]
        assert sorted(given) == sorted(expected)  # each image once
        assert all(len(part) == max(1, mine) for (mine, _), part in zip(counted, parts, strict=True))
    assert whole.share_of(0) == (min(length, size), min(length, size))


def test_a_process_without_a_share_gets_a_image_of_no_weight() -> None:
    last = EpochBatches(5, 4, seed=0, rank=1, world=2)
    last.start = 1
    first = EpochBatches(5, 4, seed=0, rank=0, world=2)
    first.start = 1
    assert last.share_of(1) == (0, 1)
    assert list(last) == list(first)


def test_the_end_stops_an_epoch_early() -> None:
    whole, short = EpochBatches(23, 4, seed=5), EpochBatches(23, 4, seed=5)
    short.start, short.end = 1, 3
    assert list(short) == list(whole)[1:3]
    assert (len(short), short.whole) == (2, 6)


def test_the_order_is_a_permutation_that_follows_seed_and_epoch() -> None:
    def order(seed: int, epoch: int, shuffle: bool = True) -> list[int]:
        batches = EpochBatches(50, 8, seed, shuffle=shuffle)
        batches.epoch = epoch
        keys = [key for batch in batches for key in batch]
        assert {key[0] for key in keys} == {epoch}
        return [key[1] for key in keys]

    assert sorted(order(0, 0)) == list(range(50))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order(0, 3, shuffle=False) == list(range(50))


def test_collate_stacks_all_but_the_truth(pairs: list[Pair]) -> None:
    data = dataset(pairs, truth=True)
    batch = collate([data[0, 1], data[0, 4]])
    assert batch["image"].shape == (2, 3, 32, 48)
    assert batch["mask"].shape == (2, 1, 32, 48)
    assert batch["index"].tolist() == [1, 4]
    assert [tuple(truth.shape) for truth in batch["truth"]] == [(41, 50), (44, 50)]


class Trouble(SegmentationDataset):
    """A data set with a sample that hangs, that is missing or that kills its process."""

    kind = ""

    def __getitem__(self, key: tuple[int, int]) -> dict:
        if key[1] == 5:
            if self.kind == "hangs":
                time.sleep(60)
            if self.kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "memory":
                raise MemoryError("Unable to allocate 3 GiB")
        return super().__getitem__(key)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings of the loader."""
    found: list[str] = []
    monkeypatch.setattr(module.log, "warning", lambda text, *values: found.append(text % values))
    return found


def troubled(pairs: list[Pair], kind: str, workers: int = 1) -> BatchLoader:
    data = Trouble(pairs, Foreground(), build_transform((32, 48), None, {}), 0)
    data.kind = kind
    return make_loader(data, EpochBatches(7, 2, seed=0, shuffle=False), workers, False)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_vanishes_is_named(pairs: list[Pair], workers: int) -> None:
    loader = troubled(pairs, "", workers)
    assert len(list(loader)) == 4
    pairs[5].photo.unlink()
    with pytest.raises(StoppedError) as error:
        list(loader)
    assert str(error.value) == f"{pairs[5].photo}: cannot be read: No such file or directory"


def test_memory_that_runs_out_in_a_worker_is_an_error_of_memory(pairs: list[Pair]) -> None:
    with pytest.raises(MemoryError, match=r"p5\.png with .*m5\.png: MemoryError: Unable to allocate 3 GiB"):
        list(troubled(pairs, "memory"))


def test_a_wish_to_stop_is_heard_while_a_batch_does_not_come(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    monkeypatch.setattr(module, "_LONG", 0.0)
    loader, asked = troubled(pairs, "hangs"), list[float]()
    given = list(loader.until(lambda waited: asked.append(waited) or (len(asked) > 3 and waited > 0.3)))
    assert len(given) == 2
    assert warned[-1].startswith("No batch has come for 0 s")
    for process in multiprocessing.active_children():
        process.kill()


@pytest.mark.slow  # PyTorch looks every 5 s whether its workers live
def test_a_worker_that_is_killed_is_an_error(pairs: list[Pair]) -> None:
    with pytest.raises(StoppedError, match="A worker process that reads images has ended: it was killed, most likely"):
        list(troubled(pairs, "killed"))


def test_errors_of_the_data_loader_are_explained() -> None:
    ended = RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly")
    for error in (ended, ConnectionResetError(104, "Connection reset by peer"), EOFError()):
        assert isinstance(module._explained(error), StoppedError)
    other = RuntimeError("a bug")
    assert module._explained(other) is other


def test_workers_that_cannot_be_started_are_done_without(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    def no_space() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    module._warn_of_workers.cache_clear()
    expected, before = list(troubled(pairs, "", 0)), set(multiprocessing.active_children())
    monkeypatch.setattr(multiprocessing, "Queue", no_space)
    got = list(troubled(pairs, "", 2))
    assert all(same(a, b) for a, b in zip(expected, got, strict=True))
    assert len(warned) == 1
    assert "cannot be started (No space left on device); they need space in /dev/shm" in warned[0]
    assert set(multiprocessing.active_children()) <= before


def test_batches_that_come_without_shared_memory_are_the_same(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    """The workers inherit a /dev/shm that is full."""

    def full(_: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    module._warn_of_shared_memory.cache_clear()
    expected = list(troubled(pairs, "", 0))
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    got = list(troubled(pairs, "", 1))
    assert all(same(a, b) and torch.equal(a["index"], b["index"]) for a, b in zip(expected, got, strict=True))
    assert len(warned) == 1
    assert "is full, so batches come from the workers in a slower way" in warned[0]


def test_only_workers_of_loaders_are_ended_at_exit(pairs: list[Pair]) -> None:
    other = multiprocessing.Process(target=time.sleep, args=(60,))
    other.start()
    loader = troubled(pairs, "")
    assert len(list(loader)) == 4
    mine = [process for process in multiprocessing.active_children() if process in module._workers]
    module._end_workers()
    for process in mine:
        process.join(10)
    assert len(mine) >= 1
    assert [process.is_alive() for process in mine] == [False] * len(mine)
    assert other.is_alive()
    other.kill()
