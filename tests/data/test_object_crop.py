"""Crops of fixed size: the photo's own pixels, centred on the object as often as asked, wherever that fits."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segtune.config.data_settings import AugmentSettings, DataSettings
from segtune.data.dataset import build_dataset
from segtune.data.sources.base import Pair
from segtune.data.transforms import A, build_transform
from segtune.metrics import VOID

SIZE = (20, 30)


def crops(photo: np.ndarray, mask: np.ndarray, fraction: float, count: int, size: tuple[int, int] = SIZE) -> list[dict]:
    transform = build_transform(size, {"object_fraction": fraction}, {})
    found = []
    for seed in range(count):
        transform.set_random_seed(seed)
        found.append(transform(image=photo, mask=mask))
    return found


def places(height: int, width: int) -> np.ndarray:
    """A photo whose red and green are the row and column of each pixel."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([y, x, 0 * x + 7]).astype(np.uint8)


def starts(found: list[dict]) -> list[tuple[int, int]]:
    return [tuple(map(int, each["image"][0, 0, :2])) for each in found]


@pytest.mark.parametrize("fraction", [0, 0.5, 1])
def test_pixels_are_the_photos_own(fraction: float) -> None:
    photo = places(100, 120)
    mask = (np.random.default_rng(0).random((100, 120)) > 0.99).astype(np.uint8)
    found = crops(photo, mask, fraction, 40)
    for each, (top, left) in zip(found, starts(found), strict=True):
        inside = slice(top, top + 20), slice(left, left + 30)
        assert np.array_equal(each["image"], photo[inside])
        assert np.array_equal(each["mask"], mask[inside])
        assert (each["image"].dtype, each["mask"].dtype) == (np.uint8, np.uint8)


def test_the_asked_fraction_shows_the_object_in_its_centre() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[50, 160] = 1  # by chance in 1.7 % of the crops
    for fraction in (0, 0.3, 1):
        found = crops(places(200, 200), mask, fraction, 400)
        centred = sum(bool(each["mask"][10, 15]) for each in found)
        assert abs(centred - 400 * fraction) <= 4 * (400 * fraction * (1 - fraction)) ** 0.5 + 3
        assert sum(bool(each["mask"].any()) for each in found) >= centred
        if fraction == 1:
            assert set(starts(found)) == {(40, 145)}


def test_a_crop_stays_inside_the_photo_and_still_has_the_pixel() -> None:
    for row, column, start in ((0, 0, (0, 0)), (199, 199, (180, 170)), (5, 198, (0, 170)), (193, 100, (180, 85))):
        mask = np.zeros((200, 200), np.uint8)
        mask[row, column] = 1
        found = crops(places(200, 200), mask, 1, 3)
        assert set(starts(found)) == {start}
        assert all(each["mask"].sum() == 1 for each in found)


def test_every_pixel_of_the_object_is_as_likely_as_a_centre() -> None:
    mask = np.zeros((200, 200), np.uint8)
    pixels = [(40, 40), (40, 150), (41, 150), (150, 90)]
    for pixel in pixels:
        mask[pixel] = 1
    counted = Counter((top + 10, left + 15) for top, left in starts(crops(places(200, 200), mask, 1, 400)))
    assert counted.keys() == set(pixels)
    assert all(65 <= number <= 135 for number in counted.values())  # 100 expected, with a deviation of 8.7


@pytest.mark.parametrize("fraction", [0, 1])
def test_without_an_object_every_place_is_as_likely(fraction: float) -> None:
    found = starts(crops(places(24, 33), np.zeros((24, 33), np.uint8), fraction, 400))
    counted = Counter(found)
    assert counted.keys() == {(top, left) for top in range(5) for left in range(4)}  # 20 places
    assert all(4 <= number <= 44 for number in counted.values())  # 20 expected, with a deviation of 4.4


@pytest.mark.parametrize("shape", [(10, 7), (1, 1), (5, 200), (100, 12), (20, 29)])
@pytest.mark.parametrize("fraction", [0, 1])
def test_a_smaller_photo_is_continued_by_reflection(shape: tuple[int, int], fraction: float) -> None:
    rng = np.random.default_rng(0)
    photo, mask = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, 2, shape, np.uint8)
    missing = [(0, max(0, side - length)) for side, length in zip(SIZE, shape, strict=True)]
    wide, wide_mask = np.pad(photo, [*missing, (0, 0)], "symmetric"), np.pad(mask, missing, constant_values=VOID)
    tops, lefts = (range(max(0, length - side) + 1) for side, length in zip(SIZE, shape, strict=True))
    for each in crops(photo, mask, fraction, 5):
        (place,) = (
            (top, left)
            for top in tops
            for left in lefts
            if np.array_equal(wide[top : top + 20, left : left + 30], each["image"])
        )
        assert np.array_equal(wide_mask[place[0] : place[0] + 20, place[1] : place[1] + 30], each["mask"])


def test_void_is_no_object_and_stays_void() -> None:
    mask = np.full((100, 120), VOID, np.uint8)
    mask[60, 70] = 1
    for each in crops(places(100, 120), mask, 1, 3):
        assert each["mask"][10, 15] == 1
        assert (each["mask"] == VOID).sum() == 20 * 30 - 1


def test_transforms_follow_the_crop() -> None:
    photo, mask = places(100, 120), np.ones((100, 120), np.uint8)
    plain = crops(photo, mask, 0.5, 10)
    flip = build_transform(SIZE, {"object_fraction": 0.5}, {"HorizontalFlip": {"p": 1}})
    for seed, each in enumerate(plain):
        flip.set_random_seed(seed)
        assert np.array_equal(flip(image=photo, mask=mask)["image"], each["image"][:, ::-1])


def test_a_copy_in_another_process_draws_the_same() -> None:
    photo, mask = places(100, 120), np.eye(100, 120, dtype=np.uint8)
    transform = build_transform(SIZE, {"object_fraction": 0.5}, {})
    copy: A.Compose = pickle.loads(pickle.dumps(transform))
    for seed in range(5):
        drawn = []
        for each in (transform, copy):
            each.set_random_seed(seed)
            drawn.append(each(image=photo, mask=mask)["image"])
        assert np.array_equal(*drawn)


def test_a_sample_depends_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    pairs = []
    for number in range(3):
        pairs.append(Pair(f"p{number}", tmp_path / f"p{number}.png", tmp_path / f"m{number}.png"))
        Image.fromarray(places(90, 110 + number)).save(pairs[-1].photo)
        Image.fromarray(np.eye(90, 110 + number, dtype=np.uint8)).save(pairs[-1].mask)
    data, augment = DataSettings("folder", ".", image_size=32), AugmentSettings({"object_fraction": 0.5})
    first, second = (build_dataset(pairs, data, augment, seed=4) for _ in range(2))
    wanted = {(epoch, index): first[epoch, index] for epoch in range(4) for index in range(3)}
    for key in reversed(wanted):
        assert torch.equal(second[key]["image"], wanted[key]["image"])
        assert torch.equal(second[key]["mask"], wanted[key]["mask"])
    assert len({tuple(each["image"][:2, 0, 0].tolist()) for each in wanted.values()}) > 8
