"""Measure time and memory of a job in a process of its own."""

import gc
import re
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from segtune.errors import UserError

T = TypeVar("T")

#: Builds a model and its optimizer, and returns a function that does one step, and its device.
Job = Callable[[], tuple[Callable[[], object], torch.device]]


@dataclass(frozen=True)
class Measured:
    """The median `seconds` of a step and its peak `memory` in bytes, None where unknown."""

    seconds: float
    memory: int | None


def measure(job: Job, steps: int = 5) -> Measured:
    """Return the time and memory of a step, measured in a fresh process, so that nothing that ran before counts.

    Args:
        job: A picklable function (of a module, or a `partial` of one), called in the new process.
        steps: Steps to time, after two warm-up steps.

    Returns:
        The median time, and the peak memory above that of the process with all libraries loaded, before the job was
        called: resident memory on a CPU (None on Windows), memory allocated by PyTorch on CUDA.

    Raises:
        UserError: The job failed, or the process was killed.
    """
    return in_new_process(partial(_measure_here, job, steps))


def in_new_process(work: Callable[[], T]) -> T:
    """Return what a picklable function returns in a fresh process, with as many threads as here.

    Raises:
        UserError: It failed, or the process was killed.
    """
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(torch.set_num_threads, torch.get_num_threads()).result()
            return pool.submit(work).result()
    except UserError:
        raise
    except BrokenProcessPool as error:
        raise UserError(
            "The step could not be measured: its process was killed, most likely out of memory. "
            "Reduce train.batch_size or data.image_size."
        ) from error
    except Exception as error:
        raise UserError(f"The step could not be measured: {type(error).__name__}: {error}") from error


def _measure_here(job: Job, steps: int) -> Measured:
    _load_libraries()
    _reset_peak()
    before = _peak()
    step, device = job()
    gc.collect()  # frees the uncut network, whose modules refer to each other
    reset_peak(device)
    seconds = seconds_of(step, device, steps)
    memory = peak_of(device)
    if device.type == "cpu" and memory is not None and before is not None:
        memory -= before
    return Measured(seconds, memory)


def reset_peak(device: torch.device) -> None:
    """Begin anew with what `peak_of` measures; resident memory only on Linux."""
    _reset_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_of(device: torch.device) -> int | None:
    """Return the peak since `reset_peak` in bytes: allocated by PyTorch on CUDA, resident on a CPU, elsewhere None."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _peak() if device.type == "cpu" else None


def seconds_of(step: Callable[[], object], device: torch.device, steps: int) -> float:
    """Return the median time of a step, after two warm-up steps."""
    seconds = []
    for _ in range(2 + steps):
        began = time.perf_counter()
        step()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


def _load_libraries() -> None:
    """Do a tiny step: the first one in a process loads libraries, whose memory is not the model's."""
    layer = nn.Conv2d(1, 1, 3)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.zeros(1, 1, 8, 8)).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


def _peak() -> int | None:
    """Return the peak resident memory in bytes since the process began or since `_reset_peak`."""
    with suppress(OSError):
        # Not getrusage: on Linux a new process inherits its parent's peak there.
        if found := re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii")):
            return 1024 * int(found[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _reset_peak() -> None:
    """Reset the peak to the current resident memory; only Linux can, elsewhere the growth of the peak is measured."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
