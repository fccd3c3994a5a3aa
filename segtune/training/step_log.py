"""The log of optimizer steps: lines in a log file, and what trackers are told."""

import time
from collections.abc import Mapping

from segtune.config.training_settings import TrainSettings
from segtune.runtime.console import say_without_bar
from segtune.training.tracking import Tracking


class StepLog:
    """Logs every `train.log_every`-th optimizer step of a run, and the first one `train.log_seconds` after the last.

    Loss, images/s and the share of the time in which the batches were waited for are of the steps since then, or since
    the run began or was resumed; validation does not count.
    """

    def __init__(self, settings: TrainSettings, tracking: Tracking) -> None:
        self.settings = settings
        self.tracking = tracking
        self._restart()

    def _restart(self) -> None:
        self.loss_sum, self.images, self.seconds, self.waited = 0.0, 0, 0.0, 0.0
        self.since = time.monotonic()

    def add(self, loss_sum: float, images: int) -> None:
        """Count a batch: the sum of its images' losses, and their number."""
        self.loss_sum += loss_sum
        self.images += images

    def add_time(self, seconds: float, waited: float) -> None:
        """Count the seconds that the batches have taken, and those of them that they were waited for."""
        self.seconds += seconds
        self.waited += waited

    def is_due(self, step: int) -> bool:
        """Return whether to log a step, counted from 1 over the whole run."""
        every, seconds = self.settings.log_every, self.settings.log_seconds
        by_time = seconds is not None and time.monotonic() - self.since >= seconds
        return by_time or (every > 0 and step % every == 0)

    def write(self, place: str, step: int, facts: Mapping[str, float]) -> None:
        """Log a step.

        Args:
            place: Where in the run it is, in words.
            step: Its number.
            facts: `lr_min` and `lr_max` over the parameter groups, `gradient_norm` before clipping, and in fp16
                `loss_scale`.
        """
        loss, rate = self.loss_sum / self.images, self.images / max(self.seconds, 1e-9)
        waiting = self.waited / max(self.seconds, 1e-9)
        low, high = f"{facts['lr_min']:.3g}", f"{facts['lr_max']:.3g}"
        lr = high if low == high else f"{low} to {high}"
        scale = f"  loss scale {facts['loss_scale']:g}" if "loss_scale" in facts else ""
        speed = f"{rate:.1f} images/s  waiting {waiting:.0%}"
        say_without_bar(
            f"{place}  loss {loss:.4f}  lr {lr}  {speed}  gradient norm {facts['gradient_norm']:.3g}{scale}"
        )
        values = {"loss": loss, "images_per_second": rate, "waiting": waiting, "wait_seconds": self.waited, **facts}
        self.tracking.step(step, {f"train/{name}": value for name, value in values.items()})
        self._restart()
