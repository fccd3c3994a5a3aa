"""Resume a run from the command line, with its own settings and the few changes allowed."""

import shlex
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from segtune.cli.quoting import check_texts, for_hydra
from segtune.cli.recorded import from_folder_of_run, read_settings, run_folder
from segtune.cli.tasks import find_data
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.runtime.sweep_files import remove_failure
from segtune.training.resume_rules import check_cache_mode, check_change


def resume(arguments: list[str]) -> None:
    """Resume a run with its own settings, and those changes from the command line that are allowed."""
    if flags := [argument for argument in arguments if argument.startswith("-")]:
        raise UserError(f"resume takes no flags; got {' '.join(flags)}.")
    overrides = OverridesParser.create().parse_overrides([for_hydra(each, Settings) for each in arguments])
    given = {override.key_or_group: override for override in overrides}
    check_texts({name: override.value() for name, override in given.items()}, Settings)
    folder = run_folder(str(given.pop("resume").value()))
    settings = read_settings(folder / "config.yaml")
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
    for name in {"root", "groups", "pairs"} - {name.removeprefix("data.") for name in given}:
        data[name] = from_folder_of_run(data.get(name), folder)
    line = shlex.join(["python", "-m", "segtune", "train", *arguments]) if given else ""
    resumed = parse(Settings, settings | {"resume": str(folder)})
    find_data(resumed.data)
    from segtune.commands.train import train

    train(resumed, folder, line)
    remove_failure(folder)  # of a job of a sweep


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
