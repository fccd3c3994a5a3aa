"""The report: one HTML file that holds all it shows, of a run or an evaluation."""

import base64
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from segtune.data.overlays import error_overlay, jpeg, outlined
from segtune.data.sources.base import Pair
from segtune.evaluation.label_errors import CONFIDENT, contradicted
from segtune.evaluation.predictions import Pictures, SamplePrediction
from segtune.evaluation.summary import compare_paired
from segtune.models.taps import FeatureInfo
from segtune.reporting import charts
from segtune.reporting.html import render
from segtune.reporting.wording import Facts, score_names, sentences
from segtune.runtime.files import write_atomically, write_csv, write_json
from segtune.runtime.versions import versions

#: Pictures of each kind: the best, those around the median, the worst; and of doubtful masks at most.
_OF_A_KIND = 3
_DOUBTFUL = 6
#: The longest side of a picture, in pixels; and the least share of a picture for a mask to be doubted.
_SIDE = 360
_DOUBT = 0.002


@dataclass(frozen=True)
class Source:
    """What a report says of a model's origin.

    `summary` and `history` are a run's: its `summary.json`, the rows of its `metrics.csv`. An evaluation has none.
    """

    command: str
    settings: Mapping[str, Any]
    taps: Mapping[str, FeatureInfo]
    summary: Mapping[str, Any] | None
    history: Sequence[Facts]


def earlier(folder: Path, facts: Facts, rows: Sequence[Facts], compare: Callable[[Any, Any], Facts]) -> Facts | None:
    """Compare with the last evaluation of the same pictures in a folder beside this one, picture by picture.

    Args:
        folder: Where this evaluation is written; what is in there does not count.
        facts: This evaluation.
        rows: Its pictures.
        compare: Compares the Dice of two models, picture by picture.

    Returns:
        `name`, `dice_mean` and what `compare` gives; None if there is no such evaluation.
    """
    for path in sorted(folder.parent.glob("*/evaluation.json"), key=_time, reverse=True):
        if path.parent.resolve() == folder.resolve():
            continue
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            with (path.parent / "per_image.csv").open(encoding="utf-8", newline="") as file:
                theirs = {row["name"]: float(row["dice"]) for row in csv.DictReader(file)}
            if _truth(before) == _truth(facts) and list(theirs) == [row["name"] for row in rows]:
                dices = np.array(list(theirs.values())), np.array([row["dice"] for row in rows])
                return {"name": path.parent.name, "dice_mean": before["dice_mean"]} | compare(*dices)
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            continue  # of another program, or half written
    return None


def _time(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _truth(facts: Mapping[str, Any]) -> list[Any]:
    """Say what was evaluated against: the same pictures with other masks are something else."""
    return [facts[name] for name in ("data", "split", "foreground", "invert", "empty")]


def publish(
    folder: Path,
    facts: Facts,
    rows: Sequence[Facts],
    source: Source,
    look: Callable[[Sequence[int]], Pictures],
) -> None:
    """Write `evaluation.json`, `per_image.csv` and `report.html`.

    Args:
        folder: Where the files go.
        facts: The evaluation.
        rows: A row for each image.
        source: The model's origin.
        look: Returns some of the images to be shown, by their numbers.

    Raises:
        UserError: The disk refuses.
    """
    before = earlier(folder, facts, rows, partial(compare_paired, resamples=facts["resamples"]))
    write_json(folder / "evaluation.json", facts)
    write_csv(folder / "per_image.csv", rows)
    write_report(folder / "report.html", facts, rows, source, before, look)


def write_report(
    path: Path,
    facts: Facts,
    rows: Sequence[Facts],
    source: Source,
    before: Facts | None,
    look: Callable[[Sequence[int]], Pictures],
) -> None:
    """Write the page.

    Args:
        path: The file.
        facts: The evaluation, as in `evaluation.json`.
        rows: A row a picture, as in `per_image.csv`.
        source: The model's origin.
        before: The comparison with the evaluation before this one, if there is one.
        look: Gives some of the pictures to be shown, by their numbers.

    Raises:
        UserError: The disk refuses.
    """
    kinds = _chosen(rows)
    wanted = sorted({number for numbers in kinds.values() for number in numbers})
    shown = {index: _picture(rows[index], pair, view) for index, (pair, view) in zip(wanted, look(wanted), strict=True)}
    dices = [row["dice"] for row in rows if row["dice"] == row["dice"]]
    drawings = [
        charts.threshold_chart(facts),
        charts.precision_recall_chart(facts),
        charts.calibration_chart(facts),
        charts.dice_chart(dices),
        *(charts.group_chart(name, members) for name, members in facts["groups"].items()),
    ]
    summary = source.summary
    page = {
        "facts": facts,
        "data_name": Path(facts["data"]).name,
        "before": before,
        "source": source,
        "scores": score_names(facts),
        "sentences": sentences(facts),
        "training": charts.training_chart(source.history, summary["best_epoch"]) if summary else "",
        "charts": drawings,
        "phases": _phases(summary) if summary else None,
        "kinds": {kind: [shown[number] for number in numbers] for kind, numbers in kinds.items()},
        "confident": CONFIDENT,
        "settings_text": yaml.safe_dump(dict(source.settings), sort_keys=False, allow_unicode=True),
        "versions": versions(),
    }
    write_atomically(path, render("report.html", page).encode())


def _chosen(rows: Sequence[Facts]) -> dict[str, list[int]]:
    """Choose the pictures to show, by their numbers."""
    ranked = sorted((i for i, row in enumerate(rows) if row["dice"] == row["dice"]), key=lambda i: rows[i]["dice"])
    kinds = {"worst": ranked[:_OF_A_KIND]}
    rest = ranked[_OF_A_KIND:]
    kinds["best"], rest = rest[::-1][:_OF_A_KIND], rest[: max(0, len(rest) - _OF_A_KIND)]
    middle = max(0, len(rest) // 2 - _OF_A_KIND // 2)
    kinds["median"] = rest[middle : middle + _OF_A_KIND]
    doubtful = sorted(range(len(rows)), key=lambda i: -rows[i]["contradicted"])[:_DOUBTFUL]
    kinds["doubtful"] = [i for i in doubtful if rows[i]["contradicted"] >= _DOUBT]
    return {kind: kinds[kind] for kind in ("worst", "median", "best", "doubtful")}


def _picture(row: Facts, pair: Pair, view: SamplePrediction) -> Facts:
    """Draw a picture: the photo, the true outline, the prediction error_overlay, and what is confidently contradicted."""
    wrong = contradicted(view)
    drawn = {
        "photo": view.photo,
        "truth": outlined(view.photo, view.truth),
        "judged": error_overlay(view.photo, view.truth, view.predicted),
        "contradicted": error_overlay(view.photo // 2, view.truth & wrong, ~view.truth & wrong),
    }
    shrink = min(1.0, _SIDE / max(view.size))
    size = max(1, round(view.size[1] * shrink)), max(1, round(view.size[0] * shrink))
    embedded = {kind: _embedded(cv2.resize(each, size, interpolation=cv2.INTER_AREA)) for kind, each in drawn.items()}
    return {"name": pair.name, "dice": row["dice"], "share": row["contradicted"]} | embedded


def _phases(summary: Mapping[str, Any]) -> Facts:
    """Say for each block how much of it trains in each phase."""
    phases = summary["phases"]
    blocks = list(next(iter(phases.values()))["parts"])
    return {
        "names": list(phases),
        "blocks": [
            {"name": block, "trains": [_share(phase["parts"][block]) for phase in phases.values()]} for block in blocks
        ],
        "trainable": [phase["trainable"] for phase in phases.values()],
        "parameters": summary["parameters"],
    }


def _share(part: Mapping[str, int]) -> float:
    return part["trainable"] / part["parameters"] if part["parameters"] else 0.0


def _embedded(picture: Any) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode()
