"""Splits and folds by hash, of images and of groups."""

import hashlib
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from segtune.data.partition import (
    divided_groups,
    folds_of,
    groups_by_pattern,
    ranked_units,
    split_units,
    take_units,
)
from segtune.data.sources.base import Pair
from segtune.errors import UserError


def pairs_named(*names: str) -> list[Pair]:
    return [Pair(name, Path(f"{name}.jpg"), Path(f"{name}.png")) for name in names]


def grouped(*sizes: int) -> tuple[list[Pair], dict[str, str]]:
    """Return groups of these sizes: g0_0, g0_1, …, and the group of each."""
    names = [f"g{group}_{number}" for group, size in enumerate(sizes) for number in range(size)]
    return pairs_named(*names), groups_by_pattern(names, "^([^_]+)_")


def split(pairs: list[Pair], seed: int, val: float = 0.15, test: float = 0.15) -> dict[str, list[Pair]]:
    return split_units(ranked_units(pairs, seed), val, test)


def test_a_group_is_what_a_pattern_finds() -> None:
    names = ["p1/a", "p2/b"]
    assert groups_by_pattern(names, r"^[^/]+") == {"p1/a": "p1", "p2/b": "p2"}
    assert groups_by_pattern(names, r"p(\d)/(.)") == {"p1/a": "1", "p2/b": "2"}
    with pytest.raises(UserError) as caught:
        groups_by_pattern([*names, "x", "y"], r"p(\d)")
    assert str(caught.value).startswith(r"data.group=p(\d): the pattern is not in 2 of 4 names (x, y). Expected a ")
    with pytest.raises(UserError, match=r"^data\.group=patient\(: it is neither a column of data\.pairs nor a regular"):
        groups_by_pattern(names, "patient(")


@pytest.mark.parametrize(("seed", "val", "test"), [(0, 0.15, 0.15), (1, 0.3, 0.2)])
def test_groups_stay_whole_and_splits_come_near_to_their_fractions(seed: int, val: float, test: float) -> None:
    sizes = np.random.default_rng(seed).integers(1, 8, 40)
    pairs, groups = grouped(*map(int, sizes))
    splits = split_units(ranked_units(pairs, seed, groups), val, test)
    assert not divided_groups(splits, groups)
    assert sorted(chain(*splits.values()), key=lambda pair: pair.name) == sorted(pairs, key=lambda pair: pair.name)
    for split, fraction in (("val", val), ("test", test)):
        assert abs(len(splits[split]) - fraction * len(pairs)) <= sizes.max() / 2
    assert split_units(ranked_units(pairs[::-1], seed, groups), val, test) == splits


def test_a_group_of_each_is_a_split_of_images() -> None:
    pairs = pairs_named(*(f"p{number}" for number in range(30)))
    alone = {pair.name: pair.name for pair in pairs}
    assert split_units(ranked_units(pairs, 5, alone), 0.2, 0.1) == split(pairs, 5, 0.2, 0.1)


@pytest.mark.parametrize(("count", "sizes"), [(3, (1, 1, 1)), (10, (6, 2, 2)), (100, (70, 15, 15))])
def test_the_split_by_seed_has_exact_sizes_and_loses_nothing(count: int, sizes: tuple[int, ...]) -> None:
    """The lowest hashes of seed and name are the test set, the highest the validation set."""
    pairs = pairs_named(*(f"p{number:03}" for number in range(count)))
    splits = split(pairs, 3)
    assert tuple(len(splits[name]) for name in ("train", "val", "test")) == sizes
    assert sorted(chain(*splits.values()), key=lambda pair: pair.name) == pairs
    ranked = sorted((hashlib.sha256(f"3/{pair.name}".encode()).digest(), pair.name) for pair in pairs)
    assert [pair.name for pair in splits["test"]] == sorted(name for _, name in ranked[: sizes[2]])
    assert [pair.name for pair in splits["val"]] == sorted(name for _, name in ranked[-sizes[1] :])


def test_the_split_by_seed_follows_names_and_seed_alone() -> None:
    pairs = pairs_named(*(f"p{number}" for number in range(60)))
    splits = split(pairs, 0)
    assert split(pairs[::-1], 0) == splits
    assert split(pairs, 1) != splits


def test_added_images_move_few_and_none_between_val_and_test() -> None:
    before, after = (split(pairs_named(*(f"p{number}" for number in range(count))), 0) for count in (100, 110))
    place = {pair.name: name for name, pairs in after.items() for pair in pairs}
    moves = [(name, place[pair.name]) for name, pairs in before.items() for pair in pairs if place[pair.name] != name]
    assert len(moves) <= 4
    assert not {("val", "test"), ("test", "val")} & set(moves)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"^Got 2 pairs; expected at least 3, to split into train, val and test\.$"):
        split(pairs_named("a", "b"), 0)
    message = r"^data\.val_share=0\.5 and data\.test_share=0\.5 leave none of 4 pairs to train on\.$"
    with pytest.raises(UserError, match=message):
        split(pairs_named(*"abcd"), 0, 0.5, 0.5)


def test_a_large_group_is_passed_over() -> None:
    pairs, groups = grouped(50, 2, 2, 2, 2)
    for seed in range(5):
        splits = split_units(ranked_units(pairs, seed, groups), 0.05, 0.05)
        assert [len(splits[split]) for split in ("train", "val", "test")] == [50, 4, 4]
    assert [len(unit) for unit in take_units([[*pairs], [*pairs[:7]]], 1)[0]] == [
        7
    ]  # the smallest, if all are too large


def test_too_few_groups_are_refused() -> None:
    pairs, groups = grouped(5, 5)
    with pytest.raises(UserError, match=r"^Got 2 groups; expected at least 3, to split into train, val and test\.$"):
        split_units(ranked_units(pairs, 0, groups), 0.1, 0.1)
    with pytest.raises(UserError, match=r"^data\.folds=3: got 2 groups to divide; expected at least one for each fold"):
        folds_of(ranked_units(pairs, 0, groups), 3)


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_are_disjoint_complete_and_equal(folds: int) -> None:
    pairs = pairs_named(*(f"p{number}" for number in range(23)))
    found = folds_of(ranked_units(pairs, 0), folds)
    assert Counter(chain(*found)) == Counter(pairs)
    assert {len(fold) for fold in found} <= {23 // folds, 23 // folds + 1}
    assert found == folds_of(ranked_units(pairs[::-1], 0), folds)
    assert found != folds_of(ranked_units(pairs, 1), folds)


def test_folds_of_groups_fill_the_emptiest_with_the_largest_group_left() -> None:
    """Like scikit-learn's GroupKFold by hand: 9, 6 and 5; then 4 to the third, 3 to the second, 2 to the first."""
    pairs, groups = grouped(2, 9, 4, 6, 3, 5)
    found = folds_of(ranked_units(pairs, 0, groups), 3)
    assert [Counter(groups[pair.name] for pair in fold) for fold in found] == [
        {"g1": 9, "g0": 2},
        {"g3": 6, "g4": 3},
        {"g5": 5, "g2": 4},
    ]


def test_groups_in_several_splits_are_found() -> None:
    pairs, groups = grouped(2, 1)
    assert divided_groups({"train": pairs[:1], "val": pairs[1:]}, groups) == {"g0": ["train", "val"]}
