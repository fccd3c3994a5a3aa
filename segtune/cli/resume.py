"""Resume a run from the command line, with its own settings and the few changes allowed."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from segtune.cli.quoting import check_texts, for_hydra
from segtune.cli.tasks import find_data
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.runtime.paths import expanded
from segtune.training.resume_rules import check_cache_mode, check_change


def resume(arguments: list[str]) -> None:
    """Resume a run with its own settings, and those changes from the command line that are allowed."""
    if flags := [argument for argument in arguments if argument.startswith("-")]:
        raise UserError(f"resume takes no flags; got {' '.join(flags)}.")
    overrides = OverridesParser.create().parse_overrides([for_hydra(each, Settings) for each in arguments])
    given = {override.key_or_group: override for override in overrides}
    check_texts({name: override.value() for name, override in given.items()}, Settings)
    folder = _run_folder(str(given.pop("resume").value()))
    settings = _read(folder / "config.yaml")
    if "epochs" in given:
        phases = list(settings["freeze"]["phases"])
        if len(phases) > 1:
            names = " or ".join(f"freeze.phases.{phase}.epochs" for phase in phases)
            raise UserError(
                f"epochs: this run has {len(phases)} phases, and those that are finished cannot change. Set {names}."
            )
        given["epochs"].key_or_group = f"freeze.phases.{phases[0]}.epochs"
    for override in given.values():
        _change(settings, override)
    data = settings["data"]
    if "data.root" in given:
        data["name"] = "folder"  # nothing is drawn there
    for name in {"root", "groups"} - {name.removeprefix("data.") for name in given}:
        data[name] = _from_folder_of_run(data.get(name), folder)
    line = shlex.join(["python", "-m", "segtune", "train", *arguments]) if given else ""
    resumed = parse(Settings, settings | {"resume": str(folder)})
    find_data(resumed.data)
    from segtune.commands.train import train

    train(resumed, folder, line)


def _run_folder(text: str) -> Path:
    """Return the folder of a run, of which the user may also have named the checkpoints or the settings.

    Raises:
        UserError: There is no run, or the file is a checkpoint other than the last.
    """
    path = expanded(text, "resume")
    if os.path.isfile(path):
        if path.name not in ("last.pt", "config.yaml"):
            raise UserError(
                f"resume={text}: a run is resumed from its last.pt, by the name of its folder. A new run can begin "
                f"with the weights of {path.name}: restore.checkpoint={text}."
            )
        path = path.parent
    folder = Path(os.path.abspath(path))
    if folder.name == "checkpoints" and not os.path.exists(folder / "config.yaml"):
        folder = folder.parent
    if not os.path.isfile(folder / "config.yaml") and any(folder.glob("[0-9]*/config.yaml")):
        raise UserError(
            f"resume={text}: this sweep has no sweep.json: it is of an earlier version. Give its own command again, "
            f"with -m run_dir={text} resume=auto: what is finished is kept."
        )
    if not os.path.isfile(folder / "config.yaml"):
        raise UserError(
            f"resume={text}: no run found (no config.yaml). "
            "Expected the folder of a run, such as runs/2026-01-31_12-00-00_xception_fcn8s."
        )
    return folder


def _read(path: Path) -> dict[str, Any]:
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


def _from_folder_of_run(path: str | None, folder: Path) -> str | None:
    """Return a path that was relative to where the run began, if it is there; else the path as it is."""
    try:
        began = json.loads((folder / "data.json").read_text(encoding="utf-8"))["folder"]
        there = Path(began, os.path.expanduser(path or ""))
        same = os.path.samefile(began, ".")
    except (OSError, ValueError, KeyError, TypeError):  # of an earlier version, moved or damaged
        return path
    return path if not path or same or not there.exists() else str(there)


def _change(settings: dict[str, Any], override: Override) -> None:
    """Apply an override to a run's settings, if that setting may change."""
    name = override.key_or_group
    if name in ("train.batch_size", "batch_size") and override.value() == "auto":
        return  # the number that it has found for the run
    *groups, key = name.split(".")
    changes = not override.is_add() and not override.is_delete()
    adds = override.is_add() or override.is_force_add()
    check_change(str(override.input_line), name, settings["freeze"]["phases"], changes=changes, adds=adds)
    place = settings
    for group in groups:
        place = place.setdefault(group, {})  # an earlier version may not have had it
    if name == "cache.mode":
        check_cache_mode(place.get(key, "off"), str(override.value()))
    place[key] = override.value()
