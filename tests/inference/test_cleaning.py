"""What is corrected in masks; the oracle of parts and holes is SciPy."""

import numpy as np
import pytest
from scipy import ndimage

from segtune.config.output_settings import CleanSettings
from segtune.inference.cleaning import cleaned, components

ACROSS_CORNERS = np.ones((3, 3))


def drawing(*rows: str) -> np.ndarray:
    return np.array([[each == "#" for each in row] for row in rows])


MASK = drawing(
    "..........#",
    ".#####..#..",
    ".#...#...#.",
    ".#.#.#.....",
    ".#...#.###.",
    ".#####.#.#.",
    "......####.",
    "..#####....",
    "..#...#....",
    "..#...#....",
)
# A large object, two parts of which touch at a corner only, with a hole of 8 and one of 1 and an open bay; an object of
# 1 inside, one of 2 that touch at a corner, one of 1 in the corner of the image.


@pytest.mark.parametrize(
    ("settings", "added", "removed"),
    [
        ({}, 0, []),
        ({"fill_holes": True}, 9, []),
        ({"fill_holes": 8}, 1, []),
        ({"fill_holes": 9}, 9, []),
        ({"fill_holes": 0.08}, 9, []),  # 8.8 of 110 pixels
        ({"min_area": 2}, 0, [(0, 10), (3, 3)]),
        ({"min_area": 3}, 0, [(0, 10), (1, 8), (2, 9), (3, 3)]),
        ({"min_area": 0.02}, 0, [(0, 10), (1, 8), (2, 9), (3, 3)]),
        ({"largest": True}, 0, [(0, 10), (1, 8), (2, 9), (3, 3)]),
        ({"fill_holes": True, "largest": True}, 9, [(0, 10), (1, 8), (2, 9)]),
        ({"min_area": 99, "largest": True}, 0, None),
    ],
)
def test_a_mask_by_hand(settings: dict, added: int, removed: list | None) -> None:
    before = MASK.copy()
    found = cleaned(MASK, CleanSettings(**settings))
    assert np.array_equal(MASK, before)
    gone = [(int(row), int(column)) for row, column in np.argwhere(MASK & ~found)]
    assert gone == (removed if removed is not None else [(int(r), int(c)) for r, c in np.argwhere(MASK)])
    assert (found & ~MASK).sum() == added


def test_areas_are_of_the_image_at_its_own_size() -> None:
    """A mask at half the size has a quarter of the pixels; a fraction is of any size."""
    mask = np.zeros((20, 20), bool)
    mask[:5, :5] = True
    for area, stays in ((100, True), (101, False), (0.0625, True), (0.063, False)):
        assert cleaned(mask, CleanSettings(min_area=area), scale=0.25).any() == stays


@pytest.mark.parametrize("number", range(4))
def test_noise_as_by_scipy(number: int) -> None:
    mask = np.random.default_rng(number).random((40, 57)) < 0.3 + 0.1 * number
    filled = ndimage.binary_fill_holes(mask)
    assert np.array_equal(cleaned(mask, CleanSettings(fill_holes=True)), filled)
    labels, count = ndimage.label(mask, ACROSS_CORNERS)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    kept = (labels > 0) & (areas[labels] >= 9)
    assert np.array_equal(cleaned(mask, CleanSettings(min_area=9)), kept)
    largest = cleaned(mask, CleanSettings(largest=True))
    assert largest.sum() == areas[1:].max()
    assert ndimage.label(largest, ACROSS_CORNERS)[1] == 1


@pytest.mark.parametrize("value", [False, True])
def test_masks_of_one_value_stay(value: bool) -> None:
    mask = np.full((5, 7), value)
    assert np.array_equal(cleaned(mask, CleanSettings(fill_holes=True, min_area=3, largest=True)), mask)


def test_views_of_arrays_are_taken_too() -> None:
    wide = np.repeat(MASK, 2, axis=1)[:, ::2]
    assert np.array_equal(cleaned(wide, CleanSettings(fill_holes=True)), cleaned(MASK, CleanSettings(fill_holes=True)))
    assert len(components(wide, 4).boxes) == ndimage.label(MASK)[1]
