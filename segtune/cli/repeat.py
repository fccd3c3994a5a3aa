"""Repeat a run: its settings become a choice of every group, so that overrides and sweeps change them as any other."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from segtune.cli.help import command_groups, config_folder
from segtune.cli.recorded import from_folder_of_run, read_settings, run_folder
from segtune.config.data_settings import LAYOUT
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError

#: The choice that holds the settings of the run that is repeated.
CHOICE = "_repeated"
#: Settings of data that are paths.
_OF_DATA = (("data", "root"), ("data", "groups"), ("data", "pairs"))
#: Settings that say where a run is, not what it trains.
_OF_PLACE = ("run_dir", "resume", "repeat")


def with_repeated_run(overrides: Sequence[str]) -> list[str]:
    """Return overrides; if `repeat` is one of them, with the run's choice of each group that they do not choose.

    The settings that belong to no group stand in the place of an experiment. Of several runs, in a sweep over `repeat`,
    the first one counts: each job composes its own.

    Raises:
        UserError: There is no such run, or an experiment is chosen too.
    """
    parser = OverridesParser.create()
    if not any(each.startswith("repeat=") for each in overrides):
        return list(overrides)
    given = {override.key_or_group: override for override in parser.parse_overrides(list(overrides))}
    run = given["repeat"]
    if run.is_sweep_override():
        run = parser.parse_override(f"repeat={next(run.sweep_string_iterator())}")
    if run.value() is None:
        return list(overrides)
    if "experiment" in given and given["experiment"].value() != CHOICE:
        raise UserError(f"{given['experiment'].input_line} sets what repeat sets too. Leave one of them out.")
    settings = _settings_of(str(run.value()), moved="data.root" in given)
    groups = [group for group in command_groups("train") if group in settings]  # others only choose settings
    store = ConfigStore.instance()
    for group in groups:
        store.store(name=CHOICE, node=settings[group], group=group)
    others = {name: value for name, value in settings.items() if name not in (*groups, *_OF_PLACE)}
    store.store(name=CHOICE, node=others, group="experiment", package="_global_")
    choices = {group: CHOICE for group in (*groups, "experiment")}
    if given.keys() & {"backbone", "decoder"}:  # then the taps follow, as they do without repeat
        names = {name: f"${{{name}}}" if name in given else _file(name, settings) for name in ("backbone", "decoder")}
        choices["taps"] = f"{names['backbone']}_{names['decoder']}"
    return [*overrides, *(f"{group}={choice}" for group, choice in choices.items() if group not in given)]


def is_chosen(override: str) -> bool:
    """Return whether an override is one that `with_repeated_run` has added, and would add again."""
    return override.endswith(f"={CHOICE}")


def _settings_of(text: str, *, moved: bool) -> dict[str, Any]:
    """Return the settings of a run; paths that were relative to where it began are found from here.

    With `moved` its data are read from elsewhere, and nothing is drawn there.
    """
    folder = run_folder(text, "repeat")
    settings = asdict(parse(Settings, read_settings(folder / "config.yaml")))
    for group, name in (*_OF_DATA, ("backbone", "weights"), ("restore", "checkpoint")):
        if settings[group][name] not in ("auto", "imagenet", "none"):  # of weights; these are no files
            settings[group][name] = from_folder_of_run(settings[group][name], folder)
    if moved:
        settings["data"] |= {"name": "folder", **dict.fromkeys(LAYOUT)}
    return settings


def _file(group: str, settings: dict[str, Any]) -> str:
    """Return the choice of a group that a run has made: the name of its network, or `timm` for any other."""
    name = str(settings[group]["name"])
    return name if (config_folder() / group / f"{name}.yaml").is_file() else "timm"
