"""Check a whole data set before training and list all that is wrong at once (the idea is nnU-Net's)."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtune.data.images import Foreground, ImageError, read_mask, read_photo
from segtune.data.pairs import Pair, Problem

# A mask with more distinct values than this holds blurred edges rather than ids.
_MOST_IDS = 16
_LOSSY = frozenset({".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class _Seen:
    """What one look at a readable pair leaves behind: a few bytes, so that any number of pairs fits."""

    split: str
    pair: Pair
    digest: bytes
    values: tuple[int, ...]
    share: float  # of the mask that is foreground, 0 to 1

    def __str__(self) -> str:
        return f"{self.split} {self.pair.name}"


def check_data(
    splits: Mapping[str, Sequence[Pair]],
    foreground: Foreground,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Read every pair once and list all problems.

    Errors: unreadable files, photo and mask of different size, mask values that `foreground` cannot judge,
    training masks that are all empty or all full, a picture in two splits. Warnings: masks without
    foreground, a picture twice in one split. Pictures are compared by their decoded pixels, so a copy in
    another lossless format counts as the same.

    Args:
        splits: The pairs by split name; `train` is the one that must hold both classes.
        foreground: The rule that says which mask values are the object.
        workers: Threads, at least one (Pillow decodes outside the interpreter's lock).
        progress: Called in this thread after each pair with the number done and the number of all.
    """
    pairs = [(split, pair) for split, chosen in splits.items() for pair in chosen]
    seen: list[_Seen] = []
    problems: list[Problem] = []
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        looks = pool.map(lambda item: _look(item[0], item[1], foreground), pairs)
        for done, (found, wrong) in enumerate(looks, start=1):
            seen += found
            problems += wrong
            if progress:
                progress(done, len(pairs))
    finally:
        pool.shutdown(cancel_futures=True)  # else Ctrl-C would first wait for every pair
    return problems + (_rule_problems(seen, foreground) or _class_problems(seen)) + _duplicates(seen)


def report(problems: Iterable[Problem], most: int = 20) -> str:
    """List problems one a line, errors first and grouped by kind, at most `most` lines of each kind."""
    lines = []
    for _, group in groupby(sorted(problems, key=_kind), key=_kind):
        members = list(group)
        lines += [str(problem) for problem in members[:most]]
        if len(members) > most:
            lines.append(f"... and {len(members) - most} more of this kind")
    return "\n".join(lines)


def _kind(problem: Problem) -> tuple[str, str]:
    return problem.level, problem.text.partition(":")[0]  # "error" sorts before "warning"


def _look(split: str, pair: Pair, foreground: Foreground) -> tuple[list[_Seen], list[Problem]]:
    problems: list[Problem] = []
    photo = _read(read_photo, pair.photo, problems)
    mask = _read(read_mask, pair.mask, problems)
    if photo is None or mask is None:
        return [], problems
    if photo.shape[:2] != mask.shape:
        problems.append(Problem("error", pair.name, _size_text(photo.shape, mask.shape)))
    values, counts = _count(mask)
    share = float(counts[foreground(values)].sum() / counts.sum())
    digest = hashlib.sha256(repr(photo.shape).encode())
    digest.update(photo.data)
    return [_Seen(split, pair, digest.digest(), tuple(values.tolist()), share)], problems


def _read(read: Callable[..., NDArray[Any]], path: Path, problems: list[Problem]) -> NDArray[Any] | None:
    try:
        return read(path)
    except ImageError as error:
        problems.append(Problem("error", f"{path.parent.name}/{path.name}", f"unreadable: {error.reason}"))
        return None


def _count(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Count the distinct values of a mask; 8-bit ones without sorting, which is several times faster."""
    if mask.dtype != np.uint8:
        return np.unique(mask, return_counts=True)
    counts = np.bincount(mask.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    return values, counts[values]


def _size_text(photo: tuple[int, ...], mask: tuple[int, ...]) -> str:
    text = f"sizes differ: photo {photo[0]} x {photo[1]}, mask {mask[0]} x {mask[1]} (height x width)"
    if photo[:2] == mask[::-1]:
        return (
            f"{text}; they are each other's transpose: the photo is turned by its EXIF orientation and "
            "the mask was perhaps made without it; rotate the mask"
        )
    return f"{text}; a mask needs the size of its photo"


def _rule_problems(seen: Sequence[_Seen], foreground: Foreground) -> list[Problem]:
    """Compare the rule with the values that occur in the whole data set."""
    rule = foreground.rule
    masks = Counter(value for one in seen for value in one.values)
    if not masks or rule == "nonzero":
        return []
    if rule == "auto":
        return _ambiguity(seen, {value: count for value, count in masks.items() if value})
    if isinstance(rule, int):
        if max(masks) >= rule:
            return []
        text = f"no mask reaches data.foreground={rule}: the greatest value is {max(masks)}"
        return [Problem("error", "masks", f"{text}; {_list_values(masks)}")]
    if unknown := [value for value in rule if value not in masks]:
        text = f"ids of data.foreground that occur in no mask: {', '.join(map(str, unknown))}"
        return [Problem("error", "masks", f"{text}; {_list_values(masks)}")]
    return []


def _ambiguity(seen: Sequence[_Seen], masks: Mapping[int, int]) -> list[Problem]:
    if len(masks) < 2:
        return []
    most_values = max(len(one.values) for one in seen)
    lossy = any(len(one.values) > 2 and one.pair.mask.suffix.lower() in _LOSSY for one in seen)
    if lossy or most_values > _MOST_IDS:
        advice = (
            f"This looks like grey edges from JPEG or anti-aliasing ({most_values} values in one mask): take "
            f"the bright half with data.foreground={(max(masks) + 1) // 2}."
        )
    else:
        common = max(sorted(masks), key=masks.__getitem__)
        advice = (
            f"This looks like ids of several classes: name those you want, as in data.foreground=[{common}], "
            "or take all of them with data.foreground=nonzero."
        )
    start = f"ambiguous mask values: data.foreground=auto needs one value beside 0, found {len(masks)}; "
    return [Problem("error", "masks", f"{start}{_list_values(masks)}. {advice}")]


def _list_values(masks: Mapping[int, int], most: int = 8) -> str:
    """Name the commonest values with the number of masks that hold each."""
    common = sorted(sorted(masks, key=lambda value: (-masks[value], value))[:most])
    listed = ", ".join(f"{value} in {masks[value]}" for value in common)
    return f"values (in so many masks): {listed}" + (", ..." if len(masks) > most else "")


def _class_problems(seen: Sequence[_Seen]) -> list[Problem]:
    """Look for masks that hold one class only."""
    problems = []
    check = "check data.foreground and data.invert"
    train = [one.share for one in seen if one.split == "train"]
    if train and max(train) == 0:
        text = f"no training mask has any foreground: all {len(train)} are empty; {check}"
        return [Problem("error", "train", text)]
    if train and min(train) == 1:
        text = f"no training mask has any background: all {len(train)} are full; {check}"
        problems.append(Problem("error", "train", text))
    empty = [str(one) for one in seen if one.share == 0]
    if empty:
        names = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        text = f"no foreground: {len(empty)} of {len(seen)} masks ({len(empty) / len(seen):.1%}): {names}"
        problems.append(Problem("warning", "masks", text))
    return problems


def _duplicates(seen: Sequence[_Seen]) -> list[Problem]:
    groups: dict[bytes, list[_Seen]] = {}
    for one in seen:
        groups.setdefault(one.digest, []).append(one)
    problems = []
    for group in groups.values():
        if len({one.split for one in group}) > 1:
            text = "the same picture in two splits: scores would be too good; keep one of "
            problems.append(Problem("error", group[0].pair.name, text + ", ".join(map(str, group))))
        elif len(group) > 1:
            text = "the same picture twice in one split: " + ", ".join(map(str, group))
            problems.append(Problem("warning", group[0].pair.name, text))
    return problems
