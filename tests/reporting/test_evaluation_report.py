"""Which images a report shows, what it compares with, and how an image is drawn."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segtune.data.sources.base import Pair
from segtune.evaluation.predictions import SamplePrediction
from segtune.reporting import evaluation_report as report
from segtune.runtime.files import write_csv, write_json

NAN = float("nan")
TRUTH = {"data": "/data", "split": "val", "foreground": "auto", "invert": False, "empty": "one"}


def rows_of(dices: list[float], scores: list[float] | None = None) -> list[dict[str, Any]]:
    scores = scores or [0.0] * len(dices)
    return [
        {"name": f"p{number}", "dice": dice, "contradicted": score}
        for number, (dice, score) in enumerate(zip(dices, scores, strict=True))
    ]


def test_the_worst_median_and_best_are_shown_once() -> None:
    found = report._chosen(rows_of([0.9, NAN, 0.1, 0.5, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 0.95]))
    assert found == {"worst": [2, 6, 4], "median": [3, 9, 5], "best": [10, 0, 7], "label_errors": []}


def test_few_images_are_not_repeated() -> None:
    for count in range(10):
        found = report._chosen(rows_of([0.1 * number for number in range(count)]))
        shown = [index for indices in found.values() for index in indices]
        assert sorted(shown) == list(range(count))


def test_likely_label_errors_are_the_largest_and_never_specks() -> None:
    scores = [0.01, 0.0019, 0.3, 0.002, 0.02, 0.5, 0.04, 0.03]
    assert report._chosen(rows_of([NAN] * 8, scores)) == {
        **{"worst": [], "median": [], "best": []},
        "label_errors": [5, 2, 6, 7, 4, 0],
    }


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an evaluation, each later than the one before."""
    written = []

    def write(name: str, dices: list[float], **facts: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_json(folder / "evaluation.json", TRUTH | {"dice_mean": float(np.mean(dices))} | facts)
        write_csv(folder / "per_image.csv", rows_of(dices))
        written.append(folder)
        os.utime(folder / "evaluation.json", (len(written), len(written)))
        return folder

    return write


def difference(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    return {"difference": float((second - first).mean())}


def test_the_latest_evaluation_of_the_same_images_is_compared(evaluated: Callable[..., Path], tmp_path: Path) -> None:
    evaluated("old", [0.1, 0.2])
    evaluated("before", [0.3, 0.5])
    evaluated("other_masks", [0.9, 0.9], foreground="7")
    evaluated("other_void", [0.9, 0.9], ignore=[255])
    evaluated("other_images", [0.9, 0.9, 0.9])
    broken = evaluated("broken", [0.9, 0.9])
    (broken / "per_image.csv").write_text("name\np0\n", encoding="utf-8")
    half = evaluated("half_written", [0.9, 0.9])
    (half / "evaluation.json").write_text("{", encoding="utf-8")
    now = evaluated("now", [0.4, 0.8])
    found = report.earlier(now, TRUTH, rows_of([0.4, 0.8]), difference)
    assert found == {"name": "before", "dice_mean": 0.4, "difference": pytest.approx(0.2)}
    assert report.earlier(tmp_path / "now", TRUTH | {"split": "test"}, rows_of([0.4, 0.8]), difference) is None


def decoded(text: str) -> np.ndarray:
    kind, _, data = text.partition(",")
    assert kind == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_an_image_is_drawn_in_its_own_proportions_with_its_errors() -> None:
    """The left third is found, the middle missed, the right falsely found, and only the right confidently."""
    photo, truth, predicted = np.full((60, 60, 3), 100, np.uint8), np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    truth[:, :40] = predicted[:, :20] = predicted[:, 40:] = True
    probability = np.where(predicted, 0.96, 0.3).astype(np.float32)
    sample = SamplePrediction((120, 240), photo, truth, predicted, probability)
    found = report._figure(rows_of([0.5], [0.25])[0], Pair("p0", Path("a"), Path("b")), sample)
    assert (found["name"], found["dice"], found["score"]) == ("p0", 0.5, 0.25)
    drawn = {kind: decoded(found[kind]) for kind in ("image", "truth", "errors", "contradicted")}
    assert {image.shape for image in drawn.values()} == {(120, 240, 3)}  # of the photo, not of the network's input
    assert np.abs(drawn["image"].astype(int) - 100).max() < 8
    colours = [drawn["errors"][:, 80 * third + 40].mean(0).argmax() for third in range(3)]
    assert colours == [1, 2, 0]  # green, blue, red
    left, middle, right = (drawn["contradicted"][:, 80 * third + 40].mean(0) for third in range(3))
    assert np.ptp(left) < 8
    assert np.ptp(middle) < 8
    assert right.argmax() == 0
    assert np.ptp(right) > 50


@pytest.mark.parametrize("side", [60, 800])  # a tiled image may be larger than what is shown
def test_void_is_striped_in_all_but_the_image(side: int) -> None:
    photo, truth = np.full((side, side, 3), 250, np.uint8), np.zeros((side, side), bool)
    void = np.zeros((side, side), bool)
    void[:, side // 2 :] = True
    probability = np.full((side, side), 0.99, np.float32)
    sample = SamplePrediction((side, side), photo, truth, probability > 0.5, probability, void=void)
    found = report._figure(rows_of([0.5], [0.25])[0], Pair("p0", Path("a"), Path("b")), sample)
    for kind in ("image", "truth", "errors", "contradicted"):
        image = decoded(found[kind]).astype(int)
        right = image[:, image.shape[1] // 2 + 4 :]
        if kind == "image":
            assert right.min() > 240
        else:
            assert np.ptp(right, axis=2).max() < 30  # grey
            assert (right.min() < 115, right.max() < 180) == (True, True)


@pytest.mark.parametrize(
    ("size", "expected"), [((120, 240), (120, 240)), ((1440, 720), (360, 180)), ((3, 2000), (1, 360))]
)
def test_large_images_are_shrunk(size: tuple[int, int], expected: tuple[int, int]) -> None:
    mask = np.zeros((32, 32), bool)
    sample = SamplePrediction(size, np.zeros((32, 32, 3), np.uint8), mask, mask, mask.astype(np.float32))
    found = report._figure(rows_of([1.0])[0], Pair("p0", Path("a"), Path("b")), sample)
    assert decoded(found["errors"]).shape[:2] == expected


@pytest.mark.parametrize("side", [300, 2400])
def test_outlines_are_seen_however_large_the_image_is(side: int) -> None:
    """In tiles an image is as large as its file; outlines of one pixel would vanish where it is shrunk."""
    truth = np.zeros((side, side), bool)
    truth[side // 4 : side // 2, side // 4 : side // 2] = True
    blank = np.zeros((side, side, 3), np.uint8)
    void = np.zeros((side, side), bool)
    void[side // 2 :, side // 2 :] = True
    sample = SamplePrediction((side, side), blank, truth, truth, truth.astype(np.float32), void=void)
    figure = report._figure({"dice": 1.0, "contradicted": 0.0}, Pair("a", Path(), Path()), sample)
    drawn = decoded(figure["truth"])
    assert max(drawn.shape) == min(side, 360)
    assert drawn.max() > 190
    errors = decoded(figure["errors"]).astype(int)
    assert (errors[..., 1] - errors[..., 0] > 30).mean() == pytest.approx(1 / 16, abs=0.01)  # green, for what is found
    assert ((errors > 70).all(axis=2)).mean() == pytest.approx(1 / 4, abs=0.01)  # grey stripes of void


def test_the_fraction_of_each_block_that_trains() -> None:
    parts = {"stem": (0, 10), "layer1": (5, 20), "decoder": (8, 8), "empty": (0, 0)}
    phase = {
        "parts": {name: {"trainable": some, "parameters": of} for name, (some, of) in parts.items()},
        "trainable": 13,
    }
    found = report._phases({"phases": {"head": phase}, "parameters": 38})
    assert (found["names"], found["trainable"], found["parameters"]) == (["head"], [13], 38)
    assert {block["name"]: block["trains"] for block in found["blocks"]} == {
        **{"stem": [0.0], "layer1": [0.25]},
        **{"decoder": [1.0], "empty": [0.0]},
    }


def test_the_facts_are_written_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(report, "write_report", lambda *arguments: seen.append(arguments))
    facts, rows = TRUTH | {"dice_mean": 0.5, "resamples": 100}, rows_of([0.25, 0.75])
    source = report.Source("", {}, {}, None, [])
    report.publish(tmp_path, facts, rows, source, list)
    assert json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8")) == facts
    assert (tmp_path / "per_image.csv").read_text(encoding="utf-8").split() == [
        "name,dice,contradicted",
        *("p0,0.25,0.0", "p1,0.75,0.0"),
    ]
    assert seen == [(tmp_path / "report.html", facts, rows, source, None, list)]
