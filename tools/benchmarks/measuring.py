"""What all parts share: a fresh process for each measurement, rounds in turn, medians, goals, and the machine."""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

#: The figures of one measurement, by name; `images_per_second` or `seconds` is the one that is shown first.
Figures = dict[str, float]

T = TypeVar("T")

#: Of the processor's flags, those that decide which precisions are fast.
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "asimd", "bf16")
_LIBRARIES = ("torch", "timm", "segmentation-models-pytorch", "lightning", "fastai", "albumentations", "numpy")


class MissingError(Exception):
    """A library to compare with is not installed, or data are not there."""


@dataclass(frozen=True)
class Job:
    """Something to measure: `function(*arguments)` in a process of its own, with nothing else beside it."""

    name: str
    function: Callable[..., Figures]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Goal:
    """A bound on a figure of a job, divided by a figure of another one if there is an `under`."""

    text: str
    over: tuple[str, str]
    under: tuple[str, str] | None
    bound: float
    at_least: bool

    def value(self, measured: Mapping[str, Sequence[Figures]]) -> float | None:
        """Return the median over the rounds; None if a part of it was not measured."""
        pairs = [measured.get(name, []) for name, _ in (self.over, self.under or self.over)]
        ratios = []
        for above, below in zip(*pairs, strict=False):
            ratios.append(above[self.over[1]] / (below[self.under[1]] if self.under else 1.0))
        return statistics.median(ratios) if ratios else None

    def met(self, value: float) -> bool:
        """Return whether a value keeps the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class Part:
    """Jobs that take turns, the goals for their figures, and what runs once `before` them without counting."""

    jobs: Sequence[Job]
    goals: Sequence[Goal] = ()
    before: Sequence[Job] = ()
    rounds: int = 3


@dataclass
class Results:
    """The figures of each job, round by round, and why others are `missing`: no library, or they have `failed`.

    All run in one process, `pool`, if there is one, to save time where figures do not matter.
    """

    pool: ProcessPoolExecutor | None = None
    measured: dict[str, list[Figures]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def run(self, part: Part, rounds: int | None) -> None:
        """Measure the jobs of a part in turn; those that another part has measured too get more rounds."""
        for job in part.before:
            print(f"  once before: {job.name}", flush=True)
            if self._measure(job) is None:
                return
        for number in range(1, (rounds or part.rounds) + 1):
            for job in [job for job in part.jobs if job.name not in self.missing]:
                if figures := self._measure(job):
                    self.measured.setdefault(job.name, []).append(figures)
                    text = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
                    print(f"  round {number}, {job.name}: {text}", flush=True)

    def _measure(self, job: Job) -> Figures | None:
        """Return the figures of a job; None if it cannot be measured, which is noted and said."""
        try:
            return alone(job, self.pool)
        except MissingError as error:
            self.missing[job.name] = str(error)
        except RuntimeError as error:  # hours of other measurements are not lost
            self.missing[job.name] = f"failed: {str(error).splitlines()[0]}".replace(f"{job.name}: ", "")
            self.failed.append(job.name)
            print(error, file=sys.stderr, flush=True)
        print(f"  {job.name}: left out, {self.missing[job.name]}", flush=True)
        return None

    def medians(self) -> dict[str, Figures]:
        """Return the median of each figure of each job."""
        return {
            name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
            for name, rounds in self.measured.items()
        }


def new_process() -> ProcessPoolExecutor:
    """Return a pool of one process, which imports what it needs itself."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def in_process(function: Callable[..., T], *arguments: Any, pool: ProcessPoolExecutor | None = None) -> T:
    """Return what a function of a module returns in a new process, or in that of the pool."""
    with nullcontext(pool) if pool else new_process() as chosen:
        return chosen.submit(function, *arguments).result()


def alone(job: Job, pool: ProcessPoolExecutor | None = None) -> Figures:
    """Return what a job measures in a new process, and the most memory that it or a process it started took.

    With a `pool` it is measured there.

    Raises:
        MissingError: A library is not installed.
        RuntimeError: The job failed; what it has printed is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        try:
            return in_process(_measured, job, log, pool=pool)
        except MissingError:
            raise
        except Exception as error:
            printed = log.read_text("utf-8", errors="replace")[-3000:] if log.exists() else ""
            raise RuntimeError(f"{job.name}: {type(error).__name__}: {error}\n{printed}") from error


def _measured(job: Job, log: Path) -> Figures:
    with log.open("wb") as file:  # also of processes that the job starts
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    multiprocessing.set_start_method(None, force=True)  # else worker processes would start as this one did
    figures = job.function(*job.arguments)
    return figures | {"peak_memory_gb": _peak()}


def _peak() -> float:
    """Return the most resident memory of this process, or of one that it has started and waited for, in GB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    own, children = (resource.getrusage(of).ru_maxrss for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    with suppress(OSError):  # on Linux a new process inherits its parent's peak in `getrusage`
        if found := re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("ascii")):
            own = int(found[1])
    return max(own, children) * unit / 1e9


def machine(precision: str) -> dict[str, Any]:
    """Return a description of the machine, of the versions, and of the precision that training takes."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from segtune.config.training_settings import TrainSettings
    from segtune.runtime.cores import usable_cores
    from segtune.runtime.device import resolve_device
    from segtune.version import __version__

    info = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", info)
    flags = re.search(r"(?:flags|Features)\s*: (.*)", info)
    versions = {"segtune": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[library] = version(library)
    return {
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "flags": [flag for flag in _FLAGS if flags and flag in flags[1].split()],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "precision": resolve_device(TrainSettings(device="cpu", precision=precision)).precision,  # type: ignore[arg-type]
        "system": platform.platform(),
        "versions": versions,
    }
