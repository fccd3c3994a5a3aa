"""Label images, with small and thin objects too, against blurred, anti-aliased and JPEG masks."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from segtune.data.checks import grey_edges
from segtune.data.checks.grey_edges import areas_and_edges
from segtune.data.labels import Colour, Mask


def counted(array: np.ndarray) -> tuple[int, int]:
    mask = Mask(array)
    return areas_and_edges(mask, mask.values())


def grid(count: int, side: int, dtype: type = np.uint8) -> np.ndarray:
    """Ids from 1, in squares of a side, one pixel apart."""
    mask = np.zeros((20 * (side + 1), 20 * (side + 1)), dtype)
    for number in range(count):
        row, column = divmod(number, 20)
        mask[row * (side + 1) :, column * (side + 1) :][:side, :side] = number + 1
    return mask


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_ids_are_not_edges_however_small(side: int) -> None:
    for count, dtype in ((40, np.uint8), (300, np.uint16), (300, np.int32)):
        areas, edges = counted(grid(count, side, dtype))
        assert (areas, edges) == ((0 if side == 1 else count - 1), 0)  # the highest id is the brightest value


def disc() -> np.ndarray:
    return cv2.circle(np.zeros((256, 256), np.uint8), (120, 130), 70, 255, -1)


@pytest.mark.parametrize("sigma", [0.6, 2, 8, 30])
def test_blurred_edges(sigma: float) -> None:
    areas, edges = counted(cv2.GaussianBlur(disc(), (0, 0), sigma))
    assert edges > 2 * areas


def test_anti_aliased_edges_of_few_values() -> None:
    assert counted(cv2.resize(disc(), (128, 128), interpolation=cv2.INTER_AREA)) == (0, 3)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_edges(quality: int) -> None:
    file = io.BytesIO()
    Image.fromarray(disc()).save(file, "JPEG", quality=quality)
    areas, edges = counted(np.asarray(Image.open(file)))
    assert edges > areas


def test_void_makes_no_edges_and_no_areas() -> None:
    wide = cv2.morphologyEx(disc(), cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8)) > 0
    labels = np.where(wide, np.uint8(200), disc() // 85)  # 0, 3 and void
    labels[:40] = 1
    assert areas_and_edges(Mask(labels), [0, 1, 3], wide) == (1, 0)
    legend = Mask(np.searchsorted([0, 1, 3, 200], labels).astype(np.uint8), (0, 1, 3, Colour(-1, 0xE0E0C0)))
    assert areas_and_edges(legend, [0, 1, 3], wide) == (1, 0)


def test_a_trimap_has_no_edges() -> None:
    wide, thin = (cv2.morphologyEx(disc(), cv2.MORPH_GRADIENT, np.ones((n, n), np.uint8)) for n in (9, 3))
    assert counted(np.where(wide, np.uint8(128), disc())) == (1, 0)
    assert counted(np.where(thin, np.uint8(128), disc()))[1] == 0


def test_colours_count_by_their_largest_channel() -> None:
    soft = cv2.resize(disc(), (128, 128), interpolation=cv2.INTER_AREA)  # 0, 64, 128, 191, 255
    indices = np.searchsorted([0, 64, 128, 191, 255], soft).astype(np.uint8)[::-1]
    shuffled = [Colour(index, level * 0x010101) for index, level in enumerate((0, 64, 128, 191, 255))]
    mask = Mask(indices, shuffled)
    assert areas_and_edges(mask, mask.values()) == (0, 3)
    mask = Mask(indices, [Colour(-1, level << 16) for level in (0, 64, 128, 191, 255)])
    assert areas_and_edges(mask, mask.values()) == (0, 3)
    mask = Mask(indices, [Colour(-1, 0xFF0000 + index) for index in range(5)])
    assert areas_and_edges(mask, mask.values()) == (0, 0)


def test_huge_masks_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = cv2.GaussianBlur(disc(), (0, 0), 2)
    whole = counted(mask)
    monkeypatch.setattr(grey_edges, "_ROWS", 64)
    assert np.abs(np.subtract(counted(mask), whole)).max() <= 3
