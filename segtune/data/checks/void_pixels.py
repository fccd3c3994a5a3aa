"""Void: which values of masks look like it, and what `data.ignore` leaves of a data set."""

from collections.abc import Collection, Sequence
from typing import Literal

from segtune.data.checks.scan import SampleStats
from segtune.data.labels import Foreground, Value, colour_of, colours_in, number_of
from segtune.data.sources.base import Problem
from segtune.errors import some

# Void in masks of ids, and its colour in PASCAL VOC.
_NUMBER, _COLOUR = 255, 0xE0E0C0
_MOST_LISTED = 16


def void_value(seen: Sequence[SampleStats], others: Collection[Value], *, numbered: bool) -> Value | None:
    """Return which value looks like void, None if none does.

    That is PASCAL VOC's colour of void beside other values; or 255 beside ids, but not as the last of greys spread from
    0 to 255 or of ids up to 255.

    Args:
        seen: The statistics of all masks.
        others: The values in them but for the background.
        numbered: Whether a number means the same in all masks; else only colours tell.
    """
    looks = [value for value in others if colour_of(value) == _COLOUR]
    if not looks and numbered and _ends_in_void(sorted(number_of(value) or 0 for value in others)):
        looks = [value for value in others if number_of(value) == _NUMBER]
    beside = set(others)
    together = [one.values for one in seen if len(beside.intersection(one.values)) > 1]
    return next((void for void in looks if any(void in values for values in together)), None)


def _ends_in_void(numbers: Sequence[int]) -> bool:
    spread = all(abs(n - 255 * k / len(numbers)) <= 1 for k, n in enumerate(numbers, start=1))
    return len(numbers) > 1 and numbers[-1] == _NUMBER and numbers[-2] != _NUMBER - 1 and not spread


def name_of(void: Value) -> str:
    """Return how a setting names what `void_value` has found."""
    return str(_NUMBER) if number_of(void) == _NUMBER else f"#{_COLOUR:06x}"


def on_void(others: Collection[Value], void: Value) -> str:
    """Return a sentence on what void is and on the settings for it."""
    ids = sorted({number for value in others if value != void and (number := number_of(value)) is not None})
    if number_of(void) != _NUMBER:
        beside, background = "other colours", "other colours in data.foreground make"
    else:
        beside = "ids"
        listed = f"data.foreground=[{','.join(map(str, ids))}] makes"
        background = listed if len(ids) <= _MOST_LISTED else "ids without it make"
    name = name_of(void)
    return (
        f" {name} beside {beside} usually means void, pixels without a label: data.ignore={name} leaves it out of loss "
        f"and scores, {background} it background, nonzero makes it object."
    )


def void_problems(seen: Sequence[SampleStats], foreground: Foreground) -> list[Problem]:
    """Return masks that are wholly void, splits of nothing else, and values of `data.ignore` that occur nowhere."""
    problems = []
    splits: dict[str, list[SampleStats]] = {}
    for one in seen:
        splits.setdefault(one.split, []).append(one)
    for split, members in splits.items():
        if all(one.void == 1 for one in members):
            level: Literal["error", "warning"] = "error" if split in ("train", "all") else "warning"
            text = f"nothing but void: no pixel of all {len(members)} masks has a label; check data.ignore"
            problems.append(Problem(level, split, text))
    whole = [str(one) for one in seen if one.void == 1]
    if whole:
        text = f"wholly void: {len(whole)} of {len(seen)} masks, which count nowhere: {some(whole)}; check data.ignore"
        problems.append(Problem("warning", "masks", text))
    if unknown := _unknown(seen, foreground):
        text = f"values of data.ignore that occur in no mask: {', '.join(unknown)}"
        problems.append(Problem("warning", "masks", text))
    return problems


def _unknown(seen: Sequence[SampleStats], foreground: Foreground) -> list[str]:
    found = {value for one in seen for value in one.void_values}
    numbers, colours = {number_of(value) for value in found}, {colour_of(value) for value in found}
    return [
        str(each)
        for each in foreground.ignore
        if each not in numbers and not (isinstance(each, str) and colours_in([each]) <= colours)
    ]
