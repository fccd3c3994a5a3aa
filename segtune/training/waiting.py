"""How long training waits for its data, and what to do about it."""

import logging

from segtune.config.types import Workers
from segtune.runtime.cores import usable_cores
from segtune.runtime.distributed import local_world

log = logging.getLogger(__name__)

#: A warning comes after so many seconds of waiting, if they are this share of the time.
_LONG, _MUCH = 10.0, 0.2


class Waiting:
    """Counts the time that a run's steps wait for their batches; warns once if it is long."""

    def __init__(self, setting: Workers, workers: int) -> None:
        """Create a count for a run with so many `workers`; `setting` is its `train.workers`."""
        self.setting, self.workers = setting, workers
        self.waited = self.seconds = 0.0
        self.warned = False

    def add(self, waited: float, seconds: float) -> None:
        """Count batches, but for the first one of an epoch, which is always waited for.

        Args:
            waited: The seconds that they were waited for.
            seconds: Those that they took in all.
        """
        self.waited += waited
        self.seconds += seconds
        if not self.warned and self.waited >= _LONG and self.waited >= _MUCH * self.seconds:
            self.warned = True
            log.warning(
                "Training waits for its data in %.0f %% of the time: %s.",
                100 * self.waited / self.seconds,
                self._advice(),
            )

    def _advice(self) -> str:
        cores = max(1, usable_cores() // local_world())
        if self.workers < cores:
            return f"more worker processes may help (train.workers={cores}, one for each core; now {self.setting})"
        return (
            f"more worker processes will not help (train.workers={self.setting}: {self.workers} on {cores} "
            f"core{'' if cores == 1 else 's'}), but smaller photos or a lighter augmentation will"
        )
