"""The leaderboard: runs ranked by validation Dice, those that differ only in their seed as one."""

import os
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import numpy as np

from segtune.config.training_settings import PhaseSettings
from segtune.metrics.bootstrap import Choice, choice_among
from segtune.reporting.run_results import FINISHED, RunResult
from segtune.reporting.setting_texts import as_typed, rounded
from segtune.reporting.wording import interval_text

#: Resamples of the images from which a choice among runs is judged.
_RESAMPLES = 2000
#: The default of each setting of a phase, as text.
_OF_PHASES = {
    each.name: as_typed(each.default_factory() if each.default_factory is not MISSING else each.default)
    for each in fields(PhaseSettings)
    if each.default is not MISSING or each.default_factory is not MISSING
}


@dataclass(frozen=True)
class Entry:
    """A line of the leaderboard: finished runs whose settings differ in nothing but `seed`, best first."""

    runs: tuple[RunResult, ...]

    @property
    def best(self) -> RunResult:
        """The best of the runs."""
        return self.runs[0]

    @cached_property
    def dices(self) -> list[float]:
        """The validation Dice of the runs that have one, best first."""
        return [run.dice for run in self.runs if run.dice is not None]

    @property
    def dice(self) -> float | None:
        """The mean validation Dice by which entries are ranked; None if no validation image has an object."""
        return statistics.fmean(self.dices) if self.dices else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation (n - 1) of the Dice between seeds; None for fewer than two runs."""
        return statistics.stdev(self.dices) if len(self.dices) > 1 else None

    @property
    def interval(self) -> str:
        """The 95 % interval of a single run's Dice as text; of several runs the mean has none here."""
        ends = self.best.interval if len(self.runs) == 1 else None
        return interval_text(ends) if ends else ""

    def mean(self, name: str) -> float | None:
        """Return the mean over the runs of a number of their summaries; None if one of them lacks it."""
        values = [run.trained_parameters if name == "trained" else run.summary.get(name) for run in self.runs]
        known = [float(value) for value in values if isinstance(value, int | float)]
        return statistics.fmean(known) if len(known) == len(values) else None


class Leaderboard:
    """The runs in a folder: ranked entries, the others, and the settings in which any two differ.

    `names` holds the name of each run: its folder within `folder`.
    """

    def __init__(self, runs: Sequence[RunResult], folder: Path) -> None:
        self.runs = runs
        self.folder = folder
        self.names = {run.folder: _name(run.folder, folder) for run in runs}
        self.finished = [run for run in runs if run.status == FINISHED]
        self.others = [run for run in runs if run.status != FINISHED]
        self.entries = _ranked(self.finished)
        self.varied = varied(runs)

    @property
    def columns(self) -> list[str]:
        """The settings in which entries differ: without `seed`, unless entries differ in it alone."""
        without = [name for name in self.varied if name != "seed"]
        pooled = any(len(entry.runs) > 1 for entry in self.entries)
        return without if without or pooled else self.varied

    @property
    def counts(self) -> str:
        """The sentence on how many runs ended in which way."""
        ways = Counter(run.status for run in self.runs)
        parts = [f"{number} {status}" for status, number in sorted(ways.items(), key=lambda each: each[0] != FINISHED)]
        return f"{len(self.runs)} run{'s' * (len(self.runs) != 1)}: {', '.join(parts)}"

    @cached_property
    def choice(self) -> Choice | None:
        """What the choice of the best entry is worth, over the images; None unless two entries share two images.

        The Dice of an image is the mean over an entry's seeds. Entries without it, or on other images than the best,
        are left out.
        """
        judged = self.judged
        names = list(judged[0].best.scores) if judged else []
        if len(judged) < 2 or len(names) < 2:
            return None
        scores = [[[run.scores[name] for name in names] for run in entry.runs] for entry in judged]
        return choice_among(np.array([np.mean(each, axis=0) for each in scores]), _RESAMPLES)

    @cached_property
    def judged(self) -> list[Entry]:
        """The entries of `choice`, in their order: those with the Dice of each of the best entry's images."""
        best = self.entries[0].best if self.entries else None
        names = set(best.scores) if best else set()
        return [
            entry
            for entry in self.entries
            if best and names and all(set(run.scores) == names and run.comparable(best) for run in entry.runs)
        ]

    def best_in(self, entry: Entry) -> float | None:
        """Return the fraction of resamples of the validation images in which an entry is the best; see `choice`."""
        return float(self.choice.best_in[self.judged.index(entry)]) if self.choice and entry in self.judged else None

    @property
    def same_images(self) -> bool:
        """Whether all runs were validated against the same ground truth, as far as is known."""
        return all(len(set(filter(None, each))) < 2 for each in zip(*(run.truth for run in self.finished), strict=True))

    def within(self) -> int | None:
        """Return how many other entries have a Dice in the best one's 95 % interval; None if it has none."""
        ends = self.entries[0].best.interval if self.entries and len(self.entries[0].runs) == 1 else None
        return sum(entry.dice is not None and entry.dice >= ends[0] for entry in self.entries[1:]) if ends else None

    def seeds(self) -> tuple[float, int] | None:
        """Return the standard deviation of Dice between seeds, pooled over all entries, and its degrees of freedom."""
        spreads = [(entry.deviation, len(entry.dices) - 1) for entry in self.entries]
        freedom = sum(each for _, each in spreads if each > 0)
        squares = sum(deviation**2 * each for deviation, each in spreads if deviation is not None)
        return ((squares / freedom) ** 0.5, freedom) if freedom else None

    def chosen(self, run: RunResult, names: Iterable[str]) -> list[str]:
        """Return settings of a run as `name=value`, as far as they are known."""
        return [f"{name}={rounded(value)}" for name in names if (value := run.value(name))]


def _name(run: Path, folder: Path) -> str:
    return folder.resolve().name if run == folder else Path(os.path.relpath(run, folder)).as_posix()


def _ranked(runs: Iterable[RunResult]) -> list[Entry]:
    """Return finished runs as entries, best first, those without a Dice last."""

    def last(dice: float | None) -> tuple[bool, float]:
        return dice is None, -(dice or 0)

    alike: dict[tuple[tuple[str, str], ...], list[RunResult]] = {}
    for run in runs:
        key = tuple(sorted((name, value) for name, value in run.settings.items() if name != "seed"))
        alike.setdefault(key, []).append(run)
    entries = [Entry(tuple(sorted(each, key=lambda run: last(run.dice)))) for each in alike.values()]
    return sorted(entries, key=lambda entry: last(entry.dice))


def varied(runs: Sequence[RunResult]) -> list[str]:
    """Return the names of the settings in which runs differ.

    These are the overrides of their command lines that differ: with `backbone=vgg16,resnet50` the taps differ too, but
    follow. Settings that differ between runs with equal overrides are added by their dotted names.
    """
    overrides = dict.fromkeys(name for run in runs for name in run.overrides)
    names = [name for name in overrides if len({run.value(name) for run in runs}) > 1]
    alike: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for run in runs:
        if run.settings:
            alike.setdefault(tuple(run.value(name) for name in names), []).append(run.settings)
    return list(dict.fromkeys([*names, *(name for each in alike.values() for name in differing(each))]))


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the names of the settings in which runs differ."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if len({each.get(name, _without(name)) for each in settings}) > 1]


def _without(name: str) -> str:
    """Return what a setting counts as in a run that lacks it: of a phase that the run lacks, the default."""
    group, _, key = name.rpartition(".")
    return _OF_PHASES.get(key, "") if group.startswith("freeze.phases.") else ""


def link_to(report: Path, page: Path) -> str:
    """Return a relative, quoted link from a page to a report; empty if there is no such file."""
    if not report.is_file() or report.resolve() == page.resolve():
        return ""
    return quote(Path(os.path.relpath(report, page.parent)).as_posix())


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (cost, score) on the Pareto front, by rising cost.

    No other point is at least as cheap and at least as good, and better in one of the two.
    """
    found: list[int] = []
    for index in sorted(range(len(points)), key=lambda each: (points[each][0], -points[each][1])):
        if not found or points[index][1] > points[found[-1]][1] or points[index] == points[found[-1]]:
            found.append(index)
    return found
