"""The files of predictions: which there will be, and what happens if one cannot be written."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from segtune.inference.annotations.base import AnnotatedImage
from segtune.inference.annotations.coco import Coco
from segtune.inference.annotations.labelme import Labelme
from segtune.inference.annotations.yolo import Yolo
from segtune.inference.inputs import Source
from segtune.inference.predictor import Prediction
from segtune.inference.results import Results, encoded, targets
from segtune.inference.tally import Tally

IMAGE = np.zeros((20, 30, 3), np.uint8)


def prediction() -> Prediction:
    mask = np.zeros((20, 30), bool)
    mask[5:15, 5:25] = True
    return Prediction(mask, np.where(mask, 0.75, 0.25).astype(np.float32))


def results(folder: Path, *formats: type, kinds: tuple[str, ...] = ("masks",)) -> Results:
    annotations = [each(folder / each.__name__.lower(), "skin") for each in formats]
    return Results(folder, kinds, Tally("image"), overwrite=False, annotations=annotations)


def source(folder: Path, name: str = "a") -> Source:
    path = folder / "photos" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), IMAGE)
    return Source(path, name, f"{name}.png")


def test_all_files_that_will_be_written_are_known_before() -> None:
    sources = [Source(Path("p/a.jpg"), "a"), Source(Path("p/x/b.png"), "x/b")]
    found = targets(Path("out"), ["masks", "overlays"], ["labelme", "coco", "yolo", "cvat"], sources)
    assert [path.as_posix() for path in found] == [
        *("out/masks/a.png", "out/overlays/a.jpg", "out/masks/x/b.png", "out/overlays/x/b.jpg"),
        *("out/labelme/a.json", "out/labelme/x/b.json", "out/coco/annotations.json"),
        *("out/yolo/data.yaml", "out/yolo/labels/a.txt", "out/yolo/labels/x/b.txt", "out/cvat/annotations.xml"),
    ]


def test_what_is_written_is_what_was_announced(tmp_path: Path) -> None:
    written = results(tmp_path, Labelme, Yolo, Coco, kinds=("masks", "probabilities"))
    assert written.write(source(tmp_path), IMAGE, prediction()) == []
    written.tally.shares.append(0.5)
    assert written.finish() == []
    formats = ["labelme", "yolo", "coco"]
    announced = targets(tmp_path, ["masks", "probabilities"], formats, [Source(Path("a.png"), "a", "a.png")])
    assert sorted(written.tally.files) == sorted(announced)
    assert all(path.stat().st_size for path in announced)


def test_one_file_that_cannot_be_written_does_not_keep_others_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Labelme, image: AnnotatedImage) -> str:
        raise MemoryError

    monkeypatch.setattr(Labelme, "add", broken)
    (tmp_path / "masks").write_text("in the way")
    written = results(tmp_path, Labelme, Yolo)
    problems = written.write(source(tmp_path), IMAGE, prediction())
    assert [problem.partition(":")[0] for problem in problems] == ["masks", "labelme"]
    assert problems[1] == "labelme: MemoryError"
    assert (tmp_path / "yolo" / "labels" / "a.txt").is_file()


def test_where_nothing_is_predicted_no_shared_file_is_written(tmp_path: Path) -> None:
    assert results(tmp_path, Coco, Yolo).finish() == []
    assert list(tmp_path.iterdir()) == []


def test_masks_and_probabilities_are_exact() -> None:
    mask, probability = prediction()
    read = [
        cv2.imdecode(np.frombuffer(encoded(kind, IMAGE, prediction()), np.uint8), -1)
        for kind in ("masks", "probabilities")
    ]
    assert np.array_equal(read[0], mask * np.uint8(255))
    assert np.array_equal(read[1], np.rint(probability * 65535))
