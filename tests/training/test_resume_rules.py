"""What may change in a run that goes on, rule by rule; test_cli.py has the rules in real runs."""

import pytest

from segtune.errors import UserError
from segtune.training.resume_rules import (
    check_cache_mode,
    check_change,
    check_data,
    check_length,
    check_phases,
    check_settings,
    same_run,
)

PHASES = ("head", "all")
KEEPS = (
    ": a resumed run keeps its settings, so that it ends as if it had not been interrupted. Only these may change: "
    "data.root, data.groups, data.pairs, train.device, train.workers, train.log_every, train.log_seconds, "
    "train.trackers, checkpoint.minutes, cache.mode, cache.limit_gb, cache.folder; the epochs, steps, patience of "
    "unfinished phases, such as freeze.phases.all.epochs; and phases may be added: "
    "+freeze.phases.NAME={backbone: …, epochs: …, lr: …}."
)


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("train.workers", {"changes"}),
        ("data.root", {"changes"}),
        ("data.groups", {"changes"}),
        ("data.pairs", {"changes"}),
        ("data.images", set()),
        ("data.name", set()),
        ("train.log_every", {"changes"}),
        ("train.log_seconds", {"changes"}),
        ("checkpoint.minutes", {"changes"}),
        *((f"cache.{name}", {"changes"}) for name in ("mode", "limit_gb", "folder")),
        *((f"cache.{name}", set()) for name in ("views", "seed", "dtype")),
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


def test_a_cache_is_not_switched_on_or_off() -> None:
    for had, now in (("off", "off"), ("auto", "disk"), ("disk", "memory")):
        check_cache_mode(had, now)
    for had, now in (("off", "auto"), ("disk", "off")):
        with pytest.raises(UserError) as caught:
            check_cache_mode(had, now)
        assert str(caught.value) == (
            f"cache.mode={now}: the run began with cache.mode={had}. With off, every epoch draws new augmentation; "
            "with any other, phases with a frozen part take cache.views of each image in turn. Only between those "
            "others may a resumed run change."
        )


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


def settings(**more: object) -> dict:
    values = {
        "seed": 0,
        "data": {"root": "photos", "image_size": [64, 96]},
        "train": {"workers": 2, "batch_size": 8},
        "freeze": {"phases": {"head": {"lr": 1.0, "epochs": 2}, "all": {"lr": 0.1, "epochs": 3}}},
        "cache": {"mode": "auto", "views": 8, "folder": None},
        "run_dir": None,
    }
    return values | more


@pytest.mark.parametrize(
    "now",
    [
        settings(),
        settings(run_dir="elsewhere", train={"workers": 0, "batch_size": 8}),
        settings(data={"root": "moved", "image_size": [64, 96]}),
        settings(data={"root": "photos", "image_size": [64, 96], "ignore": None}, augment={"border": None}),  # new ones
        settings(cache={"mode": "disk", "views": 8, "folder": "features"}),
        settings(
            freeze={"phases": {"head": {"lr": 1.0, "epochs": 2}, "all": {"lr": 0.1, "epochs": 9}, "late": {"lr": 1}}}
        ),
    ],
)
def test_some_settings_may_have_changed(now: dict) -> None:
    check_settings(settings(), now, "config.yaml")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (
            settings(seed=1, data={"root": "a", "image_size": [64, 64]}),
            ["seed: 0 in training, 1 now", "data.image_size: [64, 96] in training, [64, 64] now"],
        ),
        (
            settings(cache={"mode": "off", "views": 4, "folder": None}),
            ["cache.mode: 'auto' in training, 'off' now", "cache.views: 8 in training, 4 now"],
        ),
        (
            settings(data={"root": "a", "image_size": [64, 96], "ignore": [255]}, augment={"border": "void"}),
            ["data.ignore: None in training, [255] now", "augment.border: None in training, 'void' now"],
        ),
        (settings(train={"workers": 2}), ["train.batch_size: 8 in training, None now"]),
        (
            settings(freeze={"phases": {"head": {"lr": 1.0, "epochs": 2}, "all": {"lr": 0.2, "epochs": 3}}}),
            ["freeze.phases.all.lr: 0.1 in training, 0.2 now"],
        ),
    ],
)
def test_other_settings_that_have_changed_are_named(now: dict, expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_settings(settings(), now, "config.yaml")
    first, *changes, last = str(caught.value).splitlines()
    assert first == "Settings in config.yaml have changed since the run was saved:"
    assert [change.strip() for change in changes] == expected
    assert last.startswith("A resumed run keeps its settings")


def test_data_that_have_changed_are_named() -> None:
    had = {"train": {"a": "1 1 1", "b": "2 2 2", "c": "3 3 3", "d": "4 4 4"}, "val": {"e": "5 5 5"}}
    check_data(had, had, "photos")
    now = {"train": {"a": "1 1 1", "b": "9 2 9", "c": "3 9 3", "e": "5 5 5"}, "val": {"x": "6 6 6", "y": "7 7 7"}}
    with pytest.raises(UserError) as caught:
        check_data(had, now, "photos")
    assert str(caught.value).splitlines()[:3] == [
        "The data in photos have changed since the run began:",
        "  train: 1 added (e); 1 removed (d); 1 with another photo (b); 1 with another mask (c)",
        "  val: 2 added (x, y); 1 removed (e)",
    ]


@pytest.mark.parametrize(
    ("now", "free", "expected"),
    [
        ({}, (), True),
        ({"run_dir": "elsewhere"}, (), True),
        ({"seed": 1}, ("data.root",), False),
        ({"data": {"root": "moved"}}, ("data.root",), True),
        ({"data": {"root": "moved"}}, (), False),
        ({"freeze": {"phases": {"all": {"epochs": 3}}}}, ("data.root",), False),
        ({"new": 1}, ("data.root",), False),
        ({"data": {"root": "photos", "masks": None}}, (), True),  # as the run has found it
        ({"data": {"root": "photos", "masks": "labels"}}, (), True),
        ({"data": {"root": "photos", "masks": "others"}}, (), False),
    ],
)
def test_runs_of_the_same_settings(now: dict, free: tuple[str, ...], expected: bool) -> None:
    data = {"root": "photos", "masks": "labels"}
    had = {"seed": 0, "run_dir": "here", "data": data, "freeze": {"phases": {"all": {"epochs": 2}}}}
    assert same_run(had, had | now, free) is expected
    assert not same_run(None, had, free)
