"""The objects of a mask: where they are, how certain, and in which form they are written."""

import numpy as np
import pytest

from segtune.config.output_settings import PolygonSettings
from segtune.inference.objects import find_objects, run_lengths
from segtune.inference.polygons import filled


def test_objects_with_scores_and_outlines() -> None:
    mask = np.zeros((30, 40), bool)
    mask[3:10, 5:17] = mask[20:30, 30:40] = True
    mask[10, 17] = True  # touches the first at a corner
    mask[24:26, 34:36] = False
    probability = np.where(mask, 0.75, 0.1).astype(np.float32)
    probability[3:10, 5:17] = 0.9
    found = find_objects(mask, probability, PolygonSettings(), "hand")
    assert [(each.left, each.top, each.area, each.label) for each in found] == [
        (5, 3, 85, "hand"),
        (30, 20, 96, "hand"),
    ]
    assert [each.score for each in found] == [pytest.approx((84 * 0.9 + 0.75) / 85, abs=1e-4), 0.75]
    assert [each.has_holes for each in found] == [False, True]
    again = np.zeros_like(mask)
    for each in found:
        again |= filled(each.polygon, mask.shape)
    assert np.array_equal(again, mask)
    assert [each.score for each in find_objects(mask, None, PolygonSettings())] == [None, None]
    assert find_objects(mask & False, probability, PolygonSettings()) == []


@pytest.mark.parametrize(("rle", "expected"), [("holes", [False, True]), ("all", [True, True]), ("never", [False] * 2)])
def test_what_is_written_as_a_mask(rle: str, expected: list[bool]) -> None:
    mask = np.zeros((20, 40), bool)
    mask[2:9, 2:9] = mask[2:9, 20:30] = True
    mask[5, 25] = False
    mask[8, 5] = False  # a bay, no hole
    assert [each.as_mask for each in find_objects(mask, None, PolygonSettings(rle=rle))] == expected


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [("0011101", [2, 3, 1, 1]), ("110", [0, 2, 1]), ("000", [3]), ("111", [0, 3]), ("0", [1]), ("1", [0, 1])],
)
def test_run_lengths_begin_with_background(pixels: str, expected: list[int]) -> None:
    assert run_lengths(np.array([each == "1" for each in pixels])) == expected
