"""A run in MLflow: where `MLFLOW_TRACKING_URI` says or, without a server, in `mlflow.db` of the current folder."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import unquote

from filelock import FileLock
from mlflow import MlflowClient, get_tracking_uri, is_tracking_uri_set
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from segtune.config.parse import flat
from segtune.data.overlays import RGBImage
from segtune.training.tracker import Start, Status

#: The most settings that MLflow takes at once.
_MOST = 100


class MLflow:
    """A run in the experiment `segtune`, or the one that MLflow's environment variables name.

    Settings are its parameters. These never change in MLflow, so a setting that a resume has changed is a tag; other
    tags say where the run's files are. Numbers of steps and epochs are its metrics, those of `summary.json` with
    `summary/` before their name.
    """

    takes_back = False

    def __init__(self, start: Start) -> None:
        """Begin a run, or go on with the one that an earlier process began."""
        given = is_tracking_uri_set()
        uri = get_tracking_uri() if given else start.kept.get("uri", get_tracking_uri())
        with _alone(uri):  # whoever comes first makes the tables
            self.client = MlflowClient(uri)
            run = self._known(start.kept.get("run")) or self.client.create_run(
                self._experiment(), run_name=start.name, tags=start.place
            )
        self.run = run.info.run_id
        # A URI of the user's may hold a password, and says for itself where to go on.
        self.kept: Mapping[str, str] = {"run": self.run} if given else {"run": self.run, "uri": uri}
        self.client.update_run(self.run, status="RUNNING")
        had, now = run.data.params, {_name(name): _text(value) for name, value in flat(start.settings)}
        new = [Param(name, value) for name, value in now.items() if name not in had]
        for first in range(0, len(new), _MOST):
            self.client.log_batch(self.run, params=new[first : first + _MOST])
        changed = [RunTag(name, value) for name, value in now.items() if had.get(name, value) != value]
        self.client.log_batch(self.run, tags=changed)

    def _known(self, run: str | None) -> Run | None:
        try:
            known = self.client.get_run(run) if run else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # of another store
                raise
            return None
        return known if known and known.info.lifecycle_stage == "active" else None  # else deleted

    def _experiment(self) -> str:
        if known := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "segtune")
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name))
            except MlflowException:  # another process may have been faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of an optimizer step."""
        now = int(time.time() * 1000)
        metrics = [Metric(_name(name), value, now, step) for name, value in values.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def epoch(self, epoch: int, step: int, values: Mapping[str, float], images: Mapping[str, RGBImage]) -> None:
        """Log the values of an epoch, with its number in the place of the step."""
        self.step(epoch, values)

    def end(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Log the summary and the status."""
        known = {f"summary/{name}": value for name, value in flat(summary) if value is not None}
        numbers = {name: value for name, value in known.items() if isinstance(value, int | float)}
        if known:
            self.step(0, numbers)
            texts = [RunTag(_name(name), _text(value)) for name, value in known.items() if name not in numbers]
            self.client.log_batch(self.run, tags=texts)
        self.client.set_terminated(self.run, status=status.upper())


def _alone(uri: str) -> AbstractContextManager[Any]:
    """Return a lock for a local database: of several runs that begin at once, each would make its tables."""
    if not uri.startswith("sqlite:///"):
        return nullcontext()
    return FileLock(f"{unquote(uri.removeprefix('sqlite:///'))}.lock", timeout=300)


def _name(name: str) -> str:
    """Return a name without characters that MLflow refuses, which those of tensors in `restore.rename` may have."""
    return "".join(each if each.isalnum() or each in "_-. /" else "_" for each in name)


def _text(value: Any) -> str:
    """Return a value as on the command line."""
    return value if isinstance(value, str) else json.dumps(value)
