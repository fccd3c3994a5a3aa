"""The processor cores that this process may use, and how many worker processes `train.workers=auto` makes of them."""

import math
import os
from pathlib import Path

import torch

from segtune.config.types import Workers
from segtune.runtime.distributed import local_world

#: Workers of `auto` at most: on an H200 with 16 cores, 16 kept up with training.
_MOST = 16
#: The quota of a container's cores: microseconds of processor time in each period, or `max`.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Return the number of cores that this process may use: by its affinity, and by the quota of its container.

    Where several jobs of a sweep run at once, SEGTUNE_CORES is the share of each.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (share := os.environ.get("SEGTUNE_CORES", "")).isdecimal():
        cores = max(1, min(cores, int(share)))
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no quota, or another system
        return cores


def worker_count(workers: Workers, device: torch.device | None = None) -> int:
    """Return the number of worker processes or threads that `train.workers` means here.

    `auto` divides the cores among the run's processes on this machine, at least one for each.

    Args:
        workers: The setting.
        device: What computes meanwhile; None: nothing, and the run's other processes wait.
    """
    if workers != "auto":
        return int(workers)
    if device is None:
        return min(_MOST, usable_cores())
    mine = usable_cores() // local_world()
    return min(_MOST, max(1, mine // 2 if device.type == "cpu" else mine))
