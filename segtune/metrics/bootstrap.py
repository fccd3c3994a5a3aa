"""Bootstrap confidence intervals: the variation of scores over samples of images from the same distribution."""

from collections.abc import Callable, Sequence
from typing import Any

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
