"""Files of COCO, read by hand and, where it is installed, by pycocotools."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from segtune.inference.annotations.coco import Coco


def decoded(annotation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Return the mask of an annotation: runs down the columns, or the pixels whose centres a polygon has inside."""
    shape = annotation["segmentation"]
    if isinstance(shape, dict):
        assert shape["size"] == [height, width]
        values = np.arange(len(shape["counts"])) % 2
        return np.repeat(values, shape["counts"]).reshape(width, height).T > 0
    rows, columns = np.mgrid[:height, :width] + 0.5
    (ring,) = shape
    inside = Outline(np.reshape(ring, (-1, 2))).contains_points(np.column_stack([columns.ravel(), rows.ravel()]))
    return inside.reshape(height, width)


def written(*images: Any) -> dict[str, Any]:
    coco = Coco(Path("coco"), "skin")
    assert [coco.add(image) for image in images] == [""] * len(images)
    return json.loads(coco.content())


def test_one_file_of_all_images(annotate: Callable[..., Any], mask: np.ndarray, iou: Callable[..., float]) -> None:
    flipped = mask[::-1, ::-1]  # at the left border, and to the last row
    data = written(
        annotate("photos/x/a.jpg"), annotate("photos/b.png", mask & False), annotate("photos/c.png", flipped)
    )
    assert [(each["id"], each["file_name"], each["height"], each["width"]) for each in data["images"]] == [
        *((1, "x/a.jpg", 60, 90), (2, "b.png", 60, 90), (3, "c.png", 60, 90)),
    ]
    assert [(each["id"], each["name"]) for each in data["categories"]] == [(1, "skin")]
    assert [each["id"] for each in data["annotations"]] == list(range(1, 9))
    for number, truth in ((1, mask), (3, flipped)):
        found = [each for each in data["annotations"] if each["image_id"] == number]
        assert [isinstance(each["segmentation"], dict) for each in found].count(True) == 1  # the ring
        masks = [decoded(each, 60, 90) for each in found]
        assert iou(np.any(masks, axis=0), truth) >= 0.995
        for each, own in zip(found, masks, strict=True):
            assert (each["category_id"], each["iscrowd"], each["score"]) == (1, 0, 0.875)
            rows, columns = np.nonzero(own)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert each["bbox"] == box
            assert each["area"] == pytest.approx(own.sum(), rel=0.003)


def test_all_as_masks_and_none(annotate: Callable[..., Any], mask: np.ndarray, iou: Callable[..., float]) -> None:
    every = written(annotate(rle="all"))["annotations"]
    assert np.array_equal(np.any([decoded(each, 60, 90) for each in every], axis=0), mask)
    assert all(sum(each["segmentation"]["counts"]) == 60 * 90 for each in every)
    assert all(count > 0 for each in every for count in each["segmentation"]["counts"][1:])
    never = written(annotate(rle="never"))["annotations"]
    assert {type(each["segmentation"]) for each in never} == {list}
    drawn = np.any([decoded(each, 60, 90) for each in never], axis=0)
    assert iou(drawn, mask) >= 0.995
    assert not drawn[20, 62]  # the hole
    whole = written(annotate(mask=np.ones((5, 4), bool), rle="all"))["annotations"]
    assert whole[0]["segmentation"]["counts"] == [0, 20]


def test_coco_s_own_reader(
    annotate: Callable[..., Any], mask: np.ndarray, tmp_path: Path, iou: Callable[..., float]
) -> None:
    reader = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    coco = Coco(tmp_path, "skin")
    coco.add(annotate())
    (tmp_path / "annotations.json").write_text(coco.content(), encoding="utf-8")
    data = reader.COCO(str(tmp_path / "annotations.json"))
    assert data.getCatIds(catNms=["skin"]) == [1]
    masks = [data.annToMask(each) > 0 for each in data.loadAnns(data.getAnnIds(imgIds=[1]))]
    assert len(masks) == 4
    assert iou(np.any(masks, axis=0), mask) >= 0.995
