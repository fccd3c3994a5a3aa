"""All trackers of a run: TensorBoard, and those that `train.trackers` names."""

import json
import logging
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from segtune.data.overlays import RGBImage
from segtune.errors import UserError
from segtune.runtime.files import write_json
from segtune.training.tensorboard import TensorBoard
from segtune.training.tracker import Start, Status, Tracker

log = logging.getLogger(__name__)

TITLES = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "Weights & Biases"}


def _class_of(name: str) -> Callable[[Start], Tracker]:
    """Return the class of a tracker; what it needs is imported here, and stays silent on the network by default."""
    if name == "mlflow":
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # no lines on how it makes its database
        from segtune.training.mlflow import MLflow

        return MLflow
    if name == "wandb":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        from segtune.training.wandb import WandB

        return WandB
    return TensorBoard


def check_trackers(names: Sequence[str]) -> None:
    """Check that what trackers need is installed.

    Raises:
        UserError: It is not.
    """
    for name in names:
        try:
            _class_of(name)
        except ImportError as error:
            raise UserError(
                f"train.trackers={name}: {TITLES[name]} cannot be imported ({error}). Install it with: "
                f"pip install 'segtune[{name}]', or leave it out."
            ) from error


class Tracking:
    """Tells all trackers of a run. One that fails is left out from then on, with a warning: none ends a run.

    `tracking.json` in the run's folder holds what each needs to go on, and the epoch and the step up to which it was
    told, so that a resumed run tells nothing twice.
    """

    def __init__(self, start: Start, names: Sequence[str] = ()) -> None:
        """Begin, or go on with, `tensorboard` and the trackers of some names."""
        self.path = start.folder / "tracking.json"
        self.saved = _read(self.path)
        self.trackers: dict[str, Tracker] = {}
        for name in dict.fromkeys(("tensorboard", *names)):
            with self._left_out_on_error(name):
                tracker = _class_of(name)(replace(start, kept=self.saved.get(name, {}).get("kept", {})))
                self.trackers[name] = tracker
                if not tracker.takes_back:
                    self._save(name)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Tell the values of an optimizer step, counted from 1 over the whole run."""
        for name, tracker in self._behind("step", step):
            with self._left_out_on_error(name):
                tracker.step(step, values)
                self._told(name, "step", step)

    def epoch(self, epoch: int, step: int, values: Mapping[str, float], images: Mapping[str, RGBImage]) -> None:
        """Tell the values and the sample images of an epoch, counted from 1, which has ended with a step."""
        for name, tracker in self._behind("epoch", epoch):
            with self._left_out_on_error(name):
                tracker.epoch(epoch, step, values, images)
                self._told(name, "epoch", epoch)

    def end(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Tell how the run has ended."""
        for name, tracker in list(self.trackers.items()):
            with self._left_out_on_error(name):
                tracker.end(status, summary)

    def _behind(self, axis: Literal["epoch", "step"], at: int) -> list[tuple[str, Tracker]]:
        """Return the trackers that have not been told of an epoch or a step."""
        saved = self.saved
        return [each for each in self.trackers.items() if each[1].takes_back or at > saved[each[0]][axis]]

    def _told(self, name: str, axis: Literal["epoch", "step"], at: int) -> None:
        if not self.trackers[name].takes_back:
            self._save(name, **{axis: at})

    def _save(self, name: str, **told: int) -> None:
        self.saved[name] = {"epoch": 0, "step": 0, **self.saved.get(name, {}), "kept": {**self.trackers[name].kept}}
        self.saved[name] |= told
        write_json(self.path, self.saved)

    @contextmanager
    def _left_out_on_error(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of the disk, the network or a library; training does not depend on them
            self.trackers.pop(name, None)
            why = textwrap.shorten(str(error) or type(error).__name__, 300)
            log.warning("%s cannot be written (%s); metrics.csv is still written.", TITLES[name], why)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return what is saved of each tracker; empty if that is not there or damaged, and then they begin anew."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {
                "epoch": int(each["epoch"]),
                "step": int(each["step"]),
                "kept": {str(key): str(value) for key, value in each["kept"].items()},
            }
            for name, each in saved.items()
        }
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return {}
