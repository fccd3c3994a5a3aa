"""The leaderboard: the finished runs in a folder, ranked by validation Dice."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from rich.table import Table

from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.config.training_settings import PhaseSettings
from segtune.errors import UserError
from segtune.evaluation.selection import score_of
from segtune.reporting.wording import Facts, interval_text, number
from segtune.runtime.console import compact_table
from segtune.runtime.files import read_rows
from segtune.runtime.paths import find_folder

#: Settings that name where a run is written, which differ between any two runs.
_LOCATIONS = ("run_dir", "resume")
#: The default of each setting of a phase, as text.
_OF_PHASES = {
    each.name: str(each.default_factory() if each.default_factory is not MISSING else each.default)
    for each in fields(PhaseSettings)
    if each.default is not MISSING or each.default_factory is not MISSING
}


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, summary, settings by dotted name, and validation Dice by epoch.

    `evaluation` and `images`, the names of the validation images, are empty for runs of versions that wrote neither.
    """

    folder: Path
    summary: Facts
    settings: dict[str, str]
    dices: list[float]
    evaluation: Facts
    images: tuple[str, ...]

    @property
    def dice(self) -> float | None:
        """The validation Dice by which runs are compared; None if no validation image has an object."""
        score = score_of(self.summary)
        return None if math.isnan(score) else score

    @property
    def interval(self) -> str:
        """The 95 % interval of this Dice, as text."""
        ends = self.evaluation.get("intervals", {})
        return interval_text(ends.get("dice_object", ends["dice_mean"])) if ends else ""


def find_runs(folder: Path) -> tuple[list[RunResult], list[Path], list[Path]]:
    """Return the finished runs in a folder, best first; the folders of unfinished runs; those of unreadable ones.

    Raises:
        UserError: There is no such folder.
    """
    find_folder("folder", folder)
    runs, unfinished, damaged = [], [], []
    for path in sorted(folder.rglob("config.yaml")):
        run = path.parent
        if not (run / "checkpoints").is_dir():
            continue  # written by a probe
        if not (run / "summary.json").is_file():
            unfinished.append(run)
            continue
        try:
            runs.append(_read(run))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError, csv.Error):
            damaged.append(run)
    return sorted(runs, key=lambda run: (run.dice is None, -(run.dice or 0))), unfinished, damaged


def _read(folder: Path) -> RunResult:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    path, per_image = folder / "evaluation.json", folder / "per_image.csv"
    evaluation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = summary["val_dice"] is None or not evaluation or abs(evaluation["dice_mean"] - summary["val_dice"]) <= 1e-3
    if evaluation and (evaluation["split"] != "val" or not same):
        evaluation = {}  # not that of the best epoch on the validation split
    names = tuple(str(row["name"]) for row in read_rows(per_image)) if per_image.is_file() else ()
    dices = [score_of(row) for row in read_rows(folder / "metrics.csv")]
    run = RunResult(folder, summary, dict(_flat(_as_now(settings))), dices, evaluation, names)
    wanted = [float(summary[name]) for name in ("best_epoch", "seconds", "parameters")]
    wanted += [] if "val_dice_object" in summary else [float(summary["val_dice"])]
    if not (run.settings and all(map(math.isfinite, wanted)) and isinstance(run.interval, str)):
        raise ValueError(f"{folder} lacks settings or results")
    return run


def _as_now(settings: Any) -> Any:
    """Return settings as this version has them, so that runs of earlier ones compare; as they are if it cannot."""
    try:
        return asdict(parse(Settings, settings)) if isinstance(settings, Mapping) else settings
    except UserError:
        return settings


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif key not in _LOCATIONS:
            found.append((f"{prefix}{key}", str(value)))
    return found


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


def leaderboard_tables(
    runs: Sequence[RunResult], names: Mapping[Path, str], differing: Sequence[str]
) -> tuple[Table, Table]:
    """Return two tables: wide, with a column for each differing setting; narrow, with these settings under the run."""
    wide, narrow = Table(), compact_table(leading=1)
    for heading in ("run", "val Dice", "95 % interval", "best epoch", "minutes", *differing):
        wide.add_column(heading)
    for heading in ("run", "val Dice,\n95 % interval", "epoch", "minutes"):
        narrow.add_column(heading, no_wrap=heading != "run")
    for run in runs:
        dice, epoch = number(run.dice), str(run.summary["best_epoch"])
        minutes = f"{run.summary['seconds'] / 60:.1f}"
        values = [run.settings.get(name, "") for name in differing]
        wide.add_row(names[run.folder], dice, run.interval, epoch, minutes, *values)
        lines = [f"  {name}={value}" for name, value in zip(differing, values, strict=True) if name in run.settings]
        within = "\n".join(filter(None, (dice, run.interval)))
        narrow.add_row("\n".join([names[run.folder], *lines]), within, epoch, minutes)
    return wide, narrow
