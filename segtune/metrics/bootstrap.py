"""Bootstrap confidence intervals: the variation of scores over samples of images from the same distribution."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
Array = NDArray[np.float64]

#: Numbers drawn at once, to limit memory.
_AT_ONCE = 2_000_000


def interval(statistic: Callable[..., Any], columns: Sequence[Array], resamples: int, level: float = 0.95) -> Interval:
    """Return the bootstrap interval of a statistic over images.

    It is the expanded percentile interval (Hesterberg 2015, "What Teachers Should Know About the Bootstrap"): its
    quantiles are more extreme for fewer images, so that the interval of a mean is as wide as Student's.

    Args:
        statistic: A function of the columns with a keyword `axis`. Resamples for which it is NaN are ignored.
        columns: One value per image each, (N,); images are resampled, so the columns stay paired.
        resamples: Number of resamples of N images with replacement. They are the same at every call.
        level: The confidence level.

    Returns:
        Lower and upper end; NaN for fewer than two images, or where the statistic is NaN.
    """
    count = len(columns[0])
    if count < 2 or np.isnan(statistic(*columns, axis=-1)):
        return float("nan"), float("nan")
    from scipy.stats import bootstrap, norm, t  # takes half a second, which a run needs at its end only

    drawn = bootstrap(
        tuple(columns),
        statistic,
        n_resamples=resamples,
        batch=max(1, _AT_ONCE // count),
        vectorized=True,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).bootstrap_distribution
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return float("nan"), float("nan")
    outer = norm.cdf(np.sqrt(count / (count - 1)) * t.ppf((1 - level) / 2, count - 1))
    low, high = np.quantile(defined, (outer, 1 - outer))
    return float(low), float(high)


def mean_interval(values: Array, resamples: int) -> Interval:
    """Return the confidence interval of a mean; NaN values are left out."""
    return interval(np.mean, [values[~np.isnan(values)]], resamples)


class Choice(NamedTuple):
    """What a choice among models is worth: in which fraction of resamples each is the best, and the score elsewhere."""

    best_in: Array
    elsewhere: float


def choice_among(scores: Array, resamples: int) -> Choice:
    """Return how sure the best of several models is, and the score to expect of a best one on other images.

    The bootstrap bias correction of Tsamardinos, Greasidou and Borboudakis 2018 ("Bootstrapping the out-of-sample
    predictions for efficient and accurate cross-validation", Machine Learning 107): the images are drawn N of N with
    replacement, the best model on those drawn is scored on those not drawn, and the mean of these scores has no bias
    from the choice.

    Args:
        scores: The score of each model for each image, (models, N).
        resamples: Number of resamples; they are the same at every call.

    Returns:
        The fraction of resamples in which each model is the best, (models,), with equal ones sharing it; and the mean
        score, NaN if every resample draws all images, as of one.
    """
    generator, images = np.random.default_rng(0), scores.shape[1]
    best_in, elsewhere = np.zeros(len(scores)), list[float]()
    for start in range(0, resamples, at_once := max(1, _AT_ONCE // images)):
        drawn = generator.multinomial(images, np.full(images, 1 / images), size=min(at_once, resamples - start))
        means = np.round(drawn @ scores.T / images, 12)  # rounding errors decide nothing
        best = means == means.max(axis=1, keepdims=True)
        best_in += (best / best.sum(axis=1, keepdims=True)).sum(axis=0)
        left = drawn == 0
        some = left.any(axis=1)
        chosen = scores[best.argmax(axis=1)]
        elsewhere += np.mean(chosen[some], axis=1, where=left[some]).tolist()
    return Choice(best_in / resamples, float(np.mean(elsewhere)) if elsewhere else float("nan"))
