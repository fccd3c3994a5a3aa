"""The progress of a training run, as checkpoints hold it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from segtune.config.parse import parse
from segtune.errors import UserError, some
from segtune.runtime.files import Row

_Count = Annotated[int, Field(ge=0, strict=True)]
_Amount = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]

#: Every file has these; a field that is not among them was added later, and files of before lack it.
_ALWAYS = ("phase", "epoch", "step", "loss_sum", "images", "best_dice", "best_epoch", "rows", "phases", "frozen")

#: What the heading of a phase, the summary and the report need of its facts, and of an epoch's row.
_FACTS: Mapping[str, type] = {
    "trains": str,
    "frozen": str,
    "trainable": int,
    "parameters": int,
    "backward_stops": str,
    "optimizer": str,
    "optimizer_bytes": int,
    "parts": dict,
}
_ROW: dict[str, type] = {"epoch": int, "phase": str, "train_loss": float, "val_loss": float, "val_dice": float}


@dataclass
class State:
    """The progress of a run in plain values, from which it can resume.

    `phase` is the running phase, `epoch` counts its finished epochs, `step` the finished batches of the running epoch.
    `best_dice` is the `val_dice` of the epoch `best_epoch`. `frozen` holds the checksums of the phase's frozen tensors,
    `phases` the facts of the phases begun so far; the last is the running one. `skipped` counts the optimizer steps
    skipped in the running epoch, because of an overflow in fp16; `skipped_in_a_row` those since a step was made.
    Of the `trained_images`, in `train_seconds`, the `start_images` are those of the first step, and of each first one
    after a resume: it waits for worker processes to start and kernels to be chosen, which takes `start_seconds`.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    phase: _Count = 0
    epoch: _Count = 0
    step: _Count = 0
    loss_sum: Annotated[float, Field(strict=True, allow_inf_nan=False)] = 0.0
    images: _Count = 0
    lr: _Amount = 0.0
    best_dice: Annotated[float, Field(strict=True)] = -1.0
    best_epoch: _Count = 0
    trained_images: _Count = 0
    train_seconds: _Amount = 0.0
    seconds: _Amount = 0.0
    cache_seconds: _Amount = 0.0
    wait_seconds: _Amount = 0.0
    start_images: _Count = 0
    start_seconds: _Amount = 0.0
    rows: list[Row] = field(default_factory=list)
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    frozen: dict[str, str] = field(default_factory=dict)
    skipped: _Count = 0
    skipped_in_a_row: _Count = 0

    def rates(self) -> tuple[float, float]:
        """Return the training images per second without the first step, if there were others, and with it."""
        images, seconds = self.trained_images, self.train_seconds
        later, their_seconds = images - self.start_images, seconds - self.start_seconds
        whole = images / max(seconds, 1e-9)
        return (later / max(their_seconds, 1e-9) if later else whole), whole

    def skipped_in(self, phase: str) -> int:
        """Return the optimizer steps skipped in a phase so far."""
        finished = sum(int(row.get("skipped_steps") or 0) for row in self.rows if row["phase"] == phase)
        return finished + (self.skipped if phase == next(reversed(self.phases), None) else 0)

    @classmethod
    def read(cls, values: Mapping[str, Any], phases: Mapping[str, Any]) -> "State":
        """Return the state that a file holds.

        Args:
            values: The entry of the file.
            phases: The phases of the run's settings, by name.

        Raises:
            UserError: An entry is missing, unknown, of a wrong type, or contradicts another or the run's phases.
        """
        if missing := [name for name in _ALWAYS if name not in values]:
            raise UserError(f"It lacks {', '.join(missing)}.")
        state = parse(cls, values, "entry")
        names = list(phases)
        if state.phase >= len(names):
            raise UserError(f"phase: got {state.phase}; the run's settings have {len(names)} ({', '.join(names)}).")
        begun = names[: state.phase + 1]
        if unknown := [name for name in state.phases if name not in begun]:
            raise UserError(f"phases: got {', '.join(unknown)}; the phases begun so far are {', '.join(begun)}.")
        parts = state.phases.get(names[0], {}).get("parts", {})
        for name in begun:
            facts = state.phases.get(name, {})
            _check(f"phases.{name}", facts, {n: kind for n, kind in _FACTS.items() if n == "trainable" or n in facts})
            if facts.get("parts", {}).keys() != parts.keys():
                raise UserError(f"phases.{name}.parts: got {some(facts.get('parts', ()))}; expected {some(parts)}.")
            for part, counts in facts.get("parts", {}).items():
                _check(f"phases.{name}.parts.{part}", counts, {"trainable": int, "parameters": int})
        for number, row in enumerate(state.rows):
            known = {name: value for name, value in row.items() if value not in (None, "")}  # of a later version
            _check(f"rows[{number}]", known, _ROW | {name: float for name in known if name not in _ROW})
        done = [row["phase"] for row in state.rows].count(names[state.phase])
        numbers = [row["epoch"] for row in state.rows]
        if done != state.epoch or state.best_epoch > len(state.rows) or numbers != list(range(1, len(numbers) + 1)):
            raise UserError(
                f"epoch {state.epoch} of the phase {names[state.phase]} and best_epoch {state.best_epoch} do not fit "
                f"the rows of the epochs {some(map(str, numbers))}, of which {done} are of this phase."
            )
        if abs(state.best_dice) > 1:  # NaN where no validation image has an object
            raise UserError(f"best_dice: got {state.best_dice}; expected at most 1.")
        if (state.step == 0) != (state.images == 0):
            raise UserError(f"step {state.step} and images {state.images} contradict each other.")
        return state


def check_facts(name: str, facts: Mapping[str, Any]) -> None:
    """Check that the facts of a phase are complete, as its heading and the report need them.

    Raises:
        UserError: Some are missing.
    """
    _check(f"The state of the run in its checkpoint cannot be used. phases.{name}", facts, _FACTS)


def _check(where: str, values: Any, expected: Mapping[str, type]) -> None:
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: got {type(values).__name__}; expected a dict.")
    for name, kind in expected.items():
        if name not in values:
            raise UserError(f"{where} lacks {name}.")
        fits = isinstance(values[name], int | float if kind is float else kind)
        if not fits or isinstance(values[name], bool):
            raise UserError(f"{where}.{name}: got {type(values[name]).__name__}; expected {kind.__name__}.")
