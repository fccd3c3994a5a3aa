"""Files for labelme, read as `labelme/label_file.py` (5.5; 6.3 the same) and `labelme/utils/shape.py` read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from segtune.inference.annotations.labelme import Labelme

KNOWN = ("label", "points", "group_id", "shape_type", "flags", "description", "mask")


def load(file: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Return the content of a file and its photo, as `LabelFile.load` does; shapes become (label, points, other)."""
    data = json.loads(file.read_text(encoding="utf-8"))
    assert data["imageData"] is None
    photo = ImageOps.exif_transpose(Image.open(file.parent / data["imagePath"]))
    assert (data["imageHeight"], data["imageWidth"]) == (photo.height, photo.width)
    for shape in data["shapes"]:
        assert shape["shape_type"] == "polygon"
        assert (shape["flags"], shape["group_id"], shape["description"]) == ({}, None, "")
        assert len(shape["points"]) > 2
        shape["other_data"] = {name: value for name, value in shape.items() if name not in KNOWN}
    return data, np.asarray(photo)


def draw(shapes: list[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """As `shape_to_mask`: Pillow fills a polygon and its outline."""
    canvas = Image.new("L", size)
    for shape in shapes:
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
    return np.asarray(canvas) > 0


def test_labelme_opens_the_photo_and_draws_the_mask(
    annotate: Callable[..., Any], mask: np.ndarray, tmp_path: Path, iou: Callable[..., float]
) -> None:
    files = Labelme(tmp_path / "out" / "labelme", "skin")
    image = annotate("photos/tief/Grüße.jpg")
    assert files.file_of(image.source) == "tief/Grüße.json"
    path = tmp_path / "out" / "labelme" / "tief" / "Grüße.json"
    path.parent.mkdir(parents=True)
    path.write_text(files.add(image), encoding="utf-8")
    files.link(image.source)
    data, photo = load(path)
    assert data["imagePath"] == "Grüße.jpg"
    assert (path.parent / "Grüße.jpg").samefile(image.source.path)
    assert photo.shape == (60, 90, 3)
    assert [(each["label"], each["other_data"]) for each in data["shapes"]] == [("skin", {"score": 0.875})] * 4
    assert iou(draw(data["shapes"], (90, 60)), mask) >= 0.995
    assert not draw(data["shapes"], (90, 60))[20, 62]  # the hole
    assert (files.shared, files.link_of(image.source)) == ("", "tief/Grüße.jpg")  # labelme lists photos, not files


def test_a_photo_without_objects_has_no_shapes(annotate: Callable[..., Any], tmp_path: Path) -> None:
    image = annotate(mask=np.zeros((20, 30), bool))
    data = json.loads(Labelme(tmp_path, "skin").add(image))
    assert (data["shapes"], data["imageHeight"], data["imageWidth"]) == ([], 20, 30)


def test_labelme_s_own_reader(annotate: Callable[..., Any], tmp_path: Path) -> None:
    labelme = pytest.importorskip("labelme", reason="labelme is not installed")
    image = annotate()
    (tmp_path / "a.json").write_text(Labelme(tmp_path, "skin").add(image), encoding="utf-8")
    Labelme(tmp_path, "skin").link(image.source)
    read = labelme.LabelFile(str(tmp_path / "a.json"))
    assert [each["other_data"] for each in read.shapes] == [{"score": 0.875}] * 4
