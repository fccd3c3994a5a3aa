"""What the command `check` finds beyond the checks before training, and the facts of a data set as plain values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segtune.config import some
from segtune.data.likeness import FLAT, Likeness
from segtune.data.pairs import Problem
from segtune.data.survey import Seen

# Masks are taken for inverted when foreground is all around the picture in few, or around most pictures.
_ALL_AROUND, _RARELY, _MOSTLY = 0.98, 0.25, 0.75

Facts = dict[str, Any]


def findings(seen: Sequence[Seen], near: Sequence[Likeness]) -> list[Problem]:
    """List what the closer look and the search for near-duplicates found; the latter count as errors."""
    problems = []
    for each in near:
        text = f"near-duplicates in two splits: {each}; scores would be too good: keep one, or both in one split"
        problems.append(Problem("error", each.first.pair.name, text))
    for one in seen:
        where = f"images/{one.pair.photo.name}"
        if one.close and one.close.spread < FLAT:
            text = f"nearly one colour: its grey values spread by {one.close.spread:.1f} of 255; is it a photo?"
            problems.append(Problem("warning", where, text))
        if one.close and one.close.pictures > 1:
            text = f"several pictures in one file: of {one.close.pictures} the first is used"
            problems.append(Problem("warning", where, text))
    lost = [str(one) for one in seen if one.close and one.share and not len(one.close.areas)]
    if lost:
        text = f"foreground lost by resizing: {len(lost)} masks are empty at the network's size: {some(lost)}"
        problems.append(Problem("warning", "masks", f"{text}; a larger data.image_size keeps it"))
    return problems + _inverted(seen)


def _inverted(seen: Sequence[Seen]) -> list[Problem]:
    """Look for masks whose foreground is around the picture rather than in it, as background mostly is."""
    looked = [(one, one.close.border) for one in seen if one.close and 0 < one.share < 1]
    if not looked:
        return []
    usual = float(np.median([border for _, border in looked]))
    if usual > _MOSTLY and np.mean([one.share for one, _ in looked]) > 0.5:
        text = f"perhaps all inverted: in half of the masks at least {usual:.0%} of the picture's border is foreground"
        return [Problem("warning", "masks", f"{text}; if that is the background, set data.invert=true")]
    odd = [one for one, border in looked if border >= _ALL_AROUND and one.share > 0.5]
    if usual > _RARELY or not odd:
        return []
    text = "perhaps inverted: the picture's whole border is foreground, unlike that of most masks"
    return [Problem("warning", f"masks/{one.pair.mask.name}", text) for one in odd]


def facts(seen: Sequence[Seen], cell: int) -> Facts:
    """Give the facts of the readable pairs; objects are compared with a cell of `cell` x `cell` pixels."""
    by_split: dict[str, list[float]] = {}
    for one in seen:
        by_split.setdefault(one.split, []).append(one.share)
    values = Counter(value for one in seen for value in one.values)
    return {
        "splits": {split: _shares(shares) for split, shares in by_split.items()},
        "photos": _sizes([one.size for one in seen]),
        "mask_values": {str(value): values[value] for value in sorted(values)},
        "objects": _objects(seen, cell),
    }


def _shares(shares: Sequence[float]) -> Facts:
    histogram, _ = np.histogram(shares, bins=10, range=(0, 1))
    return {
        "pairs": len(shares),
        "foreground_mean": round(float(np.mean(shares)), 6),
        "foreground_median": round(float(np.median(shares)), 6),
        "foreground_histogram": histogram.tolist(),
        "empty": sum(share == 0 for share in shares),
        "full": sum(share == 1 for share in shares),
    }


def _sizes(sizes: Sequence[tuple[int, int]]) -> Mapping[str, Any]:
    if not sizes:
        return {"different_sizes": 0}
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    places = {"smallest": 0, "median": len(sizes) // 2, "largest": -1}
    return {"different_sizes": len(set(sizes))} | {name: list(ordered[place]) for name, place in places.items()}


def _objects(seen: Sequence[Seen], cell: int) -> Facts:
    """Measure the objects at the network's size; one of a smaller area than a cell counts as small."""
    looked = [(one, one.close) for one in seen if one.close and len(one.close.areas)]
    if not looked:
        return {"cell": cell, "objects": 0}
    areas = np.concatenate([close.areas for _, close in looked])
    small = areas < cell**2
    smallest, close = min(looked, key=lambda each: each[1].areas.min())
    return {
        "cell": cell,
        "objects": len(areas),
        "smallest_area": int(areas.min()),
        "smallest_side": int(close.sides[close.areas.argmin()]),
        "smallest_in": str(smallest),
        "median_area": float(np.median(areas)),
        "small_objects": int(small.sum()),
        "small_foreground": round(float(areas[small].sum() / areas.sum()), 6),
        "pictures": len(looked),
        "pictures_with_small": sum(bool((close.areas < cell**2).any()) for _, close in looked),
        "pictures_of_small_only": sum(bool((close.areas < cell**2).all()) for _, close in looked),
    }
