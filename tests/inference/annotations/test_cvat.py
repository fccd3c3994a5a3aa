"""Files of CVAT, read as `cvat/apps/dataset_manager/formats/cvat.py` (2.x) reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from matplotlib.path import Path as Outline

from segtune.inference.annotations.cvat import Cvat


def decoded(shape: ET.Element, height: int, width: int) -> np.ndarray:
    """Return the mask of a shape: runs along the rows of its box, or the pixels whose centres a polygon has inside."""
    mask = np.zeros((height, width), bool)
    if shape.tag == "mask":
        left, top, w, h = (int(shape.attrib[name]) for name in ("left", "top", "width", "height"))
        counts = [int(each) for each in shape.attrib["rle"].split(",")]
        mask[top : top + h, left : left + w] = np.repeat(np.arange(len(counts)) % 2, counts).reshape(h, w) > 0
        return mask
    assert shape.tag == "polygon"
    points = [[float(each) for each in pair.split(",")] for pair in shape.attrib["points"].split(";")]
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = Outline(points).contains_points(np.column_stack([columns.ravel(), rows.ravel()]))
    return inside.reshape(height, width)


def written(*images: Any) -> ET.Element:
    cvat = Cvat(Path("cvat"), "skin")
    for image in images:
        cvat.add(image)
    text = cvat.content()
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>\n<annotations>')
    return ET.fromstring(text)


def test_one_file_of_all_images(annotate: Callable[..., Any], mask: np.ndarray, iou: Callable[..., float]) -> None:
    root = written(annotate("photos/x/a & ä.jpg"), annotate("photos/b.png", mask & False))
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/labels/label/name") == "skin"
    assert root.findtext("meta/task/labels/label/attributes/attribute/name") == "score"
    images = root.findall("image")
    assert [each.attrib for each in images] == [
        {"id": "0", "name": "x/a & ä.jpg", "width": "90", "height": "60"},
        {"id": "1", "name": "b.png", "width": "90", "height": "60"},
    ]
    assert sorted(each.tag for each in images[0]) == ["mask", *["polygon"] * 3]  # the ring has a hole
    assert len(images[1]) == 0
    for shape in images[0]:
        assert shape.attrib.items() >= {"label": "skin", "source": "auto", "occluded": "0", "z_order": "0"}.items()
        assert [(each.attrib["name"], each.text) for each in shape] == [("score", "0.8750")]
    assert iou(np.any([decoded(each, 60, 90) for each in images[0]], axis=0), mask) >= 0.995


def test_all_as_masks_and_none(annotate: Callable[..., Any], mask: np.ndarray, iou: Callable[..., float]) -> None:
    (every,) = written(annotate(rle="all")).findall("image")
    assert {each.tag for each in every} == {"mask"}
    assert np.array_equal(np.any([decoded(each, 60, 90) for each in every], axis=0), mask)
    (never,) = written(annotate(rle="never")).findall("image")
    assert {each.tag for each in never} == {"polygon"}
    drawn = np.any([decoded(each, 60, 90) for each in never], axis=0)
    assert iou(drawn, mask) >= 0.995
    assert not drawn[20, 62]  # the hole
