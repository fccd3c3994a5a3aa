"""Time and memory of jobs that are known: slept, allocated, failed, killed."""

import importlib
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from segtune.errors import UserError
from segtune.runtime.measure import Measured, measure, peak_of, reset_peak

# Jobs for other processes, which find them by the name of this file.


def sleeper(megabytes: int, seconds: float) -> tuple[Callable[[], object], torch.device]:
    def step() -> None:
        torch.ones(megabytes * 10**6, dtype=torch.uint8)
        time.sleep(seconds)

    return step, torch.device("cpu")


def failing() -> tuple[Callable[[], object], torch.device]:
    raise ValueError(f"no such thing with {torch.get_num_threads()} threads")


def killed() -> tuple[Callable[[], object], torch.device]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module(Path(__file__).stem)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the peak begin anew")
def test_the_peak_of_this_process_begins_anew() -> None:
    cpu, size = torch.device("cpu"), 100_000_000

    def growth(memory: int) -> int:
        reset_peak(cpu)
        before = peak_of(cpu)
        with mmap.mmap(-1, memory) as held:
            held.write(b"x" * memory)
        after = peak_of(cpu)
        assert before is not None
        assert after is not None
        return after - before

    assert growth(size) >= size
    assert growth(1000) < size / 2  # what was held before has gone
    assert peak_of(torch.device("meta")) is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the memory of a process")
def test_a_step_is_measured_without_what_its_parent_holds(jobs: ModuleType) -> None:
    held = bytearray(b"x" * 500_000_000)
    measured = measure(partial(jobs.sleeper, 200, 0.1), steps=3)
    del held
    assert isinstance(measured, Measured)
    assert measured.memory == pytest.approx(200e6, rel=0.1)
    assert 0.1 <= measured.seconds < 1.0


@pytest.mark.slow
def test_a_job_that_fails_says_why_and_runs_with_as_many_threads_as_here(jobs: ModuleType) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(UserError) as caught:
            measure(jobs.failing)
    finally:
        torch.set_num_threads(threads)
    assert str(caught.value) == "The step could not be measured: ValueError: no such thing with 3 threads"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_job_that_is_killed_says_what_helps(jobs: ModuleType) -> None:
    with pytest.raises(UserError) as caught:
        measure(jobs.killed)
    assert str(caught.value) == (
        "The step could not be measured: its process was killed, most likely out of memory. "
        "Reduce train.batch_size or data.image_size."
    )
