"""The time from the command to the first optimizer step, and to the help."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import Figures, Goal, Job, Part
from benchmarks.steps import common_words

#: Says when the first optimizer step is made, and ends there.
_FIRST_STEP = """
import os, sys, time
from segtune.training import epoch
take_step = epoch.take_step
def first(*arguments):
    take_step(*arguments)
    print(f"first step at {time.time()!r}", flush=True)
    os._exit(0)
epoch.take_step = first
from segtune.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
#: The libraries that a run imports; what it imports later, when it needs it, counts as its own time.
_IMPORTS = "import segtune.cli.main, segtune.commands.train"


def part(options: argparse.Namespace) -> Part:
    """Return the starts of runs whose data have been checked, and of the help, with judge 8."""
    starts = [Job(f"first step, {freeze}", first_step, (options, freeze)) for freeze in ("none", "head_only")]
    kept = ("head_only", options.folder / "kept")
    starts.append(Job("first step, head_only, features kept by an earlier run", first_step, (options, *kept)))
    usage = Job("python -m segtune --help", show_help, (options,))
    goals = [Goal(f"{job.name}, without imports: seconds", (job.name, "seconds"), None, 5, False) for job in starts]
    goals.append(Goal(f"{usage.name}: seconds", (usage.name, "seconds"), None, 0.1, False))
    before = [Job("check the data, and keep features", first_step, (options, *kept))]
    return Part([*starts, usage], goals, before)


def first_step(options: argparse.Namespace, freeze: str, features: Path | None = None) -> Figures:
    """Return the seconds from the command to the end of the first step, less those to import the libraries.

    Features are kept in the folder `features`; without one the cache is empty, and those of the first epoch are
    computed before the step.
    """
    place = Path(tempfile.mkdtemp(dir=options.folder))
    words = (
        f"freeze={freeze}",
        "cache.mode=auto",
        f"cache.folder={features or place / 'features'}",
        f"run_dir={place / 'run'}",
    )
    command = ["train", *common_words(options, *words)]
    imports = _seconds([sys.executable, "-c", _IMPORTS])
    began = time.time()
    done = subprocess.run([sys.executable, "-c", _FIRST_STEP, *command], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("first step at ")]
    if not lines:
        raise RuntimeError(f"no step was made:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    whole = float(lines[0].removeprefix("first step at ")) - began
    return {"seconds": whole - imports, "with_imports": whole, "imports": imports}


def show_help(options: argparse.Namespace) -> Figures:
    """Return the median seconds of `python -m segtune --help`."""
    import statistics

    return {"seconds": statistics.median(_seconds([sys.executable, "-m", "segtune", "--help"]) for _ in range(9))}


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began
