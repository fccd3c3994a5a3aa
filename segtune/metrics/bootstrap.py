"""Intervals by the bootstrap: what the scores might have been on other pictures of the same kind."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm, t

Interval = tuple[float, float]
Array = NDArray[np.float64]

#: Numbers drawn at once, for memory.
_AT_ONCE = 2_000_000


def interval(statistic: Callable[..., Any], columns: Sequence[Array], resamples: int, level: float = 0.95) -> Interval:
    """Return the bootstrap interval of a statistic over pictures.

    It is the expanded percentile interval (Hesterberg 2015, "What Teachers Should Know About the Bootstrap"): between
    quantiles that lie further out the fewer the pictures are, by which that of a mean becomes as wide as Student's.

    Args:
        statistic: Of the columns, along `axis`: with a keyword `axis`. Draws for which it is NaN do not count.
        columns: One value per picture each, (N,); all columns of a picture are drawn together.
        resamples: How often N pictures are drawn with replacement. The draws are the same at every call.
        level: The share of such intervals that should hold the true value.

    Returns:
        Lower and upper end; NaN for fewer than two pictures, or where the statistic is NaN: nothing can be said.
    """
    count = len(columns[0])
    if count < 2 or np.isnan(statistic(*columns, axis=-1)):
        return float("nan"), float("nan")
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
    """Return the interval of a mean; values that are not defined (NaN) are left out."""
    return interval(np.mean, [values[~np.isnan(values)]], resamples)
