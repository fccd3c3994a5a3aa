"""Files for YOLO, read as Ultralytics (8.3) reads them: `data/utils.py` and `data/dataset.py`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from segtune.inference.annotations.yolo import Yolo
from segtune.inference.inputs import Source


def of_ultralytics(image: str) -> str:
    """As `img2label_paths`."""
    return "/labels/".join(image.rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt"


def read(text: str, width: int, height: int) -> list[np.ndarray]:
    """As `verify_image_label` and `polygon2mask`: fractions of 0 to 1 in single precision, cut to whole pixels."""
    rings = []
    for line in text.splitlines():
        number, *values = line.split()
        assert number == "0"
        assert len(values) >= 6
        ring = np.array(values, np.float32).reshape(-1, 2)
        assert (ring >= 0).all()
        assert (ring <= 1).all()
        rings.append((ring * np.array([width, height], np.float32)).astype(np.int32))
    return rings


def test_ultralytics_finds_and_draws_the_mask(
    annotate: Callable[..., Any], mask: np.ndarray, tmp_path: Path, iou: Callable[..., float]
) -> None:
    image = annotate("photos/tief/a.jpg")
    drawn = np.zeros(mask.shape, np.uint8)
    for ring in read(Yolo(tmp_path, "skin").add(image), 90, 60):
        cv2.fillPoly(drawn, [ring], color=1)
    assert iou(drawn > 0, mask) >= 0.995
    assert not drawn[20, 62]  # the hole
    assert not Yolo(tmp_path, "skin").add(annotate(mask=mask & False))


@pytest.mark.parametrize("name", ["a", "tief/a.b", "images/a", "x/images/images/a", "a.jpg"])
def test_labels_are_where_ultralytics_looks(name: str) -> None:
    source = Source(Path("photos/a.jpg"), name)
    assert of_ultralytics(f"/data/yolo/{Yolo.link_of(source)}") == f"/data/yolo/{Yolo.file_of(source)}"


def test_large_images_keep_every_pixel(tmp_path: Path, annotate: Callable[..., Any]) -> None:
    """A corner is a hundredth of a pixel inside; the fractions must be finer than that."""
    mask = np.zeros((40, 12_001), bool)
    mask[10:30, 11_000:11_777] = True
    (ring,) = read(Yolo(tmp_path, "skin").add(annotate("photos/a.png", mask)), 12_001, 40)
    assert (ring.min(axis=0).tolist(), ring.max(axis=0).tolist()) == ([11_000, 10], [11_776, 29])


def test_data_yaml_names_the_folder_and_the_class(tmp_path: Path) -> None:
    content = Yolo(tmp_path, "Haut: ja").content()
    assert yaml.safe_load(content) == {"path": ".", "train": "images", "names": {0: "Haut: ja"}}
