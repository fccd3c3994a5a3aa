"""What may change when a run resumes. These checks need names and plain values only, so they are fast."""

from collections.abc import Collection, Mapping
from typing import Any

from segtune.errors import UserError

#: Settings that may change when a run resumes; those of phases by their last part.
MAY_CHANGE = ("train.device", "train.workers", "checkpoint.minutes")
MAY_CHANGE_OF_PHASES = ("epochs", "steps", "patience")

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
    of_phase = len(groups) == 3 and groups[:2] == ["freeze", "phases"] and key in MAY_CHANGE_OF_PHASES
    new_phase = groups == ["freeze", "phases"] and key not in phases
    if not (adds and new_phase) and not (changes and (name in MAY_CHANGE or of_phase)):
        raise UserError(
            f"{override}: a resumed run keeps its settings, so that it ends as if it had not been "
            f"interrupted. Only these may change: {', '.join(MAY_CHANGE)}; the {', '.join(MAY_CHANGE_OF_PHASES)} of "
            f"unfinished phases, such as freeze.phases.all.epochs; and phases may be added: {_ADD}."
        )
    if of_phase and groups[2] not in phases:
        raise UserError(f"{name}: the run has no phase {groups[2]}; it has {', '.join(phases)}.")


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
