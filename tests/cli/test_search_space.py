"""Overrides of Hydra as the space of a search."""

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from segtune.cli.search_space import Space, overrides_of
from segtune.errors import UserError

pytest.importorskip("optuna", reason="needs the extra segtune[optuna]")

from optuna.distributions import CategoricalDistribution as Choice
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int


@pytest.mark.parametrize(
    ("value", "expected", "points"),
    [
        ("adamw,sgd", Choice(["adamw", "sgd"]), 2),
        ("choice(1e-3,true,a)", Choice([0.001, True, "a"]), 3),
        ("5,null,'a b'", Choice([5, "null", "'a b'"]), 3),
        ("choice([1,2],[3])", Choice(["[1,2]", "[3]"]), 2),
        ("range(1,6)", Int(1, 5), 5),
        ("range(1,6,2)", Int(1, 5, step=2), 3),
        ("range(6,1,-2)", Int(2, 6, step=2), 3),
        ("range(0.1,0.35,0.1)", Float(0.1, 0.3, step=0.1), 3),
        ("range(3,4)", Choice([3]), 1),
        ("interval(1e-4,0.5)", Float(1e-4, 0.5), math.inf),
        ("interval(1,5)", Float(1, 5), math.inf),
        ("interval(0,0.5)", Float(0, 0.5), math.inf),
        ("tag(log, interval(1e-5, 1e-2))", Float(1e-5, 1e-2, log=True), math.inf),
        ("tag(log, int(interval(4, 64)))", Int(4, 64, log=True), 61),
    ],
)
def test_each_kind_of_range(value: str, expected: object, points: float) -> None:
    space = Space.of([f"++lr={value}", "seed=3"])
    assert space.distributions == {"lr": expected}
    assert space.fixed == ("seed=3",)
    assert space.points == points


def test_the_last_override_of_a_setting_counts() -> None:
    space = Space.of(["++lr=1e-3,1e-4", "seed=1", "~freeze.phases.head", "++lr=0.5", "seed=range(2)"])
    assert list(space.distributions) == ["seed"]
    assert space.fixed == ("~freeze.phases.head", "++lr=0.5")


def test_all_points_of_a_finite_space() -> None:
    space = Space.of(["seed=range(2)", "augment.scale=range(0.1,0.35,0.1)", "backbone=vgg16,xception"])
    points = list(space.all())
    assert len(points) == space.points == 12
    assert points[5] == {"seed": 0, "augment.scale": 0.3, "backbone": "xception"}
    assert overrides_of(points[5], space.distributions) == ["seed=0", "augment.scale=0.3", "backbone=xception"]


@pytest.mark.parametrize("value", ["5,null,true,0.001,'a b','1','\\''", "[1,2],{a: b}", "1e-05,10000.0"])
def test_choices_stay_what_they_were(value: str) -> None:
    space = Space.of([f"x={value}"])
    parsed = OverridesParser.create().parse_override(f"x={value}")
    texts = [each for point in space.all() for each in overrides_of(point, space.distributions)]
    assert texts == [f"x={each}" for each in parsed.sweep_string_iterator()]  # what Hydra's own sweeper makes of them


def test_samples_hold_every_choice_and_the_ends_of_ranges() -> None:
    space = Space.of(["seed=a,b,c", "lr=interval(0.1,0.9)"])
    assert space.samples() == [
        {"seed": "a", "lr": 0.1},
        {"seed": "b", "lr": 0.1},
        {"seed": "c", "lr": 0.1},
        {"seed": "a", "lr": 0.9},
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.00123456, "lr=0.001235"), (1.23456e-5, "lr=1.235e-05"), (0.0999999, "lr=0.0999999"), (3, "lr=3")],
)
def test_numbers_have_four_digits_unless_they_would_leave_their_range(value: float, expected: str) -> None:
    assert overrides_of({"lr": value}, {"lr": Float(1e-5, 0.09999999)}) == [expected]


@pytest.mark.parametrize("value", ["tag(log, interval(0.0, 1.0))", "interval(2.0, 1.0)", "range(3,3)"])
def test_impossible_ranges_are_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"^lr: got .*, which cannot be searched: "):
        Space.of([f"lr={value}"])
