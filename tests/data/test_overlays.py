"""Drawings over images, pixel by pixel; encoded ones against Pillow."""

import io

import numpy as np
import pytest
from PIL import Image

from segtune.data.overlays import compare, error_overlay, for_display, jpeg, outlined, png, stack, striped, tinted


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def mask(rows: slice, columns: slice) -> np.ndarray:
    made = np.zeros((12, 16), bool)
    made[rows, columns] = True
    return made


def test_errors_have_their_colours(image: np.ndarray) -> None:
    image[:] = 0
    truth, predicted = mask(slice(0, 6), slice(0, 8)), mask(slice(3, 9), slice(0, 8))
    drawn = error_overlay(image, truth, predicted)
    assert drawn[4, 0].argmax() == 1  # found: green
    assert drawn[7, 0].argmax() == 0  # false alarm: red
    assert drawn[1, 0].argmax() == 2  # missed: blue
    assert not drawn[~(truth | predicted)].any()
    assert not image.any()  # the input is left alone


def test_an_outline_follows_the_mask_and_the_rest_is_dimmed(image: np.ndarray) -> None:
    drawn = outlined(image, mask(slice(2, 8), slice(3, 10)))
    inside, edge = mask(slice(3, 7), slice(4, 9)), mask(slice(2, 8), slice(3, 10))
    edge[inside] = False
    assert (drawn[edge] == 255).all()
    assert np.array_equal(drawn[inside], image[inside])
    assert np.array_equal(drawn[~(inside | edge)], image[~(inside | edge)] // 3)


@pytest.mark.parametrize(
    ("size", "shown"), [((64, 64), (256, 256)), ((300, 200), (300, 200)), ((48, 512), (36, 384)), ((1, 900), (1, 384))]
)
def test_what_is_shown_can_be_seen_and_is_not_huge(size: tuple[int, int], shown: tuple[int, int]) -> None:
    """A red object, its mask and the empty mask stay in their places."""
    truth = np.zeros(size, bool)
    truth[:, size[1] // 4 : size[1] // 2] = True
    image, mask, empty = for_display(np.uint8(255) * truth[..., None] * np.uint8([1, 0, 0]), truth, truth & ~truth)
    assert image.shape == (*shown, 3)
    assert mask.shape == empty.shape == shown
    assert (mask == (image[..., 0] > 127)).mean() > 0.98
    assert mask.mean() == pytest.approx(0.25, abs=0.01)
    assert not empty.any()


@pytest.mark.parametrize("opacity", [0.0, 0.35, 1.0])
def test_a_tint_is_mixed_in_by_its_opacity(image: np.ndarray, opacity: float) -> None:
    drawn = tinted(image, mask(slice(2, 8), slice(3, 10)), (10, 200, 90), (1, 2, 3), opacity)
    inside = mask(slice(3, 7), slice(4, 9))
    assert np.abs(drawn[inside] - ((1 - opacity) * image[inside] + opacity * np.array((10, 200, 90)))).max() <= 0.5
    assert (drawn[2, 3:10] == (1, 2, 3)).all()
    assert np.array_equal(drawn[9:], image[9:])


def test_views_stand_side_by_side_and_images_on_top_of_each_other(image: np.ndarray) -> None:
    truth, predicted = mask(slice(0, 6), slice(0, 8)), mask(slice(3, 9), slice(0, 8))
    views = np.split(compare(image, truth, predicted), 3, axis=1)
    for view, expected in zip(
        views, (image, outlined(image, truth), error_overlay(image, truth, predicted)), strict=True
    ):
        assert np.array_equal(view, expected)
    stacked = stack([image, image])
    assert stacked.shape == (12 + 4 + 12, 16, 3)
    assert (stacked[12:16] == 255).all()
    assert np.array_equal(stacked[16:], image)
    narrower = stack([image, image[:, :10]])  # in tiles, images keep their own sizes
    assert np.array_equal(narrower[16:, :10], image[:, :10])
    assert (narrower[16:, 10:] == 255).all()


def test_pillow_reads_what_is_encoded(image: np.ndarray) -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), image)
    plain = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    found = np.asarray(Image.open(io.BytesIO(jpeg(plain))))
    assert np.abs(found.astype(int) - plain).max() <= 3  # channels in the right order


def test_void_is_striped_and_nothing_else(image: np.ndarray) -> None:
    void = mask(slice(2, 10), slice(3, 15))
    drawn = striped(image, void)
    assert np.array_equal(drawn[~void], image[~void])
    assert {tuple(colour) for colour in drawn[void]} == {(96, 96, 96), (160, 160, 160)}
    assert np.array_equal(drawn[3:10, 3:14], drawn[2:9, 4:15])  # diagonal
    assert drawn[2, 3:15, 0].tolist() != drawn[3, 3:15, 0].tolist()
    assert striped(image, None) is image
    truth, predicted = mask(slice(0, 6), slice(0, 8)), mask(slice(3, 9), slice(0, 8))
    plain, truths, errors = np.split(compare(image, truth, predicted, void), 3, axis=1)
    assert np.array_equal(plain, image)
    assert np.array_equal(truths[void], drawn[void])
    assert np.array_equal(errors[void], drawn[void])
    assert for_display(image, truth, None)[2] is None
