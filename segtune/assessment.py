"""What an evaluation says: scores with intervals, thresholds, groups, doubtful masks; plain values, ready to show."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtune.boundaries import boundary_f
from segtune.config import known
from segtune.curves import best_threshold, calibration, counts_at, dice_curve, plain, precision_recall
from segtune.evaluation import Evaluation
from segtune.groups import Labels, order
from segtune.intervals import interval, mean_interval
from segtune.metrics import Empty, per_image, summarise

Array = NDArray[np.float64]
Facts = dict[str, Any]

#: A group with fewer pictures does not count for the gap between the best and the worst.
SMALL_GROUP = 5


def scores_of_pictures(result: Evaluation, empty: Empty) -> dict[str, Array]:
    """Give Dice, IoU, precision, recall and boundary F-score of every picture, (N,) each; NaN where left out."""
    each = {name: values.numpy() for name, values in per_image(result.counts, empty).items()}
    boundary = boundary_f(known(result.details).boundaries.numpy())
    without = _empty(result)
    if empty == "zero":
        boundary = np.where(without, 0.0, boundary)
    elif empty == "skip":
        boundary = np.where(without, np.nan, boundary)
    return each | {"boundary_f": boundary}


def assess(result: Evaluation, empty: Empty, resamples: int, groups: Mapping[str, Labels] | None = None) -> Facts:
    """Score an evaluation.

    Args:
        result: What the evaluator found.
        empty: The rule for pictures without true foreground.
        resamples: Of the bootstrap.
        groups: By a name, the group of each picture.

    Returns:
        `dice_mean`, `dice_pooled`, …, `intervals` (95 %, by the scores' names), `empty` (what happened in pictures
        without foreground), `curves`, `groups` and `gaps`.
    """
    each = scores_of_pictures(result, empty)
    scores, intervals = asdict(summarise(result.counts, empty)), dict[str, list[float]]()
    for name, values in each.items():
        scores[f"{name}_mean"] = _nanmean(values)
        intervals[f"{name}_mean"] = _rounded(mean_interval(values, resamples))
    counted = result.counts.numpy().astype(float)
    tp, fp, fn, _ = counted.T
    pooled = {"dice_pooled": _dice, "iou_pooled": _iou, "precision": _precision, "recall": _recall}
    for name, statistic in pooled.items():
        intervals[name] = _rounded(interval(statistic, [tp, fp, fn], resamples))
    boundaries = known(result.details).boundaries.numpy()
    scores["boundary_f_pooled"] = float(boundary_f(boundaries.sum(0)))
    intervals["boundary_f_pooled"] = _rounded(interval(_boundary, list(boundaries.T.astype(float)), resamples))
    facts: Facts = scores | {"intervals": intervals, "empty_pictures": _about_empty(result, each["dice"])}
    found = {name: _groups(labels, each["dice"], result, resamples) for name, labels in (groups or {}).items()}
    facts["groups"] = {name: rows for name, rows in found.items() if rows}
    facts["gaps"] = {name: gap for name, rows in facts["groups"].items() if (gap := _gap(rows))}
    return facts | {"curves": _curves(result, empty)}


def choose_threshold(result: Evaluation, empty: Empty) -> tuple[float, float]:
    """Give the threshold of the best mean Dice, and this Dice."""
    dices = dice_curve(known(result.details).histograms, empty)
    best = best_threshold(dices)
    return best, float(dices[round(best * (len(dices) + 1)) - 1])


def dice_at(result: Evaluation, threshold: float, empty: Empty) -> Array:
    """Give Dice of every picture at another threshold."""
    return per_image(counts_at(known(result.details).histograms, threshold), empty)["dice"].numpy()


def compare_pictures(first: Array, second: Array, resamples: int) -> Facts:
    """Compare two models picture by picture: the mean of second - first, with its interval."""
    differences = second - first
    low, high = mean_interval(differences, resamples)
    valid = differences[~np.isnan(differences)]
    return {
        "difference": _nanmean(differences),
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
        "dice_mean_of_others": _nanmean(dices[~without]),
    }


def _groups(labels: Labels, dices: Array, result: Evaluation, resamples: int) -> list[Facts]:
    rows, of = [], np.array(labels)
    for name in order(labels):
        inside = of == name
        values, (tp, fp, fn, _) = dices[inside], result.counts.numpy()[inside].sum(0)
        rows.append(
            {
                "group": name,
                "images": int(inside.sum()),
                "dice_mean": _nanmean(values),
                "interval": _rounded(mean_interval(values, resamples)),
                "dice_pooled": float(2 * tp / (2 * tp + fp + fn)) if tp + fp + fn else float("nan"),
            }
        )
    return rows


def _gap(rows: list[Facts]) -> Facts | None:
    """Compare the best group with the worst, of those with enough pictures."""
    able = [row for row in rows if row["images"] >= SMALL_GROUP and not np.isnan(row["dice_mean"])]
    if len(able) < 2:
        return None
    best, worst = (choose(able, key=lambda row: row["dice_mean"]) for choose in (max, min))
    return {"gap": best["dice_mean"] - worst["dice_mean"], "best": best["group"], "worst": worst["group"]}


def _curves(result: Evaluation, empty: Empty) -> Facts:
    histograms = known(result.details).histograms
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
            "share": plain(reliability.share),
        },
    }


def _empty(result: Evaluation) -> NDArray[np.bool_]:
    return (result.counts[:, 0] + result.counts[:, 2] == 0).numpy()


def _nanmean(values: Array) -> float:
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")


def _rounded(ends: tuple[float, float]) -> list[float]:
    return [round(end, 6) for end in ends]


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _dice(tp: Array, fp: Array, fn: Array, axis: int = -1) -> Array:
    tp, fp, fn = tp.sum(axis), fp.sum(axis), fn.sum(axis)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _iou(tp: Array, fp: Array, fn: Array, axis: int = -1) -> Array:
    tp, fp, fn = tp.sum(axis), fp.sum(axis), fn.sum(axis)
    return _ratio(tp, tp + fp + fn)


def _precision(tp: Array, fp: Array, fn: Array, axis: int = -1) -> Array:
    return _ratio(tp.sum(axis), (tp + fp).sum(axis))


def _recall(tp: Array, fp: Array, fn: Array, axis: int = -1) -> Array:
    return _ratio(tp.sum(axis), (tp + fn).sum(axis))


def _boundary(*columns: Array, axis: int = -1) -> Array:
    return boundary_f(np.stack([column.sum(axis) for column in columns], axis=-1))
