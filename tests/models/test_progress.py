"""The progress in a checkpoint: what a run wrote is read, and everything else is refused by its name."""

import copy
from dataclasses import asdict
from typing import Any

import pytest
import torch

from segtune.errors import UserError
from segtune.models.progress import State, check_facts
from tests.models.test_checkpoint import STATE

PHASES = {"all": None, "late": None}


def changed(*path: Any, to: Any) -> dict[str, Any]:
    state: Any = copy.deepcopy(STATE)
    place = state
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return state


def test_what_a_run_wrote_is_read() -> None:
    state = State.read(STATE, PHASES)
    later = {"cache_seconds": 0.0, "wait_seconds": 0.0, "start_images": 0, "start_seconds": 0.0}
    assert asdict(state) == STATE | later
    check_facts("all", state.phases["all"])


def test_the_rate_leaves_out_the_first_step_unless_it_is_the_only_one() -> None:
    assert State(trained_images=40, train_seconds=12.0, start_images=8, start_seconds=4.0).rates() == (4.0, 40 / 12)
    assert State(trained_images=8, train_seconds=4.0, start_images=8, start_seconds=4.0).rates() == (2.0, 2.0)
    assert State(trained_images=8, train_seconds=4.0).rates() == (2.0, 2.0)  # of a file that lacks them


def test_a_run_resumes_with_all_facts_of_its_phases() -> None:
    state = State.read(changed("phases", "all", "optimizer", to=None), PHASES)
    with pytest.raises(UserError, match=r"^The state .* cannot be used\. phases\.all lacks optimizer\.$"):
        check_facts("all", state.phases["all"])


@pytest.mark.parametrize("name", ["lr", "seconds", "train_seconds", "trained_images"])
def test_fields_that_are_no_place_may_be_missing(name: str) -> None:
    assert getattr(State.read(changed(name, to=None), PHASES), name) == 0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed("epoch", to=None), "It lacks epoch."),
        (changed("epoch", to="1"), "epoch: got '1'; expected: a valid integer."),
        (changed("epoch", to=True), "epoch: got True; expected: a valid integer."),
        (changed("step", to=-1), "step: got -1; expected: greater than or equal to 0."),
        (changed("best_dice", to=torch.ones(2)), "best_dice: got tensor([1., 1.]); expected: a valid number."),
        (changed("best_dice", to=1.5), "best_dice: got 1.5; expected at most 1."),
        (changed("seconds", to=float("nan")), "seconds: got nan; expected: a finite number."),
        (changed("other", to=1), "other: there is no such entry."),
        (changed("rows", to=3), "rows: got 3; expected: a valid list."),
        (changed("rows", 0, to=3), "rows[0]: got 3; expected: a valid dictionary."),
        (changed("rows", 0, "val_dice", to=None), "rows[0] lacks val_dice."),
        (changed("rows", 0, "val_dice", to="good"), "rows[0].val_dice: got str; expected float."),
        (changed("rows", 0, "val_iou", to=[1]), "rows[0].val_iou: got list; expected float."),
        (changed("frozen", "mean", to=7), "frozen.mean: got 7; expected: a valid string."),
        (changed("phases", "all", to=None), "phases.all lacks trainable."),
        (changed("phases", "all", "trainable", to="9"), "phases.all.trainable: got str; expected int."),
        (changed("phases", "all", "parts", "stem", to=3), "phases.all.parts.stem: got int; expected a dict."),
        (changed("phases", "late", to={}), "phases: got late; the phases begun so far are all."),
        (changed("phase", to=2), "phase: got 2; the run's settings have 2 (all, late)."),
        (
            changed("epoch", to=9),
            "epoch 9 of the phase all and best_epoch 1 do not fit the rows of the epochs 1, of which 1 are of this "
            "phase.",
        ),
        (
            changed("rows", 0, "epoch", to=2),
            "epoch 1 of the phase all and best_epoch 1 do not fit the rows of the epochs 2, of which 1 are of this "
            "phase.",
        ),
        (changed("step", to=3), "step 3 and images 0 contradict each other."),
    ],
)
def test_what_cannot_be_used_is_named(state: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        State.read(state, PHASES)
    assert str(error.value).removeprefix("One entry is wrong:\n  ") == message
