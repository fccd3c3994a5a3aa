"""The list of masks that may be wrong, and the files in which they are corrected."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from segtune.data.sources.base import Pair
from segtune.evaluation.predictions import SamplePrediction, SamplePredictions
from segtune.reporting import label_error_files
from segtune.reporting.label_error_files import suspects, write_label_errors

SIZE, TRUE = (80, 120), (slice(20, 60), slice(10, 70))


def rows_of(*scores: float) -> list[dict[str, Any]]:
    return [{"name": f"p{number}", "dice": 0.9, "contradicted": score} for number, score in enumerate(scores)]


def sample() -> SamplePrediction:
    """A mask of 40 x 60 pixels in a photo of 80 x 120, seen by the network at half the size.

    The model contradicts it in 20 x 24 pixels outside, surely, and in 12 x 20 inside.
    """
    original = np.zeros(SIZE, np.uint8)
    original[TRUE] = 1
    truth = original[::2, ::2] > 0
    probability = np.where(truth, 0.99, 0.01).astype(np.float32)
    probability[15:25, 42:54] = 0.97
    probability[20:26, 10:20] = 0.02
    photo = np.zeros((*truth.shape, 3), np.uint8)
    return SamplePrediction(SIZE, photo, truth, probability > 0.5, probability, original=original)


@pytest.fixture
def predict(tmp_path: Path) -> Callable[[Sequence[int]], SamplePredictions]:
    (tmp_path / "photos").mkdir()

    def predicted(chosen: Sequence[int]) -> Iterator[tuple[Pair, SamplePrediction]]:
        for number in chosen:
            photo = tmp_path / "photos" / f"p{number}.jpg"
            Image.new("RGB", SIZE[::-1]).save(photo)
            yield Pair(f"p{number}", photo, photo.with_suffix(".png")), sample()

    return predicted


def drawn(shapes: list[dict[str, Any]], label: str) -> np.ndarray:
    canvas = Image.new("L", SIZE[::-1])
    for shape in shapes:
        if shape["label"] == label:
            ImageDraw.Draw(canvas).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
    return np.asarray(canvas) > 0


def test_the_mask_and_what_the_model_contradicts_open_in_labelme(
    tmp_path: Path, predict: Callable[..., SamplePredictions]
) -> None:
    folder = tmp_path / "run"
    assert write_label_errors(folder, rows_of(0.0, 0.02, 0.3), "skin", predict) == 2
    with (folder / "label_errors.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(row["name"], row["contradicted"], row["file"]) for row in table] == [
        ("p2", "0.3", "label_errors/p2.json"),
        ("p1", "0.02", "label_errors/p1.json"),
    ]
    data = json.loads((folder / "label_errors" / "p2.json").read_text(encoding="utf-8"))
    assert Image.open(folder / "label_errors" / data["imagePath"]).size == (data["imageWidth"], data["imageHeight"])
    truth = np.zeros(SIZE, bool)
    truth[TRUE] = True
    assert np.array_equal(drawn(data["shapes"], "skin"), truth)
    missing, wrong = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    missing[30:50, 84:108] = wrong[40:52, 20:40] = True
    assert np.array_equal(drawn(data["shapes"], "missing?"), missing)
    assert np.array_equal(drawn(data["shapes"], "wrong?"), wrong)
    labels = [shape["label"] for shape in data["shapes"]]
    assert labels == ["missing?", "wrong?", "skin"]  # the mask lies above: what is left below it changes nothing
    assert data["shapes"][0]["score"] == pytest.approx(0.97, abs=0.05)


def test_a_file_that_may_have_been_corrected_is_left_alone(
    tmp_path: Path, predict: Callable[..., SamplePredictions]
) -> None:
    corrected = tmp_path / "label_errors" / "p0.json"
    corrected.parent.mkdir()
    corrected.write_text("corrected", encoding="utf-8")
    assert write_label_errors(tmp_path, rows_of(0.5, 0.4), "skin", predict) == 2
    assert corrected.read_text(encoding="utf-8") == "corrected"
    assert (tmp_path / "label_errors" / "p1.json").is_file()


def test_only_the_first_are_predicted_again(
    tmp_path: Path, predict: Callable[..., SamplePredictions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_error_files, "MOST_FILES", 2)
    assert write_label_errors(tmp_path, rows_of(0.1, 0.2, 0.3), "skin", predict) == 3
    names = sorted(path.name for path in (tmp_path / "label_errors").iterdir())
    assert names == ["p1.jpg", "p1.json", "p2.jpg", "p2.json"]  # labelme lists photos
    with (tmp_path / "label_errors.csv").open(encoding="utf-8") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["label_errors/p2.json", "label_errors/p1.json", ""]


def test_without_suspects_there_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "label_errors.csv").write_text("of an earlier evaluation", encoding="utf-8")
    assert write_label_errors(tmp_path, rows_of(0.0, 0.0019), "skin", lambda _: pytest.fail("predicted")) == 0
    assert list(tmp_path.iterdir()) == []


def test_suspects_are_the_largest_first_and_never_specks() -> None:
    assert suspects(rows_of(0.01, 0.0019, 0.3, 0.002)) == [2, 0, 3]
