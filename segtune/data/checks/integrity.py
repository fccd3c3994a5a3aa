"""Check a whole data set before training and list all problems at once (as nnU-Net does)."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from segtune.data.checks.mask_values import list_values, value_problems
from segtune.data.checks.near_duplicates import FLAT, NearDuplicate
from segtune.data.checks.photo_problems import photo_problems
from segtune.data.checks.scan import SampleStats, scan
from segtune.data.checks.void_pixels import void_problems
from segtune.data.labels import Foreground, is_background
from segtune.data.sources.base import Pair, Problem, place
from segtune.errors import some


def check_data(
    splits: Mapping[str, Sequence[Pair]],
    foreground: Foreground,
    *,
    workers: int,
    max_value: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[SampleStats], list[Problem]]:
    """Read every pair once and return statistics of the readable ones, and all problems.

    Errors: unreadable files, photos that are too small or their own masks, photo and mask of different size, mask
    values that `foreground` does not cover, training masks that are all empty, all full or wholly void, an image in two
    splits. Warnings: photos that look like masks, masks without foreground or perhaps inverted, grey edges or void
    pixels taken as foreground, wholly void masks, an image twice in one split. Images are compared by their decoded
    pixels, so a copy in another lossless format counts as the same. `photo_problems` adds others.

    Args:
        splits: The pairs by split name; `train` is the one that must hold both classes.
        foreground: The rule for which mask values are foreground.
        workers: Threads, at least one (Pillow decodes without the global interpreter lock).
        max_value: The 16-bit value that is white in photos; None for 65535.
        progress: Called in this thread after each pair with the number of pairs done and in all.
    """
    seen, problems = scan(splits, foreground, workers=workers, max_value=max_value, progress=progress)
    return seen, problems + judge(seen, foreground, max_value)


def judge(seen: Sequence[SampleStats], foreground: Foreground, max_value: int | None = None) -> list[Problem]:
    """Return the problems of the readable pairs of a data set as a whole."""
    problems = value_problems(seen, foreground)
    if not any(problem.level == "error" for problem in problems):
        labelled = [one for one in seen if one.void < 1]
        problems += _class_problems(labelled, foreground) + _inverted(labelled, foreground)
    problems += void_problems(seen, foreground)
    return photo_problems(seen, max_value) + problems + _duplicates(seen)


def report(problems: Iterable[Problem], most: int = 20) -> str:
    """Return problems one per line, errors first and grouped by kind, at most `most` lines of each kind."""
    lines = []
    for _, group in groupby(sorted(problems, key=_kind), key=_kind):
        members = list(group)
        lines += [str(problem) for problem in members[:most]]
        if len(members) > most:
            lines.append(f"... and {len(members) - most} more of this kind")
    return "\n".join(lines)


def _kind(problem: Problem) -> tuple[str, str]:
    return problem.level, problem.text.partition(":")[0]  # "error" sorts before "warning"


def _class_problems(seen: Sequence[SampleStats], foreground: Foreground) -> list[Problem]:
    """Return problems of masks with only one class."""
    problems = []
    check = "check data.foreground" + (", data.ignore" if foreground.ignore else "") + " and data.invert"
    values = {value for one in seen for value in one.values}
    if len(values) == 1:
        check += f" (every mask is {values.pop()} everywhere)"
    fractions_of: dict[str, list[float]] = {}
    for one in seen:
        fractions_of.setdefault(one.split, []).append(one.fraction)
    train = fractions_of.get("train", [])
    if train and max(train) == 0:
        text = f"no training mask has any foreground: all {len(train)} are empty; {check}"
        return [Problem("error", "train", text)]
    if train and min(train) == 1:
        text = f"no training mask has any background: all {len(train)} are full; {check}"
        problems.append(Problem("error", "train", text))
    elif seen and all(one.fraction == 1 for one in seen):
        text = f"no mask has any background: all {len(seen)} are full; {check}"
        problems.append(Problem("error", "masks", text))
    for split, fractions in fractions_of.items():
        if split != "train" and max(fractions) == 0:
            text = f"no object in this split: all {len(fractions)} masks are empty, so its scores say only whether "
            text += "there are false alarms" + (", and no epoch is chosen as the best" if split == "val" else "")
            problems.append(Problem("warning", split, f"{text}; {check}"))
    empty = [str(one) for one in seen if one.fraction == 0]
    if empty:
        text = f"no foreground: {len(empty)} of {len(seen)} masks ({len(empty) / len(seen):.1%}): {some(empty)}"
        text += _not_taken([one for one in seen if one.fraction == 0], foreground)
        problems.append(Problem("warning", "masks", text))
    return problems


def _not_taken(empty: Sequence[SampleStats], foreground: Foreground) -> str:
    """Return what empty masks hold besides the background, if the rule takes it for background too."""
    if foreground.invert or not isinstance(foreground.rule, int):
        return ""  # ids of other classes are usual in masks of several classes
    left = [one for one in empty if not all(map(is_background, one.values))]
    if not left:
        return ""
    values = Counter(value for one in left for value in one.values if not is_background(value))
    text = f"; {len(left)} of them hold values below data.foreground={foreground.rule}"
    return f"{text}: {list_values(values)}; if they are the object in these masks, set data.foreground=nonzero"


def _duplicates(seen: Sequence[SampleStats]) -> list[Problem]:
    groups: dict[bytes, list[SampleStats]] = {}
    for one in seen:
        groups.setdefault(one.checksum, []).append(one)
    problems = []
    for group in groups.values():
        if len({one.split for one in group}) > 1:
            text = "the same image in two splits: scores would be optimistically biased; keep one of "
            problems.append(Problem("error", group[0].pair.name, text + some(list(map(str, group)), 10)))
        elif len(group) > 1:
            text = "the same image twice in one split: " + some(list(map(str, group)), 10)
            problems.append(Problem("warning", group[0].pair.name, text))
    return problems


def small_objects(objects: Mapping[str, Any], tap: str) -> list[Problem]:
    """Return a problem if all objects, or all in half of the images, are smaller than a cell of the deepest tap.

    Args:
        objects: What `statistics.facts` says of the objects.
        tap: The name of the deepest tap.
    """
    if not objects["objects"]:
        return []
    few, cell = objects["pictures_of_small_only"] / objects["pictures"], objects["cell"]
    if few < 0.5:
        return []
    which = f"all {objects['objects']} objects" if few == 1 else f"all objects in {few:.0%} of the images with objects"
    text = (
        f"small objects: {which} are smaller than a cell of the deepest tap, {tap} ({cell} x {cell} pixels at the "
        "network's input size), where they share a cell with their surroundings; increase data.image_size, or use a "
        "shallower tap or a smaller backbone.output_stride"
    )
    return [Problem("warning", "masks", text)]


# Masks look inverted when foreground is all around the image in a few masks, or around most images.
_ALL_AROUND, _RARELY, _MOSTLY = 0.98, 0.25, 0.75


def findings(seen: Sequence[SampleStats], near: Sequence[NearDuplicate]) -> list[Problem]:
    """Return the problems found by image statistics and by the search for near-duplicates, which are errors."""
    problems = []
    for each in near:
        text = f"near-duplicates in two splits: {each}; scores would be optimistically biased: "
        text += "keep one, or both in one split"
        problems.append(Problem("error", each.first.pair.name, text))
    for one in seen:
        where = place(one.pair.photo)
        dark = one.range and one.range.depth > 8 and one.range.is_nearly_black  # another finding says so
        if one.stats and one.stats.spread < FLAT and not dark:
            text = f"nearly one colour: the standard deviation of its grey values is {one.stats.spread:.1f} of 255"
            problems.append(Problem("warning", where, text))
    lost = [str(one) for one in seen if one.stats and one.fraction and not len(one.stats.areas)]
    if lost:
        text = f"foreground lost by resizing: {len(lost)} masks are empty at the network's input size: {some(lost)}"
        problems.append(Problem("warning", "masks", f"{text}; increase data.image_size"))
    return problems


def _inverted(seen: Sequence[SampleStats], foreground: Foreground) -> list[Problem]:
    """Return problems of masks whose foreground surrounds the image, as background usually does."""
    measured = [(one, one.border) for one in seen if 0 < one.fraction < 1]
    if not measured:
        return []
    around = [one for one, border in measured if border >= _ALL_AROUND and one.fraction > 0.5]
    clear = [str(one) for one, border in measured if border <= 1 - _ALL_AROUND and one.fraction < 0.5]
    usual = float(np.median([border for _, border in measured]))
    if usual > _MOSTLY and np.mean([one.fraction for one, _ in measured]) > 0.5:
        text = f"perhaps all inverted: in half of the masks at least {usual:.0%} of the image's border is foreground"
        text += f"; if that is the background, set data.invert={'false' if foreground.invert else 'true'}"
        text += f", and invert the masks in which it is nowhere on the border: {some(clear)}" if clear else ""
        return [Problem("warning", "masks", text)]
    if usual > _RARELY:
        if len(around) + len(clear) < _MOSTLY * len(measured) or not (around and clear):
            return []
        text = (
            f"perhaps half inverted: foreground is the image's whole border in {len(around)} masks and none of it in "
        )
        text += f"{len(clear)}, as where the object is white in some masks and black in others: compare "
        return [Problem("warning", "masks", f"{text}{around[0]} and {clear[0]}")]
    text = "perhaps inverted: the image's whole border is foreground, unlike that of most masks"
    return [Problem("warning", place(one.pair.mask), text) for one in around]
