"""The interface of trackers: where a run's settings and numbers go beside the files in its folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from segtune.data.overlays import RGBImage

#: How a run has ended; it is killed if somebody, or a search, has stopped it.
Status = Literal["finished", "failed", "killed"]


@dataclass(frozen=True)
class Start:
    """What a tracker begins with.

    Attributes:
        folder: The run's folder.
        settings: The run's settings, nested.
        layers: Returns the layers of its model, as text.
        epochs: Its epochs so far.
        steps: Its optimizer steps so far.
        kept: What the tracker of an earlier process of this run had in `kept`; empty if there was none.
    """

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    layers: Callable[[], str] = str
    epochs: int = 0
    steps: int = 0
    kept: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name: that of its folder, of a job of a sweep with that of the sweep's."""
        return "/".join(self.place[each] for each in ("sweep", "job") if each in self.place) or self.folder.name

    @property
    def place(self) -> dict[str, str]:
        """Where the run and its results are, by name; `sweep` and `job` are the names of two folders."""
        folder = self.folder.absolute()
        found = {"folder": folder, "checkpoint": folder / "checkpoints" / "best.pt", "report": folder / "report.html"}
        is_job = any((folder.parent / name).is_file() for name in ("sweep.json", "multirun.yaml"))
        job = {"sweep": folder.parent.name, "job": folder.name} if is_job else {}
        return {name: str(path) for name, path in found.items()} | job


class Tracker(Protocol):
    """Takes the numbers of a run; what it raises is caught by `Tracking`.

    Attributes:
        takes_back: Whether it has, when it begins, taken back what earlier processes told it beyond `Start.epochs` and
            `Start.steps`. Others are told nothing twice.
        kept: What it needs to go on with the same run in another process; saved in the run's folder.
    """

    takes_back: bool
    kept: Mapping[str, str]

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of an optimizer step, counted from 1 over the whole run."""

    def epoch(self, epoch: int, step: int, values: Mapping[str, float], images: Mapping[str, RGBImage]) -> None:
        """Take the values and the sample images of an epoch, counted from 1, which has ended with a step."""

    def end(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Take what is in `summary.json`, of a run that is finished, and let go of files and connections."""
