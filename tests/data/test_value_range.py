"""The range of samples, counted by hand."""

import numpy as np

from segtune.data.images import Photo
from segtune.data.value_range import ValueRange, depth_of, measure_range, remarks


def test_samples_are_counted_by_their_bits() -> None:
    samples = np.zeros((4, 5, 3), np.uint16)
    samples[0, 0] = 1, 2, 3
    samples[1, 1] = 4095, 4096, 65535
    found = measure_range(samples, 4095)
    by_bits = [0] * 17
    by_bits[0], by_bits[1], by_bits[2], by_bits[12], by_bits[13], by_bits[16] = 54, 1, 2, 1, 1, 1
    assert found == ValueRange(16, 4095, 65535, 60, 2, tuple(by_bits))
    assert measure_range(samples, None).beyond == 0
    assert (found + found) == ValueRange(16, 4095, 65535, 120, 4, tuple(2 * count for count in by_bits))
    assert measure_range(np.full((4, 5, 3), 9, np.uint8), 4095) == ValueRange(8, 255, 9, 60)


def test_every_value_of_16_bits_is_counted_once() -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = measure_range(np.dstack([samples] * 3), 999)
    assert found.by_bits == (3, *(3 * 2**bits for bits in range(16)))
    assert (found.beyond, found.largest) == (3 * (65536 - 1000), 65535)


def test_a_few_outliers_do_not_count_as_usual() -> None:
    samples = np.full((100, 100, 3), 3000, np.uint16)
    samples[0, :10] = 65535  # 30 of 30,000
    assert measure_range(samples, None).usual == 4095
    samples[0, :11] = 65535
    assert measure_range(samples, None).usual == 65535


def test_the_depth_of_a_value() -> None:
    assert [depth_of(value) for value in (0, 1, 255, 256, 3000, 4095, 4096, 65535)] == [
        1,
        1,
        255,
        511,
        4095,
        4095,
        8191,
        65535,
    ]


def test_remarks_on_a_photo() -> None:
    dark = Photo(np.full((4, 5, 3), 3000, np.uint16), 1, 1)
    assert remarks(dark, 4095) == []
    assert remarks(dark, None) == [
        "nearly black: its 16-bit values go up to 3000, and 65535 is white; if other photos do too, set max_value=4095"
    ]
    assert remarks(dark, 1023) == ["100.00% of its values, up to 3000, are above max_value=1023 and become white"]
    assert remarks(Photo(np.zeros((4, 5, 3), np.uint8), 1, 3), 1023) == [
        "several images in one file: only the first of 3 is used"
    ]
