"""The space of a search, from Hydra's overrides: which settings have which values."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import FloatRange, IntervalSweep, Override, RangeSweep, Transformer

from segtune.errors import UserError

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Space:
    """The settings that a search chooses, by name, with Optuna's distributions; and the overrides that stay."""

    distributions: dict[str, Any]
    fixed: tuple[str, ...]

    @classmethod
    def of(cls, overrides: Sequence[str]) -> "Space":
        """Return the space of overrides as Hydra gets them; of those of one setting the last counts.

        Raises:
            UserError: A range is empty or not possible.
        """
        distributions: dict[str, Any] = {}
        fixed: dict[str, str] = {}
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            name = str(override.get_key_element()).removeprefix("++")
            distributions.pop(name, None)
            fixed.pop(name, None)
            if override.is_delete() or not override.is_sweep_override():
                fixed[name] = str(override.input_line)
            else:
                distributions[name] = _distribution(name, override)
        return cls(distributions, tuple(fixed.values()))

    @property
    def points(self) -> float:
        """The number of combinations; infinity if a setting has a continuous range."""
        return math.prod(_count(each) for each in self.distributions.values())

    def all(self) -> Iterator[Values]:
        """Yield all combinations of a finite space."""
        for values in itertools.product(*map(_values, self.distributions.values())):
            yield dict(zip(self.distributions, values, strict=True))

    def samples(self) -> list[Values]:
        """Return combinations in which each choice, and each end of a range, occurs."""
        ends = {name: _ends(each) for name, each in self.distributions.items()}
        first = {name: each[0] for name, each in ends.items()}
        return [first, *({**first, name: value} for name, each in ends.items() for value in each[1:])]


def overrides_of(values: Values, distributions: Mapping[str, Any]) -> list[str]:
    """Return values as overrides; numbers of a continuous range have four digits."""
    return [f"{name}={_text(value, distributions[name])}" for name, value in values.items()]


def _text(value: Any, distribution: Any) -> str:
    if not isinstance(value, float) or hasattr(distribution, "choices"):
        return str(value)
    short = f"{value:.4g}"
    return short if distribution.low <= float(short) <= distribution.high else repr(value)


def _distribution(name: str, override: Override) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    whole: Callable[..., Any] = IntDistribution
    try:
        if isinstance(value, IntervalSweep):
            assert value.start is not None
            assert value.end is not None
            kind = whole if isinstance(value.start, int) and isinstance(value.end, int) else FloatDistribution
            return kind(value.start, value.end, log="log" in value.tags)
        choices: list[Any] = list(override.sweep_iterator(transformer=Transformer.encode))
        if isinstance(value, RangeSweep) and choices:
            found = sorted(_numbers(value))
            kind = whole if isinstance(found[0], int) else FloatDistribution
            return kind(found[0], found[-1], step=abs(value.step)) if len(found) > 1 else CategoricalDistribution(found)
        return CategoricalDistribution(list(dict.fromkeys(choices)))
    except ValueError as error:
        raise UserError(f"{name}: got {override.get_value_string()}, which cannot be searched: {error}") from error


def _numbers(sweep: RangeSweep) -> list[Any]:
    values = sweep.range()
    return [round(each, 12) for each in values] if isinstance(values, FloatRange) else list(values)


def _count(distribution: Any) -> float:
    if hasattr(distribution, "choices"):
        return len(distribution.choices)
    return math.inf if distribution.step is None else len(_values(distribution))


def _values(distribution: Any) -> list[Any]:
    if hasattr(distribution, "choices"):
        return list(distribution.choices)
    steps = range(round((distribution.high - distribution.low) / distribution.step) + 1)
    found = [distribution.low + step * distribution.step for step in steps]
    return [round(each, 12) if isinstance(each, float) else each for each in found]


def _ends(distribution: Any) -> list[Any]:
    if hasattr(distribution, "choices"):
        return list(distribution.choices)
    return list(dict.fromkeys([distribution.low, distribution.high]))
