"""Orientations against Pillow's, and the words for sizes that they make differ."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from segtune.data.orientation import NAMES, SIDEWAYS, as_orientation, size_mismatch, upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_arrays_and_images_turn_as_pillow_turns_them(orientation: int) -> None:
    array = np.arange(35, dtype=np.uint8).reshape(5, 7)
    image = Image.fromarray(array)
    image.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(image))
    assert np.array_equal(np.asarray(upright(array, orientation)), expected)
    assert np.array_equal(np.asarray(upright(Image.fromarray(array), orientation)), expected)
    assert (expected.shape == (7, 5)) == (orientation in SIDEWAYS)
    assert (orientation in NAMES) == (orientation != 1)


def test_values_outside_the_standard_turn_nothing() -> None:
    assert [as_orientation(value) for value in (0, 9, None, "6", (6,), 1.0, 6)] == [1] * 6 + [6]


def test_sizes_that_differ_by_an_orientation_say_so() -> None:
    start = "sizes differ: photo 30 x 20, mask 20 x 30 (height x width); "
    remove = "`exiftool -Orientation= FILE`"
    assert size_mismatch((30, 20), (20, 30), 6, 1) == (
        f"{start}they are each other's transpose: the photo is turned by 90° by its EXIF orientation, and the mask was "
        f"drawn without it: turn the mask as well, or let the photo lie as it is stored: remove it with {remove}"
    )
    assert size_mismatch((30, 20), (20, 30), 1, 8) == (
        f"{start}they are each other's transpose: the mask is turned by 270° by its own EXIF orientation, "
        f"without which it would fit: remove it with {remove}"
    )
    assert size_mismatch((30, 20), (20, 30), 6, 6).startswith(
        f"{start}they are each other's transpose: the mask is turned by 90° by its own EXIF"
    )
    assert size_mismatch((30, 20), (20, 30), 3, 1) == (
        f"{start}they are each other's transpose, by no EXIF orientation: turn one of them"
    )
    assert size_mismatch((30, 20), (10, 15), 8, 1) == (
        "sizes differ: photo 30 x 20, mask 10 x 15 (height x width); a mask must have the size of its photo, which its "
        "EXIF orientation has turned by 270°"
    )
