"""The statistics of a data set that the command `check` shows, as plain values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segtune.data.checks.mask_values import order
from segtune.data.checks.scan import SampleStats
from segtune.data.labels import Value

Facts = dict[str, Any]


def facts(seen: Sequence[SampleStats], cell: int) -> Facts:
    """Return statistics of the readable pairs; objects are compared with a cell of `cell` x `cell` pixels."""
    by_split: dict[str, list[SampleStats]] = {}
    for one in seen:
        by_split.setdefault(one.split, []).append(one)
    return {
        "splits": {split: _foreground(members) for split, members in by_split.items()},
        "photos": _sizes([one.size for one in seen]),
        "photo_values": _ranges(seen),
        "orientation": _orientations(seen),
        "mask_values": _counted([one.values for one in seen]),
        "void": _void(seen),
        "objects": _objects(seen, cell),
    }


def _counted(values: Sequence[Sequence[Value]]) -> dict[str, int]:
    """Return the number of masks that have each value."""
    counts = Counter(value for of_mask in values for value in of_mask)
    return {str(value): counts[value] for value in sorted(counts, key=order)}


def _void(seen: Sequence[SampleStats]) -> Facts:
    """Return the fraction of all pixels that is void, how many masks are wholly void, and the ignored values."""
    pixels = [one.size[0] * one.size[1] for one in seen]
    share = sum(one.void * count for one, count in zip(seen, pixels, strict=True)) / max(1, sum(pixels))
    values = _counted([one.void_values for one in seen])
    return {"share": round(share, 6), "masks": sum(one.void == 1 for one in seen), "values": values}


def _foreground(members: Sequence[SampleStats]) -> Facts:
    """Return how much of the masks is foreground, of pixels that are not void; wholly void masks are in no mean."""
    fractions = [one.fraction for one in members if one.void < 1]
    histogram, _ = np.histogram(fractions, bins=10, range=(0, 1))
    return {
        "pairs": len(members),
        "foreground_mean": round(float(np.mean(fractions or [0.0])), 6),
        "foreground_median": round(float(np.median(fractions or [0.0])), 6),
        "foreground_histogram": histogram.tolist(),
        "empty": sum(fraction == 0 for fraction in fractions),
        "full": sum(fraction == 1 for fraction in fractions),
    }


def _sizes(sizes: Sequence[tuple[int, int]]) -> Mapping[str, Any]:
    if not sizes:
        return {"different_sizes": 0}
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    places = {"smallest": 0, "median": len(sizes) // 2, "largest": -1}
    return {"different_sizes": len(set(sizes))} | {name: list(ordered[place]) for name, place in places.items()}


def _ranges(seen: Sequence[SampleStats]) -> Facts:
    """Return by depth in bits how many photos have it, and their largest value."""
    by_depth: dict[str, list[int]] = {}
    for one in seen:
        if one.range:
            by_depth.setdefault(str(one.range.depth), []).append(one.range.largest)
    return {depth: {"photos": len(found), "largest": max(found)} for depth, found in sorted(by_depth.items())}


def _orientations(seen: Sequence[SampleStats]) -> Facts:
    """Return how many photos and masks the orientation of their files turns, and where it turns only one of both."""
    turned = [one for one in seen if one.orientations != (1, 1)]
    return {
        "photos": sum(one.orientations[0] > 1 for one in turned),
        "masks": sum(one.orientations[1] > 1 for one in turned),
        "photos_without_their_masks": [str(one) for one in turned if one.orientations[1] == 1],
        "undecided": [str(one) for one in turned if one.turned_apart],
    }


def _objects(seen: Sequence[SampleStats], cell: int) -> Facts:
    """Return statistics of the objects at the network's size; one with a smaller area than a cell is small."""
    measured = [(one, one.stats) for one in seen if one.stats and len(one.stats.areas)]
    if not measured:
        return {"cell": cell, "objects": 0}
    areas = np.concatenate([stats.areas for _, stats in measured])
    small = areas < cell**2
    smallest, stats = min(measured, key=lambda each: each[1].areas.min())
    return {
        "cell": cell,
        "objects": len(areas),
        "smallest_area": int(areas.min()),
        "smallest_side": int(stats.sides[stats.areas.argmin()]),
        "smallest_in": str(smallest),
        "median_area": float(np.median(areas)),
        "small_objects": int(small.sum()),
        "small_foreground": round(float(areas[small].sum() / areas.sum()), 6),
        "pictures": len(measured),
        "pictures_with_small": sum(bool((stats.areas < cell**2).any()) for _, stats in measured),
        "pictures_of_small_only": sum(bool((stats.areas < cell**2).all()) for _, stats in measured),
    }
