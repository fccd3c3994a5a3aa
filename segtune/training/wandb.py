"""A run in Weights & Biases: offline, in the run's own folder, unless `WANDB_MODE` says otherwise."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wandb import Settings, init

from segtune.config.parse import flat
from segtune.data.overlays import RGBImage
from segtune.runtime.console import say, shown
from segtune.training.tracker import Start, Status

#: Exit codes; 255 is what W&B itself reports after Ctrl-C.
_CODES: Mapping[Status, int] = {"finished": 0, "failed": 1, "killed": 255}


class WandB:
    """A run in the project `segtune`, or `WANDB_PROJECT`; the jobs of a sweep are a group.

    Settings are its `config`, which also says where the run's files are. Everything stands at an optimizer step,
    epochs at their last one.
    """

    takes_back = False

    def __init__(self, start: Start) -> None:
        """Begin a run, or go on with the one that an earlier process began."""
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        known = start.kept.get("id")
        self.run = init(
            project=os.environ.get("WANDB_PROJECT", "segtune"),
            id=known,
            resume="allow" if known and mode == "online" else None,
            name=start.name,
            group=start.place.get("sweep"),
            config={**start.settings, "place": start.place},
            allow_val_change=True,
            mode=mode,
            dir=os.environ.get("WANDB_DIR", str(start.folder)),
            reinit="create_new",
            settings=Settings(console="off", silent=True),
        )
        self.kept: Mapping[str, str] = {"id": self.run.id}
        if mode == "offline":
            where = shown(Path(self.run.settings.sync_dir))
            say(f"Weights & Biases: offline. To send the run, when it has ended: wandb sync {where}")

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of an optimizer step."""
        self.run.log({**values}, step=step)

    def epoch(self, epoch: int, step: int, values: Mapping[str, float], images: Mapping[str, RGBImage]) -> None:
        """Log the values of an epoch at the step with which it has ended."""
        self.run.log({"epoch": epoch, **values}, step=step)

    def end(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Log the summary and the exit code."""
        self.run.summary.update({f"summary/{name}": value for name, value in flat(summary)})
        self.run.finish(exit_code=_CODES[status])
