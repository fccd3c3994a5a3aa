"""The summary of an evaluation as plain values: scores with confidence intervals, thresholds, subgroups, curves."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segtune.evaluation.evaluator import Evaluation
from segtune.evaluation.selection import warnings_of
from segtune.evaluation.subgroups import Labels, order
from segtune.metrics.bootstrap import interval, mean_interval
from segtune.metrics.boundary import boundary_f
from segtune.metrics.curves import best_threshold, calibration, counts_at, dice_curve, plain, precision_recall
from segtune.metrics.overlap import Empty, per_image, summarise

Array = NDArray[np.float64]
Facts = dict[str, Any]

#: A group with fewer images has no interval, and is left out of the gap between the best and the worst.
SMALL_GROUP = 5

_POOLED = {"dice_pooled": "dice", "iou_pooled": "iou", "precision": "precision", "recall": "recall"}


def scores_per_image(result: Evaluation, empty: Empty) -> dict[str, Array]:
    """Return Dice, IoU, precision, recall and boundary F-score of every image, (N,) each; NaN where left out."""
    each = {name: values.numpy() for name, values in per_image(result.counts, empty).items()}
    boundary = _ruled(boundary_f(result.detailed.boundaries.numpy()), _empty(result), empty)
    return each | {"boundary_f": np.where(is_void(result), np.nan, boundary)}


def is_void(result: Evaluation) -> NDArray[np.bool_]:
    """Return which images are wholly void, so that they have no scores."""
    return (result.counts.sum(1) == 0).numpy()


def assess(result: Evaluation, empty: Empty, resamples: int, groups: Mapping[str, Labels] | None = None) -> Facts:
    """Return the summary of an evaluation.

    Args:
        result: From the evaluator.
        empty: The rule for images without true foreground.
        resamples: Number of resamples of the bootstrap.
        groups: By name, the group of each image.

    Returns:
        `dice_mean`, `dice_pooled`, …, `intervals` (95 %, by the scores' names), `warnings`, `empty_pictures` (scores
        of images without foreground), `void` (what is left out), `curves`, `groups` and `gaps`.
    """
    each = scores_per_image(result, empty)
    scores, intervals = asdict(summarise(result.counts, empty)), dict[str, list[float]]()
    for name, values in each.items():
        scores[f"{name}_mean"] = mean(values)
        intervals[f"{name}_mean"] = _rounded(mean_interval(values, resamples))
    intervals["dice_object"] = _rounded(mean_interval(each["dice"][~_empty(result)], resamples))
    counted = ~is_void(result)
    cells = list(result.counts.numpy()[counted].T.astype(float))
    for key, name in _POOLED.items():
        intervals[key] = _rounded(interval(partial(_pooled, name, empty), cells, resamples))
    boundaries = [*result.detailed.boundaries.numpy()[counted].T.astype(float), cells[0] + cells[2]]
    scores["boundary_f_pooled"] = float(_boundary(empty, *boundaries)) if counted.any() else float("nan")
    intervals["boundary_f_pooled"] = _rounded(interval(partial(_boundary, empty), boundaries, resamples))
    facts: Facts = scores | {"intervals": intervals, "warnings": warnings_of(result.scores)}
    facts["empty_pictures"] = _about_empty(result, each["dice"])
    facts["void"] = _about_void(result)
    found = {name: _groups(labels, each["dice"], result, empty, resamples) for name, labels in (groups or {}).items()}
    facts["groups"] = {name: rows for name, rows in found.items() if rows}
    facts["gaps"] = {name: gap for name, rows in facts["groups"].items() if (gap := _gap(rows))}
    return facts | {"curves": _curves(result, empty)}


def choose_threshold(result: Evaluation, empty: Empty) -> tuple[float, float] | None:
    """Return the threshold of the best mean Dice, and this Dice; None if no image with an object has a Dice above 0.

    At a threshold that finds no object nothing is found, whatever images without an object score.
    """
    dices = dice_curve(result.detailed.histograms, empty)
    dices[~(dice_curve(result.detailed.histograms, "skip") > 0)] = np.nan
    if np.isnan(dices).all():
        return None
    return best_threshold(dices), float(np.nanmax(dices))


def dice_at(result: Evaluation, threshold: float, empty: Empty) -> Array:
    """Return the Dice of every image at another threshold."""
    return per_image(counts_at(result.detailed.histograms, threshold), empty)["dice"].numpy()


def compare_paired(first: Array, second: Array, resamples: int) -> Facts:
    """Return a paired comparison of two models: the mean of second - first over the images, with its interval."""
    differences = second - first
    low, high = mean_interval(differences, resamples)
    valid = differences[~np.isnan(differences)]
    return {
        "difference": mean(differences),
        "interval": _rounded((low, high)),
        "better": int((valid > 0).sum()),
        "worse": int((valid < 0).sum()),
        "images": len(valid),
    }


def _about_empty(result: Evaluation, dices: Array) -> Facts:
    without = _empty(result)
    alarms = result.counts[:, 1].numpy()[without] > 0
    return {
        "images": int(without.sum()),
        "with_false_alarm": int(alarms.sum()),
        "dice_mean_of_others": mean(dices[~without]),
    }


def _about_void(result: Evaluation) -> Facts:
    void, counted = int(result.detailed.void.sum()), int(result.counts.sum())
    return {"share": void / max(1, void + counted), "images": int(is_void(result).sum())}


def _groups(labels: Labels, dices: Array, result: Evaluation, empty: Empty, resamples: int) -> list[Facts]:
    rows, of = [], np.array(labels)
    for name in order(labels):
        inside = (of == name) & ~is_void(result)
        if not inside.any():
            continue
        values, counted = dices[inside], result.counts[torch.from_numpy(inside)]
        rows.append(
            {
                "group": name,
                "images": int(inside.sum()),
                "dice_mean": mean(values),
                "interval": _rounded(mean_interval(values if len(values) >= SMALL_GROUP else values[:0], resamples)),
                "dice_pooled": summarise(counted, empty).dice_pooled,
            }
        )
    return rows


def _gap(rows: list[Facts]) -> Facts | None:
    """Return the gap between the best and the worst of the groups with enough images."""
    eligible = [row for row in rows if row["images"] >= SMALL_GROUP and not np.isnan(row["dice_mean"])]
    if len(eligible) < 2:
        return None
    best, worst = (choose(eligible, key=lambda row: row["dice_mean"]) for choose in (max, min))
    gap = best["dice_mean"] - worst["dice_mean"]
    return {"gap": gap, "best": best["group"], "worst": worst["group"]} if gap else None


def _curves(result: Evaluation, empty: Empty) -> Facts:
    histograms = result.detailed.histograms
    pr, reliability = precision_recall(histograms), calibration(histograms)
    return {
        "dice": plain(dice_curve(histograms, empty)),
        "precision": plain(pr.precision),
        "recall": plain(pr.recall),
        "average_precision": pr.average_precision,
        "calibration": {
            "error": reliability.error,
            "pixels": [int(count) for count in reliability.pixels],
            "probability": plain(reliability.probability),
            "share": plain(reliability.fraction),
        },
    }


def _empty(result: Evaluation) -> NDArray[np.bool_]:
    return np.asarray((result.counts[:, 0] + result.counts[:, 2] == 0).numpy() & ~is_void(result))


def mean(values: Array) -> float:
    """Return the mean of the values that are not NaN; NaN without any."""
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")


def _rounded(ends: tuple[float, float]) -> list[float]:
    return [round(end, 6) for end in ends]


def _pooled(name: str, empty: Empty, *cells: Array, axis: int = -1) -> Array:
    """Return a micro-averaged score; the rule for images without foreground holds for the sums of counts."""
    sums = np.stack([part.sum(axis) for part in cells], axis=-1).astype(np.int64)
    scores = per_image(torch.from_numpy(sums.reshape(-1, 4)), empty)[name].numpy()
    return np.asarray(scores.reshape(sums.shape[:-1]))


def _boundary(empty: Empty, *columns: Array, axis: int = -1) -> Array:
    *boundaries, foreground = (column.sum(axis) for column in columns)
    return _ruled(boundary_f(np.stack(boundaries, axis=-1)), foreground == 0, empty)


def _ruled(scores: Array, without: NDArray[np.bool_], empty: Empty) -> Array:
    """Return boundary scores with the rule for images without foreground applied."""
    return scores if empty == "one" else np.where(without, 0.0 if empty == "zero" else np.nan, scores)
