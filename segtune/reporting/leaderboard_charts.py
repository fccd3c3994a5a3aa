"""The charts of a leaderboard: learning curves, Dice against cost, the effects of settings."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segtune.reporting.charts import BLUE, GREY, ORANGE, svg
from segtune.reporting.effects import DEFAULT, Effect
from segtune.reporting.wording import shortened

#: The curves that have a colour and a name, and their colours.
COLOURS = ("#4c8df6", "#e8833a", "#3fa35c", "#c45fb0", "#c9a227", "#3fb0c0", "#d9534f", "#8c7ae6")
#: The width of a chart in inches: its text is read on a phone too.
_WIDTH = 4.6
#: Values of a setting that a chart shows, the best ones.
_MOST_LEVELS = 12
#: The factor between the smallest and the largest value from which an axis is logarithmic.
_LOGARITHMIC = 8


@dataclass(frozen=True)
class CostPoint:
    """An entry by its cost: its rank, and whether it is on the Pareto front."""

    rank: int
    cost: float
    dice: float
    on_front: bool


def curves_chart(best: Sequence[tuple[str, Sequence[Sequence[float]]]], others: Sequence[Sequence[float]]) -> str:
    """Return a chart of the validation Dice by epoch: the best by name, a line for each seed; the others in grey."""
    longest = max((len(dices) for _, seeds in best for dices in seeds), default=1)
    longest = max(longest, *map(len, others)) if others else longest

    def draw(axes: Any) -> None:
        mark = "o" if longest < 60 else ""
        for dices in others:
            axes.plot(range(1, len(dices) + 1), dices, color=GREY, alpha=0.45, linewidth=0.8, marker=mark, markersize=2)
        for (name, seeds), colour in zip(best, COLOURS, strict=False):
            for number, dices in enumerate(seeds):
                label = name if number == 0 else None
                epochs = range(1, len(dices) + 1)
                axes.plot(epochs, dices, color=colour, linewidth=1.4, marker=mark, markersize=3.5, label=label)
        axes.set(xlabel="epoch", ylabel="validation Dice", xlim=(0.5, longest + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if best:
            axes.figure.legend(fontsize=8, loc="outside lower left", ncols=1)

    return svg(draw, _WIDTH, 2.9 + 0.19 * min(len(best), len(COLOURS)))


def cost_chart(points: Sequence[CostPoint], label: str) -> str:
    """Return a chart of Dice by cost; the Pareto front is a line through its points, which carry their ranks."""

    def draw(axes: Any) -> None:
        beaten, on_front = ([each for each in points if each.on_front is front] for front in (False, True))
        axes.plot([each.cost for each in beaten], [each.dice for each in beaten], "o", color=GREY, markersize=4)
        front = sorted(on_front, key=lambda each: (each.cost, each.dice))
        line = [each.cost for each in front], [each.dice for each in front]
        axes.step(*line, where="post", color=ORANGE, linewidth=1.2)
        axes.plot(*line, "o", color=ORANGE, markersize=5)
        for each in front:
            axes.annotate(
                f"{each.rank}", (each.cost, each.dice), xytext=(-4, 4), textcoords="offset points", ha="right"
            )
        axes.margins(0.12)
        _scale(axes, [each.cost for each in points])
        axes.set(xlabel=label, ylabel="validation Dice")

    return svg(draw, _WIDTH, 3.0)


def effect_chart(effect: Effect, limits: tuple[float, float]) -> str:
    """Return a chart of the adjusted mean Dice by value of a setting; grey: each run as it is.

    Args:
        effect: The effect.
        limits: The ends of the axis of Dice, the same for all effects.
    """
    title = shortened(effect.name, 60)
    if effect.numeric:
        return svg(lambda axes: _by_number(axes, effect, limits), _WIDTH, 2.6, title)
    levels = sorted(effect.levels, key=lambda level: -level.mean)[:_MOST_LEVELS]

    def draw(axes: Any) -> None:
        for position, level in enumerate(levels):
            dices = [dice for value, dice in effect.points if value == level.text]
            axes.plot(dices, [position] * len(dices), "o", color=GREY, alpha=0.6, markersize=3.5)
            axes.plot(level.mean, position, "o", color=BLUE, markersize=6.5, zorder=3)
        axes.set_yticks(range(len(levels)), [f"{shortened(each.text or DEFAULT, 26)} ({each.runs})" for each in levels])
        axes.locator_params(axis="x", nbins=5)
        axes.set(xlabel="validation Dice, the others averaged", xlim=limits, ylim=(len(levels) - 0.5, -0.5))

    return svg(draw, _WIDTH, 1.1 + 0.3 * len(levels), title)


def _by_number(axes: Any, effect: Effect, limits: tuple[float, float]) -> None:
    numbers, dices = zip(*((float(value), dice) for value, dice in effect.points), strict=True)
    axes.plot(numbers, dices, "o", color=GREY, alpha=0.6, markersize=3.5)
    spans = [level.ends or (0.0, 0.0) for level in effect.levels]
    centres = [math.sqrt(low * high) if logarithmic(numbers) else (low + high) / 2 for low, high in spans]
    means = [level.mean for level in effect.levels]
    axes.plot(centres, means, color=BLUE, linewidth=1.2)
    for (low, high), mean in zip(spans, means, strict=True):
        axes.plot((low, high), (mean, mean), color=BLUE, linewidth=4.5, marker="o" if low == high else "", zorder=3)
    _scale(axes, numbers)
    if all(low == high for low, high in spans):
        axes.set_xticks(centres, [f"{centre:g}" for centre in centres])
    axes.set(ylabel="validation Dice", ylim=limits)


def _scale(axes: Any, values: Sequence[float]) -> None:
    """Make the x axis logarithmic if its values need it, with plain numbers as its labels."""
    if logarithmic(values):
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def logarithmic(values: Sequence[float]) -> bool:
    """Return whether values fit a logarithmic axis: positive, and more even there than on a linear one."""
    low, high = min(values), max(values)
    if low <= 0 or high < _LOGARITHMIC * low:
        return False
    middle = statistics.median(values)
    linear, log = (middle - low) / (high - low), math.log(middle / low) / math.log(high / low)
    return abs(log - 0.5) < abs(linear - 0.5)
