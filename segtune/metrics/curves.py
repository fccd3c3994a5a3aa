"""Dice, precision and recall over all thresholds, and calibration, from histograms of the probabilities."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtune.metrics.overlap import Empty, per_image

#: Number of probability bins; thresholds are their inner edges.
BINS = 200
THRESHOLDS: NDArray[np.float64] = np.arange(1, BINS) / BINS


def histogram(probability: Tensor, truth: Tensor) -> Tensor:
    """Return the histogram of an image's pixels by probability and truth.

    Args:
        probability: Of foreground, 0 to 1, any shape.
        truth: 0, 1 or `VOID`, of the same number of elements; void pixels are left out.

    Returns:
        `(2, BINS)`, int64, of background and foreground. A probability `p` is in bin `floor(p * BINS)`.
    """
    bins = (probability.flatten() * BINS).long().clamp_(0, BINS - 1)
    bins += BINS * truth.flatten().to(bins).clamp(max=2)
    return torch.bincount(bins, minlength=3 * BINS).view(3, BINS)[:2]


def counts_at(histograms: Tensor, threshold: float) -> Tensor:
    """Return the counts of every image when pixels at or above a threshold are foreground.

    Args:
        histograms: `(N, 2, BINS)`.
        threshold: A multiple of `1 / BINS`.

    Returns:
        TP, FP, FN and TN as `(N, 4)`, int64.
    """
    first = round(threshold * BINS)
    above, below = histograms[..., first:].sum(-1), histograms[..., :first].sum(-1)
    return torch.stack([above[:, 1], above[:, 0], below[:, 1], below[:, 0]], dim=1)


def dice_curve(histograms: Tensor, empty: Empty) -> NDArray[np.float64]:
    """Return the mean Dice over the images at each of `THRESHOLDS`."""
    return np.array([per_image(counts_at(histograms, at), empty)["dice"].nanmean().item() for at in THRESHOLDS])


def best_threshold(dices: NDArray[np.float64]) -> float:
    """Return the threshold of the best mean Dice; the middle one of several, because curves are often flat at the top.

    Raises:
        ValueError: No Dice is defined.
    """
    best = np.flatnonzero(dices == np.nanmax(dices))
    if not len(best):
        raise ValueError("no Dice is defined at any threshold")
    return float(THRESHOLDS[best[len(best) // 2]])


@dataclass(frozen=True)
class PrecisionRecall:
    """Micro-averaged precision and recall at each of `THRESHOLDS`, and the area under the curve."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    average_precision: float


def precision_recall(histograms: Tensor) -> PrecisionRecall:
    """Return precision (1 where nothing is predicted) and recall (1 without foreground) over all pixels.

    The average precision is the sum of precision times the gain in recall from threshold to threshold, from the highest
    to 0 (as scikit-learn's), with the probabilities rounded down to `1 / BINS`.
    """
    background, object_ = histograms.sum(0).double().numpy()
    tp, fp = (np.cumsum(pixels[::-1])[::-1] for pixels in (object_, background))
    precision = np.divide(tp, tp + fp, out=np.ones_like(tp), where=tp + fp > 0)
    recall = tp / tp[0] if tp[0] else np.ones_like(tp)
    gains = recall - np.append(recall[1:], 0.0)
    average = float((gains * precision).sum()) if tp[0] else float("nan")
    return PrecisionRecall(precision[1:], recall[1:], average)


@dataclass(frozen=True)
class Calibration:
    """For ten ranges of probability: the number of pixels, their mean probability, and their foreground fraction.

    `error` is the expected calibration error: the mean difference of the latter two, weighted by pixels (Naeini et al.
    2015; Guo et al. 2017). Probabilities are rounded to the middle of their bin, so it is exact to 1 / (2 BINS).
    """

    pixels: NDArray[np.float64]
    probability: NDArray[np.float64]
    fraction: NDArray[np.float64]
    error: float


def calibration(histograms: Tensor) -> Calibration:
    """Return the calibration of probabilities over all pixels."""
    background, object_ = histograms.sum(0).double().numpy().reshape(2, 10, -1)
    pixels = (background + object_).sum(-1)
    middles = ((np.arange(BINS) + 0.5) / BINS).reshape(10, -1)
    safe = np.maximum(pixels, 1)
    probability = ((background + object_) * middles).sum(-1) / safe
    fraction = object_.sum(-1) / safe
    error = float((np.abs(probability - fraction) * pixels).sum() / max(pixels.sum(), 1))
    return Calibration(pixels, probability, fraction, error)


def plain(values: Any) -> list[float]:
    """Return an array as a list of numbers, rounded to be readable."""
    return [round(float(value), 6) for value in values]
