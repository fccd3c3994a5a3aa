"""The command `report`: the runs in a folder, ranked, on one page."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from rich.table import Table

from segtune.charts import ranking_chart
from segtune.config import ReportSettings, UserError, some
from segtune.console import compact_table, print_table, say, set_up_logging, shown
from segtune.files import write_atomically
from segtune.locate import find_folder
from segtune.phrases import Facts, interval_text, number
from segtune.records import read_rows
from segtune.report import render, versions

#: Settings that say where a run is, not what it is.
_PLACES = ("run_dir", "resume")


@dataclass(frozen=True)
class Ran:
    """A finished run: its folder, what it has come to, its settings by dotted name, its validation Dice by epoch.

    `evaluation` and `pictures`, the names of the validation pictures, are empty for runs of before they were written.
    """

    folder: Path
    summary: Facts
    settings: dict[str, str]
    dices: list[float]
    evaluation: Facts
    pictures: tuple[str, ...]

    @property
    def interval(self) -> str:
        """The 95 % interval of its mean validation Dice, as text."""
        return interval_text(self.evaluation["intervals"]["dice_mean"]) if self.evaluation else ""


def rank_runs(settings: ReportSettings) -> list[Ran]:
    """Rank the finished runs in a folder by validation Dice, and write the page.

    Raises:
        UserError: There is no finished run.
    """
    set_up_logging()
    folder = Path(settings.folder).expanduser()
    runs, unfinished, damaged = find_runs(folder)
    if not runs:
        more = f" There are unfinished ones: {some(map(str, unfinished))}." if unfinished else ""
        raise UserError(
            f"folder={folder}: there is no finished run in it (no summary.json beside a config.yaml).{more} Expected a "
            "folder such as multirun/2026-01-31_12-00-00 or runs."
        )
    names_of_settings = _differing([run.settings for run in runs])
    path = Path(settings.output).expanduser() if settings.output else folder / "report.html"
    names = {run.folder: str(run.folder.relative_to(folder)) for run in runs}
    page = {
        "folder": folder,
        "runs": [
            {
                "name": names[run.folder] if run.folder != folder else folder.name,
                "report": _link(run.folder / "report.html", path),
                "run": run,
                "settings": [run.settings.get(key, "") for key in names_of_settings],
            }
            for run in runs
        ],
        "differing": names_of_settings,
        "chart": ranking_chart([(names[run.folder], run.dices) for run in runs]),
        "same_pictures": len({run.pictures for run in runs if run.pictures}) < 2,
        "unfinished": [str(each.relative_to(folder)) for each in unfinished],
        "damaged": [str(each.relative_to(folder)) for each in damaged],
        "versions": versions(),
    }
    write_atomically(path, render("ranking.html", page).encode())
    print_table(*_tables(runs, names, names_of_settings))
    for what, others in (("unfinished", unfinished), ("not readable", damaged)):
        if others:
            say(f"Not ranked, for they are {what}: {some(map(str, others))}.")
    say(f"The page is {shown(path)}.")
    return runs


def find_runs(folder: Path) -> tuple[list[Ran], list[Path], list[Path]]:
    """Find the finished runs in a folder, the best first, then the unfinished ones, and those that cannot be read.

    Raises:
        UserError: There is no such folder.
    """
    find_folder("folder", folder)
    runs, unfinished, damaged = [], [], []
    for path in sorted(folder.rglob("config.yaml")):
        run = path.parent
        if not (run / "checkpoints").is_dir():
            continue  # of a probe
        if not (run / "summary.json").is_file():
            unfinished.append(run)
            continue
        try:
            runs.append(_read(run))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError, csv.Error):
            damaged.append(run)
    return sorted(runs, key=lambda run: -run.summary["val_dice"]), unfinished, damaged


def _read(folder: Path) -> Ran:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    path, pictures = folder / "evaluation.json", folder / "per_image.csv"
    evaluation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if evaluation and (evaluation["split"] != "val" or abs(evaluation["dice_mean"] - summary["val_dice"]) > 1e-3):
        evaluation = {}  # of something else
    names = tuple(str(row["name"]) for row in read_rows(pictures)) if pictures.is_file() else ()
    dices = [row["val_dice"] for row in read_rows(folder / "metrics.csv")]
    run = Ran(folder, summary, dict(_flat(settings)), dices, evaluation, names)
    wanted = [float(summary[name]) for name in ("val_dice", "best_epoch", "seconds", "parameters")]
    if not (run.settings and all(map(math.isfinite, wanted)) and isinstance(run.interval, str)):
        raise ValueError(f"{folder} lacks settings or results")
    return run


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif key not in _PLACES:
            found.append((f"{prefix}{key}", str(value)))
    return found


def _differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Name the settings in which runs differ."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if len({each.get(name, "") for each in settings}) > 1]


def _link(report: Path, page: Path) -> str:
    if not report.is_file() or report.resolve() == page.resolve():
        return ""
    return quote(Path(os.path.relpath(report, page.parent)).as_posix())


def _tables(runs: Sequence[Ran], names: Mapping[Path, str], differing: Sequence[str]) -> tuple[Table, Table]:
    """Show the ranking with a column for each setting in which runs differ, and with the settings under the run."""
    wide, narrow = Table(), compact_table(leading=1)
    for heading in ("run", "val Dice", "95 % interval", "best epoch", "minutes", *differing):
        wide.add_column(heading)
    for heading in ("run", "val Dice,\n95 % interval", "epoch", "minutes"):
        narrow.add_column(heading, no_wrap=heading != "run")
    for run in runs:
        dice, epoch = number(run.summary["val_dice"]), str(run.summary["best_epoch"])
        minutes = f"{run.summary['seconds'] / 60:.1f}"
        values = [run.settings.get(name, "") for name in differing]
        wide.add_row(names[run.folder], dice, run.interval, epoch, minutes, *values)
        told = [f"  {name}={value}" for name, value in zip(differing, values, strict=True) if name in run.settings]
        within = "\n".join(filter(None, (dice, run.interval)))
        narrow.add_row("\n".join([names[run.folder], *told]), within, epoch, minutes)
    return wide, narrow
