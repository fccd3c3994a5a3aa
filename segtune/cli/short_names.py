"""Short names of settings on the command line: epochs, lr, batch_size, image_size, tile, overlap."""

from collections.abc import Collection, Iterable, Mapping, MutableMapping
from typing import Any

from pydantic.dataclasses import dataclass

from segtune.cli.help import command_groups
from segtune.config.parse import parse
from segtune.config.training_settings import OF_ONE_SCHEDULE, OPTIMIZER_DEFAULTS, SCHEDULE_DEFAULTS
from segtune.config.types import STRICT, Count, Positive
from segtune.errors import UserError
from segtune.runtime.paths import notice

#: Short name to setting.
SHORT = {
    "batch_size": "train.batch_size",
    "image_size": "data.image_size",
    "tile": "data.eval_tile",
    "overlap": "data.eval_overlap",
}

#: Those that `predict` has itself.
_OF_PREDICT = ("image_size", "tile", "overlap")

#: Short names of what every phase has.
OF_PHASES = ("epochs", "lr")


@dataclass(frozen=True, config=STRICT)
class _OfPhases:
    epochs: Count | None = None
    lr: Positive | None = None


def long_name(override: str, command: str, given: Collection[str]) -> str:
    """Return an override of a short name as one of the setting that it means; any other as it is.

    Args:
        override: The override.
        command: The command.
        given: Names of all overrides.

    Raises:
        UserError: The command has no such setting, or it is given by both of its names.
    """
    name, equals, value = override.partition("=")
    plain, groups = name.lstrip("+"), command_groups(command)
    if plain in OF_PHASES:
        if "freeze" not in groups:
            raise UserError(f"{plain} is a setting of training; {command} has none of this name. Leave it out.")
        return f"++{plain}{equals}{value}"  # it is applied to the phases when these are composed
    if plain not in SHORT or (command == "predict" and plain in _OF_PREDICT):
        return override
    long = SHORT[plain]
    if command == "predict":
        raise UserError(f"predict has no {plain}: it predicts one image after the other. Leave it out.")
    if long.partition(".")[0] not in groups:
        raise UserError(f"{command} has no {plain}. Leave it out.")
    if long in given:
        raise UserError(f"{plain} and {long} are the same setting: give one of them.")
    return f"{long}{equals}{value}"


def apply_to_phases(settings: MutableMapping[str, Any], overrides: Iterable[str]) -> None:
    """Apply `epochs` and `lr`, if they are given, to every phase, and say it; what a phase is given itself stays.

    Args:
        settings: The composed settings, in which these two are changed to those of the phases.
        overrides: The overrides of the command line.

    Raises:
        UserError: A value is invalid.
    """
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    values = {name: settings.pop(name) for name in OF_PHASES if name in given and name in settings}
    parse(_OfPhases, values)
    for name, value in values.items():
        own = []
        for phase, facts in settings["freeze"]["phases"].items():
            keys = {"epochs", "steps"} if name == "epochs" else {"lr"}
            added = f"freeze.phases.{phase}" in given and keys & set(facts)
            if added or any(f"freeze.phases.{phase}.{key}" in given for key in keys):
                own.append(phase)
                continue
            facts[name] = value
            if name == "epochs" and facts.get("steps") is not None:
                facts["steps"] = None
        others = [str(phase) for phase in settings["freeze"]["phases"] if phase not in own]
        kept = f"; {', '.join(map(str, own))} as given" if own else ""
        notice(f"{name}={value} of every phase: {', '.join(others) or 'none'}{kept} (freeze.phases.NAME.{name}).")


def say_unused(settings: Mapping[str, Any], given: Collection[str]) -> None:
    """Say which settings of the command line have no effect, because another choice would use them."""
    phases, of_group = settings.get("freeze", {}).get("phases", {}), settings.get("optimizer", {})
    optimizers = {phase.get("optimizer") or of_group.get("name") for phase in phases.values()}
    schedules = {name: phase.get("schedule") or of_group.get("schedule") for name, phase in phases.items()}
    for name in sorted(_names(OPTIMIZER_DEFAULTS)) if phases else ():
        _say_unused(f"optimizer.{name}", given, "optimizer", optimizers, OPTIMIZER_DEFAULTS)
    for name in sorted(_names(SCHEDULE_DEFAULTS)) if phases else ():
        those = {each for each in schedules.values() if name not in OF_ONE_SCHEDULE or each == of_group.get("schedule")}
        _say_unused(f"optimizer.{name}", given, "optimizer.schedule", those, SCHEDULE_DEFAULTS)
        for phase, schedule in schedules.items():
            group = f"freeze.phases.{phase}"
            _say_unused(f"{group}.{name}", given, f"{group}.schedule", {schedule}, SCHEDULE_DEFAULTS)
    for name, phase in phases.items():
        if f"freeze.phases.{name}.patience" in given and not phase.get("until"):
            notice(f"freeze.phases.{name}.patience has no effect without freeze.phases.{name}.until=plateau.")


def _names(tables: Mapping[Any, Mapping[str, Any]]) -> set[str]:
    return {name for table in tables.values() for name in table}


def _say_unused(
    name: str, given: Collection[str], setting: str, chosen: set[Any], tables: Mapping[Any, Mapping[str, Any]]
) -> None:
    users = [each for each, table in tables.items() if name.rpartition(".")[2] in table]
    if name in given and not chosen:
        notice(
            f"{name} has no effect: every phase has a schedule of its own, and takes {name.rpartition('.')[2]} from "
            f"itself alone (freeze.phases.NAME.{name.rpartition('.')[2]})."
        )
    elif name in given and not chosen & set(users):
        use = f"{users[0]} uses" if len(users) == 1 else f"{', '.join(users[:-1])} and {users[-1]} use"
        notice(
            f"{name} has no effect with {setting}={', '.join(sorted(map(str, chosen)))}: {use} it "
            f"({setting}={users[0]})."
        )
