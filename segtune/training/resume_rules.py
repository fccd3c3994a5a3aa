"""What may change when a run goes on, error_overlay by names and plain values: no tensors, so the answer is quick."""

from collections.abc import Collection, Mapping
from typing import Any

from segtune.errors import UserError

#: Settings that may differ when a run goes on; those of phases by their last part.
MAY_CHANGE = ("train.device", "train.workers", "checkpoint.minutes")
MAY_CHANGE_OF_PHASES = ("epochs", "steps", "patience")

_ADD = "+freeze.phases.NAME={backbone: …, epochs: …, lr: …}"


def check_change(override: str, name: str, phases: Collection[str], *, changes: bool, adds: bool) -> None:
    """Check that an override may change a run's settings.

    Args:
        override: The override as it was given.
        name: The dotted name of its setting.
        phases: Names of the phases the run has.
        changes: It may change a setting that is there.
        adds: It may add one that is not.

    Raises:
        UserError: The run keeps this setting, or has no such phase.
    """
    *groups, key = name.split(".")
    of_phase = len(groups) == 3 and groups[:2] == ["freeze", "phases"] and key in MAY_CHANGE_OF_PHASES
    new_phase = groups == ["freeze", "phases"] and key not in phases
    if not (adds and new_phase) and not (changes and (name in MAY_CHANGE or of_phase)):
        raise UserError(
            f"{override}: a resumed run keeps its settings, so that it ends as if it had not been "
            f"interrupted. Only these may change: {', '.join(MAY_CHANGE)}; the {', '.join(MAY_CHANGE_OF_PHASES)} of "
            f"phases that are not over, such as freeze.phases.all.epochs; and phases may be added: {_ADD}."
        )
    if of_phase and groups[2] not in phases:
        raise UserError(f"{name}: the run has no phase {groups[2]}; it has {', '.join(phases)}.")


def check_phases(had: Mapping[str, Any], now: Mapping[str, Any], over: int) -> None:
    """Check that a run still has the phases it had, in their order, and those that are over as they were.

    Raises:
        UserError: It has not.
    """
    if list(now.items())[:over] != list(had.items())[:over] or list(now)[: len(had)] != list(had):
        raise UserError(
            f"The phases that are over ({', '.join(list(had)[:over]) or 'none'}) cannot change, "
            f"and new ones come last: {_ADD}."
        )


def check_length(phase: str, steps: int, longest: int, of_epochs: int) -> None:
    """Check that a phase is no shorter than it is by now, and no longer if it has ended within an epoch.

    Args:
        phase: The running phase.
        steps: The optimizer's steps in it so far.
        longest: Its steps at most, as it is to be now.
        of_epochs: The steps of the epochs that are over, had all been whole.

    Raises:
        UserError: It is.
    """
    if steps > longest:
        raise UserError(
            f"freeze.phases.{phase}: the run has made {steps} steps of this phase by now; it cannot become shorter, "
            f"of {longest}."
        )
    if steps < min(longest, of_epochs):  # its last epoch was cut short
        raise UserError(
            f"freeze.phases.{phase}: this phase has ended after {steps} steps, within an epoch, and cannot become "
            f"longer. Add a phase: {_ADD}."
        )
