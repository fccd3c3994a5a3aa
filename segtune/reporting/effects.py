"""Main effects: what each varied setting brings, with the other settings averaged.

An additive model, Dice = mean + one effect per setting, is fitted by least squares. The mean of a value is adjusted: it
is what the model predicts for that value, averaged over all values of the other settings with equal weights (Searle,
Speed and Milliken 1980, "Population marginal means in the linear model: an alternative to least squares means", The
American Statistician 34). If every combination was run equally often, this is the plain mean of the runs with that
value. If not, a plain mean would mix the effects of settings that were varied together.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: What the value of a setting is called in a run that does not set it.
DEFAULT = "default"
#: A numeric setting with more values than this, most of them in one run only, is divided into ranges.
_MOST_VALUES = 5
#: Singular values below this fraction of the largest count as zero.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Level:
    """A value of a setting, or a range of values: the number of runs, and their adjusted mean Dice.

    `ends` are the ends of the numbers it stands for, None for anything but numbers.
    """

    text: str
    runs: int
    mean: float
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class Effect:
    """The effect of a setting: its levels, by rising value where these are numbers, and each run's value and Dice.

    `interval` is the 95 % interval of the difference between the best and the worst level, None where no run is left
    to estimate it from.
    """

    name: str
    levels: tuple[Level, ...]
    points: tuple[tuple[str, float], ...]
    interval: tuple[float, float] | None

    @property
    def best(self) -> Level:
        """The level with the highest mean."""
        return max(self.levels, key=lambda level: level.mean)

    @property
    def worst(self) -> Level:
        """The level with the lowest mean."""
        return min(self.levels, key=lambda level: level.mean)

    @property
    def size(self) -> float:
        """The difference between the best and the worst level."""
        return self.best.mean - self.worst.mean

    @property
    def numeric(self) -> bool:
        """Whether all levels are numbers."""
        return all(level.ends for level in self.levels)


@dataclass(frozen=True)
class Effects:
    """The effects of settings, largest first.

    `together` names settings whose values change together, as one; `unclear` those whose effects these runs cannot tell
    apart. `balanced` is whether every combination of values was run equally often. `residual` is the standard deviation
    of what the additive model leaves unexplained, None without degrees of freedom.
    """

    found: tuple[Effect, ...]
    unclear: tuple[str, ...]
    runs: int
    balanced: bool
    residual: float | None


@dataclass(frozen=True)
class _Factor:
    """A setting in the model: its levels as text and ends, and for each run the index of its level."""

    name: str
    levels: Sequence[tuple[str, tuple[float, float] | None]]
    of_run: Sequence[int]
    values: Sequence[str]
    merged: bool = False

    def columns(self) -> Array:
        """Return its columns of the design matrix, whose effects sum to zero: (runs, levels - 1)."""
        last = len(self.levels) - 1
        return np.array([[float(level == i) - float(level == last) for i in range(last)] for level in self.of_run])


@dataclass(frozen=True)
class _Fit:
    """A least-squares fit: the design (runs, columns), the pseudoinverse of its Gram matrix, and the coefficients."""

    design: Array
    inverse: Array
    coefficients: Array
    freedom: int
    variance: float | None


def main_effects(values: Mapping[str, Sequence[str]], dices: Sequence[float]) -> Effects:
    """Return the main effects of settings on the validation Dice.

    Args:
        values: For each varied setting its value in each run, (N,).
        dices: The Dice of each run, (N,), 0 to 1.
    """
    for ranges in (3, 2):  # halves where there are too few runs for thirds
        factors = [_factor(name, each, ranges) for name, each in values.items() if len(set(each)) > 1]
        if sum(len(factor.levels) - 1 for factor in factors) < len(dices) - 1:
            break
    factors = _merged(factors)
    blocks = [factor.columns() for factor in factors]
    fit = _fit(np.hstack([np.ones((len(dices), 1)), *blocks]), np.array(dices))
    starts = np.cumsum([1, *(block.shape[1] for block in blocks)]).tolist()
    effects = {factor.name: _effect(factor, start, fit, dices) for factor, start in zip(factors, starts, strict=False)}
    return Effects(
        tuple(sorted(filter(None, effects.values()), key=lambda effect: -effect.size)),
        tuple(name for name, effect in effects.items() if effect is None),
        len(dices),
        _balanced(factors),
        None if fit.variance is None else math.sqrt(fit.variance),
    )


def _merged(factors: Sequence[_Factor]) -> list[_Factor]:
    """Return settings with those as one of which one decides the other: `backbone, taps.low`."""
    groups: list[list[_Factor]] = []
    for factor in sorted(factors, key=lambda each: -len(each.levels)):
        pairs = ((group, set(zip(group[0].of_run, factor.of_run, strict=True))) for group in groups)
        decided = next((group for group, pair in pairs if len(pair) == len(group[0].levels)), None)
        if decided is None:
            groups.append([factor])
        else:
            decided.append(factor)
    return [_as_one(group[0], sorted(group, key=factors.index)) if len(group) > 1 else group[0] for group in groups]


def _as_one(finest: _Factor, group: Sequence[_Factor]) -> _Factor:
    """Return settings as one, with a level for each of the finest, which decides the others."""
    of_run = list(finest.of_run)
    texts = [", ".join(each.levels[each.of_run[run]][0] or DEFAULT for each in group) for run in range(len(of_run))]
    levels = [(texts[of_run.index(number)], None) for number in range(len(finest.levels))]
    return _Factor(", ".join(each.name for each in group), levels, of_run, texts, merged=True)


def _factor(name: str, values: Sequence[str], ranges: int) -> _Factor:
    """Return a setting with its values as levels; numbers that hardly repeat are divided into ranges of equal count."""
    numbers = [number for number in map(_number, values) if number is not None]
    if len(numbers) < len(values):
        texts = list(dict.fromkeys(values))
        return _Factor(name, [(text, None) for text in texts], [texts.index(value) for value in values], values)
    distinct = sorted(set(numbers))
    few = len(distinct) <= _MOST_VALUES or 2 * len(distinct) <= len(values)
    parts = np.array_split(np.array(distinct), len(distinct) if few else ranges)
    ends = [(float(part[0]), float(part[-1])) for part in parts]
    levels = [(f"{low:g}" if low == high else f"{low:.3g} to {high:.3g}", (low, high)) for low, high in ends]
    return _Factor(name, levels, [sum(number > high for _, high in ends) for number in numbers], values)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _fit(design: Array, dices: Array) -> _Fit:
    inverse: Array = np.asarray(np.linalg.pinv(design.T @ design, rcond=_TOLERANCE, hermitian=True), dtype=np.float64)
    coefficients: Array = inverse @ design.T @ dices
    freedom = len(dices) - int(np.linalg.matrix_rank(design))
    left = dices - design @ coefficients
    return _Fit(design, inverse, coefficients, freedom, float(left @ left) / freedom if freedom else None)


def _effect(factor: _Factor, start: int, fit: _Fit, dices: Sequence[float]) -> Effect | None:
    """Return the effect of a setting, whose columns begin at `start`; None if the runs do not tell it from others."""
    free = len(factor.levels) - 1
    if factor.merged and free + 1 == len(dices):
        return None  # the settings differ from run to run
    rows = np.zeros((free + 1, fit.design.shape[1]))  # of the adjusted means
    rows[:, 0], rows[:free, start : start + free], rows[free, start : start + free] = 1, np.eye(free), -1
    if not np.allclose(rows @ fit.inverse @ (fit.design.T @ fit.design), rows, atol=1e-6):  # not a sum of runs' rows
        return None
    means = rows @ fit.coefficients
    best_to_worst = rows[means.argmax()] - rows[means.argmin()]
    interval = None
    if fit.variance is not None:
        size = float(means.max() - means.min())
        margin = student(fit.freedom) * math.sqrt(fit.variance * float(best_to_worst @ fit.inverse @ best_to_worst))
        interval = size - margin, size + margin
    levels = [
        Level(text, list(factor.of_run).count(number), float(means[number]), ends)
        for number, (text, ends) in enumerate(factor.levels)
    ]
    return Effect(factor.name, tuple(levels), tuple(zip(factor.values, dices, strict=True)), interval)


def _balanced(factors: Sequence[_Factor]) -> bool:
    """Return whether every combination of values was run, each equally often."""
    cells = Counter(zip(*(factor.of_run for factor in factors), strict=True))
    return len(cells) == math.prod(len(factor.levels) for factor in factors) and len(set(cells.values())) == 1


def student(freedom: int) -> float:
    """Return the quantile of Student's t distribution for intervals of 95 %."""
    from scipy.stats import t  # takes half a second

    return float(t.ppf(0.975, freedom))
