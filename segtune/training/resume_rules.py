"""What may change when a run resumes. These checks need names and plain values only, so they are fast."""

from collections.abc import Collection, Mapping
from typing import Any

from segtune.config.data_settings import FOUND
from segtune.config.parse import flat
from segtune.errors import UserError, some

#: Settings that may change when a run resumes; those of phases by their last part.
MAY_CHANGE = (
    *("data.root", "data.groups", "data.pairs", "train.device", "train.workers", "train.log_every"),
    *("train.log_seconds", "train.trackers", "checkpoint.minutes", "cache.mode", "cache.limit_gb", "cache.folder"),
)
MAY_CHANGE_OF_PHASES = ("epochs", "steps", "patience")
#: Settings that say where a run is, or follow from data.root: they may differ, though not on the command line.
_OF_PLACE = ("resume", "repeat", "run_dir", "data.name")
_FOUND = tuple(f"data.{name}" for name in FOUND)

_ADD = "+freeze.phases.NAME={backbone: …, epochs: …, lr: …}"


def check_change(override: str, name: str, phases: Collection[str], *, changes: bool, adds: bool) -> None:
    """Check that an override may change a run's settings.

    Args:
        override: The override as given.
        name: The dotted name of its setting.
        phases: Names of the run's phases.
        changes: Whether it may change an existing setting.
        adds: Whether it may add a setting.

    Raises:
        UserError: The setting may not change, or the run has no such phase.
    """
    *groups, key = name.split(".")
    of_phase = _is_of_phase(name)
    new_phase = groups == ["freeze", "phases"] and key not in phases
    if not (adds and new_phase) and not (changes and (name in MAY_CHANGE or of_phase)):
        raise UserError(
            f"{override}: a resumed run keeps its settings, so that it ends as if it had not been "
            f"interrupted. Only these may change: {', '.join(MAY_CHANGE)}; the {', '.join(MAY_CHANGE_OF_PHASES)} of "
            f"unfinished phases, such as freeze.phases.all.epochs; and phases may be added: {_ADD}."
        )
    if of_phase and groups[2] not in phases:
        raise UserError(f"{name}: the run has no phase {groups[2]}; it has {', '.join(phases)}.")


def check_cache_mode(had: str, now: str) -> None:
    """Check that a run's `cache.mode` stays `off`, or stays another: only that decides which images it sees.

    Raises:
        UserError: It would change from or to `off`.
    """
    if had != now and "off" in (had, now):
        raise UserError(
            f"cache.mode={now}: the run began with cache.mode={had}. With off, every epoch draws new augmentation; "
            "with any other, phases with a frozen part take cache.views of each image in turn. Only between those "
            "others may a resumed run change."
        )


def _is_of_phase(name: str) -> bool:
    """Return whether a setting is one of those of phases that may change."""
    *groups, key = name.split(".")
    return len(groups) == 3 and groups[:2] == ["freeze", "phases"] and key in MAY_CHANGE_OF_PHASES


def check_settings(had: Mapping[str, Any], now: Mapping[str, Any], path: str) -> None:
    """Check that a run's settings are those that it has trained with, but for what may change.

    Args:
        had: The settings in its checkpoint.
        now: Those in its `config.yaml`, which somebody may have edited.
        path: That file.

    Raises:
        UserError: Others have changed.
    """
    before, after = dict(flat(had)), dict(flat(now))
    changed = [
        f"  {name}: {before.get(name)!r} in training, {after.get(name)!r} now"
        for name in {**before, **after}
        if before.get(name) != after.get(name) and not _may_differ(name, had, now)
    ]
    if changed:
        raise UserError(
            "\n".join([f"Settings in {path} have changed since the run was saved:", *changed])
            + "\nA resumed run keeps its settings, so that it ends as if it had not been interrupted. "
            "Put them back, or begin a new run with the new ones (restore.checkpoint=RUN/checkpoints/last.pt starts "
            "from the weights)."
        )


def _may_differ(name: str, had: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if name == "cache.mode":
        return "off" not in (had["cache"]["mode"], now["cache"]["mode"])
    if name in (*MAY_CHANGE, *_OF_PLACE) or _is_of_phase(name):
        return True
    groups = name.split(".")  # whole phases, and their order, are checked by check_phases
    both = had["freeze"]["phases"].keys() & now["freeze"]["phases"].keys()
    return groups[:2] == ["freeze", "phases"] and groups[2] not in both


def check_data(had: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]], root: str) -> None:
    """Check that a run's data are those that it has trained on.

    Args:
        had: By split and name, the checksums of photo and mask in its checkpoint.
        now: Those of the data in the folder `root`.
        root: The setting `data.root`.

    Raises:
        UserError: Some were added, removed or changed.
    """
    if changes := data_changes(had, now):
        raise UserError(
            "\n".join([f"The data in {root} have changed since the run began:", *changes])
            + "\nA resumed run needs the data that it began with. Put them back, name the folder that holds them "
            "(data.root=…), or begin a new run (restore.checkpoint=RUN/checkpoints/last.pt starts from the weights)."
        )


def data_changes(had: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a line for each split whose checksums by name have changed."""
    return [f"  {split}: {'; '.join(found)}" for split in had if (found := _changes(had[split], now[split]))]


def _changes(had: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    parts = [(had[name].split(), now[name].split(), name) for name in had if name in now]
    kinds = {
        "added": [name for name in now if name not in had],
        "removed": [name for name in had if name not in now],
        "with another photo": [name for before, after, name in parts if before[:1] != after[:1]],
        "with another mask": [name for before, after, name in parts if before[1:2] != after[1:2]],
    }
    return [f"{len(names)} {kind} ({some(names)})" for kind, names in kinds.items() if names]


def check_phases(had: Mapping[str, Any], now: Mapping[str, Any], over: int) -> None:
    """Check that a run still has its phases, in their order, and that the finished ones are unchanged.

    Raises:
        UserError: A finished phase has changed, or a phase is missing or out of order.
    """
    if list(now.items())[:over] != list(had.items())[:over] or list(now)[: len(had)] != list(had):
        raise UserError(
            f"The finished phases ({', '.join(list(had)[:over]) or 'none'}) cannot change, "
            f"and new ones come last: {_ADD}."
        )


def check_length(phase: str, steps: int, longest: int, of_epochs: int) -> None:
    """Check that a phase's new length is not below its steps so far, nor above them if it ended within an epoch.

    Args:
        phase: The running phase.
        steps: Its optimizer steps so far.
        longest: Its new maximum of steps.
        of_epochs: The steps of its finished epochs, if all had been whole; skipped ones count where `steps` has them.

    Raises:
        UserError: The new length is too short or too long.
    """
    if steps > longest:
        raise UserError(
            f"freeze.phases.{phase}: the run has already made {steps} steps of this phase; got a length of {longest}. "
            f"Set a length of {steps} steps or more."
        )
    if steps < min(longest, of_epochs):  # its last epoch was cut short
        raise UserError(
            f"freeze.phases.{phase}: this phase ended after {steps} steps, within an epoch, so it cannot be extended. "
            f"Add a phase: {_ADD}."
        )


def same_run(had: Mapping[str, Any] | None, now: Mapping[str, Any], free: Collection[str] = MAY_CHANGE) -> bool:
    """Return whether settings are those of a run, but for where it is and for those that are `free` to differ.

    What a run has found by looking at its data need not be given. Unlike in a resume, the length of a phase counts:
    runs of a sweep may differ in it alone.
    """
    before, after = dict(flat(had or {})), dict(flat(now))
    names = {name for name in {**before, **after} if name not in _FOUND or after.get(name) is not None}
    return all(before.get(name) == after.get(name) or name in (*free, *_OF_PLACE) for name in names)
