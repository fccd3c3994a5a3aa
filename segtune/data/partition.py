"""Divide images into splits and folds by a hash of the seed and their names, without dividing groups."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from segtune.data.sources.base import Pair
from segtune.errors import UserError, some

#: Images that stay together: a group, or one image.
Unit = list[Pair]


def groups_by_pattern(names: Iterable[str], pattern: str) -> dict[str, str]:
    """Return the group of each name: what the first parentheses of a pattern match in it, or the whole pattern.

    Raises:
        UserError: The pattern is none, or there are names in which it is not found.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"data.group={pattern}: it is neither a column of data.pairs nor a regular expression: {error}."
        ) from error
    found = {name: regex.search(name) for name in names}
    if strange := [name for name, match in found.items() if not match or match[min(regex.groups, 1)] is None]:
        raise UserError(
            f"data.group={pattern}: the pattern is not in {len(strange)} of {len(found)} names ({some(strange)}). "
            "Expected a regular expression that finds the group in every name, such as '^[^_]+' for p7 in p7_001, or "
            "a column of data.pairs."
        )
    return {name: match[min(regex.groups, 1)] for name, match in found.items() if match}


def ranked_units(pairs: Sequence[Pair], seed: int, groups: Mapping[str, str] | None = None) -> list[Unit]:
    """Return groups of pairs, or single pairs without `groups`, in the order of a hash of the seed and their names."""
    units: dict[str, Unit] = {}
    for pair in sorted(pairs, key=lambda pair: pair.name):
        units.setdefault(pair.name if groups is None else groups[pair.name], []).append(pair)
    return [units[name] for name in sorted(units, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())]


def split_units(units: Sequence[Unit], val: float, test: float) -> dict[str, list[Pair]]:
    """Return train, val and test: the first units are the test set, the last the validation set.

    Of single images there are exactly `round(fraction * images)` of each, and at least one; of groups as near to that
    as whole ones come. Added images move only a few others, never between test and validation.

    Raises:
        UserError: There are too few images or groups.
    """
    count, what = sum(map(len, units)), "groups" if any(len(unit) > 1 for unit in units) else "pairs"
    if len(units) < 3:
        raise UserError(f"Got {len(units)} {what}; expected at least 3, to split into train, val and test.")
    tests, vals = max(1, round(test * count)), max(1, round(val * count))
    in_test, rest = take_units(units, tests)
    in_val, train = take_units(rest[::-1], vals)
    if tests + vals >= count or not train:
        raise UserError(f"data.val_share={val:g} and data.test_share={test:g} leave none of {count} pairs to train on.")
    return {"train": in_order(train), "val": in_order(in_val), "test": in_order(in_test)}


def take_units(units: Sequence[Unit], wanted: int) -> tuple[list[Unit], list[Unit]]:
    """Return the first units that come near to a number of images, at least one, and the rest.

    A unit that would go too far beyond the number is passed over.
    """
    taken: list[Unit] = []
    rest: list[Unit] = []
    count = 0
    for unit in units:
        fits = count + len(unit) / 2 <= wanted
        (taken if fits else rest).append(unit)
        count += len(unit) * fits
    if not taken and rest:
        taken = [rest.pop(min(range(len(rest)), key=lambda index: len(rest[index])))]
    return taken, rest


def folds_of(units: Sequence[Unit], folds: int) -> list[list[Pair]]:
    """Return units divided into folds of nearly equal size, as scikit-learn's `GroupKFold` divides groups.

    The largest come first, each into the fold with the fewest images so far; equal ones in the order of their hash. So
    folds of single images differ by one image at most.

    Raises:
        UserError: There are fewer units than folds.
    """
    if len(units) < folds:
        what = "groups" if any(len(unit) > 1 for unit in units) else "images"
        raise UserError(f"data.folds={folds}: got {len(units)} {what} to divide; expected at least one for each fold.")
    found: list[Unit] = [[] for _ in range(folds)]
    for unit in sorted(units, key=len, reverse=True):  # a stable sort
        min(found, key=len).extend(unit)
    return [in_order([fold]) for fold in found]


def in_order(units: Iterable[Unit]) -> list[Pair]:
    """Return the pairs of units, sorted by name."""
    return sorted((pair for unit in units for pair in unit), key=lambda pair: pair.name)


def divided_groups(splits: Mapping[str, Sequence[Pair]], groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the groups that have images in several splits, and these splits."""
    places: dict[str, dict[str, None]] = {}
    for split, pairs in splits.items():
        for pair in pairs:
            places.setdefault(groups[pair.name], {})[split] = None
    return {group: list(found) for group, found in places.items() if len(found) > 1}
