"""Find an earlier run, and read the settings that it has recorded."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.runtime.paths import expanded


def run_folder(text: str, setting: str = "resume") -> Path:
    """Return the folder of a run, of which the user may also have named the checkpoints or the settings.

    Raises:
        UserError: There is no run, or the file to resume from is a checkpoint other than the last.
    """
    path = expanded(text, setting)
    if os.path.isfile(path):
        if setting == "resume" and path.name not in ("last.pt", "config.yaml"):
            raise UserError(
                f"resume={text}: a run is resumed from its last.pt, by the name of its folder. A new run can begin "
                f"with the weights of {path.name}: restore.checkpoint={text}."
            )
        path = path.parent
    folder = Path(os.path.abspath(path))
    if folder.name == "checkpoints" and not os.path.exists(folder / "config.yaml"):
        folder = folder.parent
    if not os.path.isfile(folder / "config.yaml") and (jobs := sorted(folder.glob("[0-9]*/config.yaml"))):
        if setting != "resume":
            raise UserError(f"{setting}={text} is a sweep. Name one of its runs, such as {jobs[0].parent}.")
        raise UserError(
            f"resume={text}: this sweep has no sweep.json: it is of an earlier version. Give its own command again, "
            f"with -m run_dir={text} resume=auto: what is finished is kept."
        )
    if not os.path.isfile(folder / "config.yaml"):
        raise UserError(
            f"{setting}={text}: no run found (no config.yaml). "
            "Expected the folder of a run, such as runs/2026-01-31_12-00-00_xception_fcn8s."
        )
    return folder


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a run.

    Raises:
        UserError: The file does not contain them.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(settings, dict) or "freeze" not in settings:
        raise UserError(f"{path} does not contain the settings of a run.")
    try:
        parse(Settings, settings)  # from here on it has the groups that it should have
    except UserError as error:
        raise UserError(f"{path} cannot be used. {error}") from error
    return settings


def from_folder_of_run(path: str | None, folder: Path) -> str | None:
    """Return a path that was relative to where the run began, if it is there; else the path as it is."""
    try:
        began = json.loads((folder / "data.json").read_text(encoding="utf-8"))["folder"]
        there = Path(began, os.path.expanduser(path or ""))
        same = os.path.samefile(began, ".")
    except (OSError, ValueError, KeyError, TypeError):  # of an earlier version, moved or damaged
        return path
    return path if not path or same or not there.exists() else str(there)
