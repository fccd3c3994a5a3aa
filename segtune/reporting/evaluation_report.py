"""The report of a run or an evaluation: one self-contained HTML file."""

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

from segtune.config.output_settings import category_of
from segtune.data.overlays import error_overlay, for_display, jpeg, outlined, striped
from segtune.data.sources.base import Pair
from segtune.evaluation.label_errors import CONFIDENT, contradicted
from segtune.evaluation.predictions import SamplePrediction, SamplePredictions
from segtune.evaluation.summary import compare_paired
from segtune.models.taps import FeatureInfo
from segtune.reporting import charts
from segtune.reporting.html import render
from segtune.reporting.label_error_files import FOLDER, LIST, MOST_FILES, suspects, write_label_errors
from segtune.reporting.wording import Facts, score_names, sentences
from segtune.runtime.console import say
from segtune.runtime.files import read_rows, write_atomically, write_csv, write_json
from segtune.runtime.versions import versions

#: Number of images shown of each kind (worst, median, best), and of likely label errors at most.
_PER_KIND = 3
_LABEL_ERRORS = 6
#: The longest side of an image on the page, in pixels.
_SIDE = 360


@dataclass(frozen=True)
class Source:
    """Where the evaluated model comes from.

    `summary` and `history` hold the `summary.json` and the rows of `metrics.csv` of a training run; without one they
    are None and empty.
    """

    command: str
    settings: Mapping[str, Any]
    taps: Mapping[str, FeatureInfo]
    summary: Mapping[str, Any] | None
    history: Sequence[Facts]


def earlier(folder: Path, facts: Facts, rows: Sequence[Facts], compare: Callable[[Any, Any], Facts]) -> Facts | None:
    """Compare with the latest evaluation of the same images in a sibling folder, image by image.

    Args:
        folder: Where this evaluation is written; an evaluation already in it is ignored.
        facts: This evaluation.
        rows: A row for each image.
        compare: Compares the Dice of two models, image by image.

    Returns:
        `name`, `dice_mean` and the result of `compare`; None if there is no such evaluation.
    """
    for path in sorted(folder.parent.glob("*/evaluation.json"), key=_time, reverse=True):
        if path.parent.resolve() == folder.resolve():
            continue
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            theirs = {row["name"]: float(row["dice"]) for row in read_rows(path.parent / "per_image.csv")}
            if _truth(before) == _truth(facts) and list(theirs) == [row["name"] for row in rows]:
                dices = np.array(list(theirs.values())), np.array([row["dice"] for row in rows])
                return {"name": path.parent.name, "dice_mean": before["dice_mean"]} | compare(*dices)
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            continue  # written by another program, or incomplete
    return None


def _time(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _truth(facts: Mapping[str, Any]) -> list[Any]:
    """Return what defines the ground truth: two evaluations are comparable only where all of it is equal."""
    return [*(facts[name] for name in ("data", "split", "foreground", "invert", "empty")), facts.get("ignore")]


def publish(
    folder: Path,
    facts: Facts,
    rows: Sequence[Facts],
    source: Source,
    predict: Callable[[Sequence[int]], SamplePredictions],
) -> None:
    """Write `evaluation.json`, `per_image.csv`, `report.html` and, if there are any, the likely label errors.

    Args:
        folder: The output folder.
        facts: The evaluation.
        rows: A row for each image.
        source: The model's origin.
        predict: Returns the images with these indices, and their predictions.

    Raises:
        UserError: A file cannot be written.
    """
    before = earlier(folder, facts, rows, partial(compare_paired, resamples=facts["resamples"]))
    write_json(folder / "evaluation.json", facts)
    write_csv(folder / "per_image.csv", rows)
    listed = write_label_errors(folder, rows, category_of(source.settings.get("data", {})), predict)
    write_report(folder / "report.html", facts, rows, source, before, predict)
    if listed:
        say(f"Masks that may be wrong: {LIST} lists {listed}, the likeliest first; {FOLDER}/ has files for labelme.")


def write_report(
    path: Path,
    facts: Facts,
    rows: Sequence[Facts],
    source: Source,
    before: Facts | None,
    predict: Callable[[Sequence[int]], SamplePredictions],
) -> None:
    """Write the page.

    Args:
        path: The file.
        facts: The evaluation, as in `evaluation.json`.
        rows: A row for each image, as in `per_image.csv`.
        source: The model's origin.
        before: The comparison with the previous evaluation, if there is one.
        predict: Returns the images with these indices, and their predictions.

    Raises:
        UserError: The file cannot be written.
    """
    kinds = _chosen(rows)
    wanted = sorted({index for indices in kinds.values() for index in indices})
    predicted = zip(wanted, predict(wanted), strict=True)
    shown = {index: _figure(rows[index], pair, sample) for index, (pair, sample) in predicted}
    dices = [row["dice"] for row in rows if row["dice"] == row["dice"]]
    drawn = [
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
        "charts": drawn,
        "phases": _phases(summary) if summary else None,
        "kinds": {kind: [shown[index] for index in indices] for kind, indices in kinds.items()},
        "confident": CONFIDENT,
        "listed": len(suspects(rows)),
        "files": min(len(suspects(rows)), MOST_FILES),
        "settings_text": yaml.safe_dump(dict(source.settings), sort_keys=False, allow_unicode=True),
        "versions": versions(),
    }
    write_atomically(path, render("report.html", page).encode())


def _chosen(rows: Sequence[Facts]) -> dict[str, list[int]]:
    """Return the indices of the images to show, by kind."""
    ranked = sorted((i for i, row in enumerate(rows) if row["dice"] == row["dice"]), key=lambda i: rows[i]["dice"])
    kinds = {"worst": ranked[:_PER_KIND]}
    rest = ranked[_PER_KIND:]
    kinds["best"], rest = rest[::-1][:_PER_KIND], rest[: max(0, len(rest) - _PER_KIND)]
    middle = max(0, len(rest) // 2 - _PER_KIND // 2)
    kinds["median"] = rest[middle : middle + _PER_KIND]
    kinds["label_errors"] = suspects(rows)[:_LABEL_ERRORS]
    return {kind: kinds[kind] for kind in ("worst", "median", "best", "label_errors")}


def _figure(row: Facts, pair: Pair, sample: SamplePrediction) -> Facts:
    """Return an image drawn four ways: as it is, its true outline, the errors, and the confident contradictions."""
    photo, void, wrong = sample.photo, sample.void, contradicted(sample)
    truth, predicted = sample.truth, sample.predicted
    if max(photo.shape) > 2 * _SIDE:  # drawn at this size, an outline of one pixel would vanish
        photo, truth, predicted, wrong, void = for_display(photo, truth, predicted, wrong, void)
    drawn = {
        "image": photo,
        "truth": outlined(photo, truth),
        "errors": error_overlay(photo, truth, predicted),
        "contradicted": error_overlay(photo // 2, truth & wrong, ~truth & wrong),
    }
    drawn = {kind: each if kind == "image" else striped(each, void) for kind, each in drawn.items()}
    shrink = min(1.0, _SIDE / max(sample.size))
    size = max(1, round(sample.size[1] * shrink)), max(1, round(sample.size[0] * shrink))
    embedded = {kind: _embedded(cv2.resize(each, size, interpolation=cv2.INTER_AREA)) for kind, each in drawn.items()}
    return {"name": pair.name, "dice": row["dice"], "score": row["contradicted"]} | embedded


def _phases(summary: Mapping[str, Any]) -> Facts:
    """Return for each block which fraction of it trains in each phase."""
    phases = summary["phases"]
    blocks = next(iter(phases.values()))["parts"]
    return {
        "names": list(phases),
        "blocks": [
            {"name": block, "trains": [_fraction(phase["parts"][block]) for phase in phases.values()]}
            for block in blocks
        ],
        "trainable": [phase["trainable"] for phase in phases.values()],
        "parameters": summary["parameters"],
    }


def _fraction(part: Mapping[str, int]) -> float:
    return part["trainable"] / part["parameters"] if part["parameters"] else 0.0


def _embedded(image: Any) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(image)).decode()
