"""The time of a whole sweep over the head, with features kept and without."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import Figures, Goal, Job, Part
from benchmarks.steps import common_words, run_segtune


def part(options: argparse.Namespace) -> Part:
    """Return the sweep with the cache, which is empty at its start, and without, with judge 4."""
    what = f"a sweep of {options.jobs} jobs, {options.epochs} epochs each"
    cached, whole = (Job(f"{what}, cache.mode={mode}", sweep, (options, mode)) for mode in ("disk", "off"))
    goal = Goal(
        "sweep with cache, filling included / without", (cached.name, "seconds"), (whole.name, "seconds"), 0.4, False
    )
    return Part([cached, whole], [goal], rounds=1)


def sweep(options: argparse.Namespace, mode: str) -> Figures:
    """Return the seconds of a sweep, from the command to the leaderboard: jobs that differ in rate and seed."""
    place = Path(tempfile.mkdtemp(dir=options.folder))
    rates = ",".join(f"{1e-3 * 0.8**number:.3g}" for number in range(options.jobs // 2))
    words = ["freeze=head_only", f"epochs={options.epochs}", f"lr={rates}", "seed=0,1"]
    words += [f"cache.mode={mode}", f"cache.folder={place / 'features'}", f"run_dir={place / 'runs'}"]
    began = time.perf_counter()
    run_segtune(["train", "-m", *common_words(options, *words)])
    seconds = time.perf_counter() - began
    if len(list((place / "runs").glob("*/summary.json"))) != options.jobs:
        raise RuntimeError(f"expected {options.jobs} finished jobs in {place / 'runs'}")
    return {"seconds": seconds}
