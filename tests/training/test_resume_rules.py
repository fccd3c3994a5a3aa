"""What may change in a run that goes on, rule by rule; test_cli.py has the rules in real runs."""

import pytest

from segtune.errors import UserError
from segtune.training.resume_rules import check_change, check_length, check_phases

PHASES = ("head", "all")
KEEPS = (
    ": a resumed run keeps its settings, so that it ends as if it had not been interrupted. Only these may change: "
    "train.device, train.workers, checkpoint.minutes; the epochs, steps, patience of unfinished phases, such as "
    "freeze.phases.all.epochs; and phases may be added: +freeze.phases.NAME={backbone: …, epochs: …, lr: …}."
)


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("train.workers", {"changes"}),
        ("checkpoint.minutes", {"changes"}),
        ("freeze.phases.all.epochs", {"changes"}),
        ("freeze.phases.all.steps", {"changes"}),
        ("freeze.phases.late", {"adds"}),
        ("freeze.phases.all", set()),  # it is there already
        ("freeze.phases.all.lr", set()),
        ("freeze.phases.all.epochs.more", set()),
        ("freeze", set()),
        ("train.batch_size", set()),
        ("workers", set()),
        ("epochs", set()),
    ],
)
def test_what_may_change_and_how(name: str, ways: set[str]) -> None:
    for given in (set(), {"changes"}, {"adds"}, {"changes", "adds"}):
        options = {way: way in given for way in ("changes", "adds")}
        if ways & given:
            check_change(f"{name}=x", name, PHASES, **options)
        else:
            with pytest.raises(UserError) as caught:
                check_change(f"{name}=x", name, PHASES, **options)
            assert str(caught.value) == f"{name}=x{KEEPS}"


def test_a_length_of_no_phase() -> None:
    with pytest.raises(UserError) as caught:
        check_change("freeze.phases.al.epochs=1", "freeze.phases.al.epochs", PHASES, changes=True, adds=False)
    assert str(caught.value) == "freeze.phases.al.epochs: the run has no phase al; it has head, all."


@pytest.mark.parametrize(
    ("now", "over", "fine"),
    [
        ({"a": 1, "b": 2}, 1, True),
        ({"a": 1, "b": 3}, 1, True),  # the running phase may change
        ({"a": 1, "b": 2, "c": 3}, 2, True),
        ({"a": 9, "b": 2}, 0, True),
        ({"a": 9, "b": 2}, 1, False),
        ({"a": 1, "b": 9}, 2, False),
        ({"b": 2, "a": 1}, 0, False),
        ({"a": 1}, 0, False),
        ({"a": 1, "c": 3, "b": 2}, 1, False),
    ],
)
def test_phases_that_are_over_stay(now: dict[str, int], over: int, fine: bool) -> None:
    if fine:
        check_phases({"a": 1, "b": 2}, now, over)
        return
    with pytest.raises(UserError) as caught:
        check_phases({"a": 1, "b": 2}, now, over)
    assert str(caught.value) == (
        f"The finished phases ({['none', 'a', 'a, b'][over]}) cannot change, and new ones come last: "
        "+freeze.phases.NAME={backbone: …, epochs: …, lr: …}."
    )


def test_a_phase_becomes_no_shorter_than_it_is() -> None:
    check_length("all", 5, longest=5, of_epochs=3)
    with pytest.raises(UserError) as caught:
        check_length("all", 6, longest=5, of_epochs=3)
    assert str(caught.value) == (
        "freeze.phases.all: the run has already made 6 steps of this phase; got a length of 5. "
        "Set a length of 6 steps or more."
    )


def test_a_phase_that_ended_within_an_epoch_becomes_no_longer() -> None:
    check_length("all", 5, longest=5, of_epochs=6)
    check_length("all", 3, longest=9, of_epochs=3)
    with pytest.raises(UserError) as caught:
        check_length("all", 5, longest=9, of_epochs=6)
    assert str(caught.value) == (
        "freeze.phases.all: this phase ended after 5 steps, within an epoch, so it cannot be extended. "
        "Add a phase: +freeze.phases.NAME={backbone: …, epochs: …, lr: …}."
    )
