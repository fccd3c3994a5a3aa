"""Values of masks, and rules for which of them are foreground, by hand."""

import numpy as np
import pytest

from segtune.config.data_settings import DataSettings
from segtune.data.labels import (
    Colour,
    Foreground,
    Mask,
    Value,
    as_value,
    brightness,
    colour_of,
    foreground,
    grey_of,
    is_background,
    level_of,
    number_of,
)
from segtune.metrics import VOID

RED, WHITE, GREY = Colour(1, 0xFF0000), Colour(0, 0xFFFFFF), Colour(7, 0x808080)
BLACK, GREEN = Colour(3, 0), Colour(-1, 0x00C800)


@pytest.mark.parametrize(
    ("value", "text", "number", "colour", "grey", "background", "level"),
    [
        (0, "0", 0, 0x000000, 0, True, 0),
        (128, "128", 128, 0x808080, 128, False, 128),
        (300, "300", 300, None, 300, False, 300),
        (-1, "-1", -1, None, -1, False, -1),
        (RED, "1 (#ff0000)", 1, 0xFF0000, None, False, 1),
        (WHITE, "0 (#ffffff)", 0, 0xFFFFFF, 255, False, 255),
        (GREY, "7 (#808080)", 7, 0x808080, 128, False, 128),
        (BLACK, "3 (#000000)", 3, 0x000000, 0, True, 0),
        (GREEN, "#00c800", None, 0x00C800, None, False, 200),
    ],
)
def test_what_a_value_is(
    value: Value, text: str, number: int | None, colour: int | None, grey: int | None, background: bool, level: int
) -> None:
    assert str(value) == text
    assert (number_of(value), colour_of(value), grey_of(value)) == (number, colour, grey)
    assert (is_background(value), brightness(value)) == (background, level)


def test_greys_are_numbers_where_no_other_number_names_them() -> None:
    assert as_value(-1, 0x808080) == as_value(128, 0x808080) == 128
    assert as_value(1, 0xFFFFFF) == Colour(1, 0xFFFFFF)
    assert as_value(0, 0) == 0


def test_the_level_of_a_colour_is_its_largest_channel() -> None:
    assert [level_of(value) for value in (300, RED, GREY, GREEN)] == [300, 255, 128, 200]


def test_rules_on_numbers() -> None:
    values = np.array([[0, 1, 7], [128, 200, 255]])
    expected = {
        "auto": [[0, 1, 1], [1, 1, 1]],
        "nonzero": [[0, 1, 1], [1, 1, 1]],
        128: [[0, 0, 0], [1, 1, 1]],
        (1, 255): [[0, 1, 0], [0, 0, 1]],
        ("#ffffff", "#070707", "#ff0000"): [[0, 0, 1], [0, 0, 1]],
    }
    for rule, inside in expected.items():
        assert np.array_equal(Foreground(rule)(values), np.array(inside, bool))
        assert np.array_equal(Foreground(rule, invert=True)(Mask(values)), ~np.array(inside, bool))


def test_rules_on_colours() -> None:
    mask = Mask(np.array([[0, 1, 2, 3, 4]], np.uint8), (WHITE, RED, BLACK, GREY, GREEN))
    expected = {
        "auto": [1, 1, 0, 1, 1],
        "nonzero": [1, 1, 0, 1, 1],
        128: [1, 0, 0, 1, 1],
        (0, 1): [1, 1, 0, 0, 0],
        ("#ff0000", "#00c800"): [0, 1, 0, 0, 1],
        ("#000000",): [0, 0, 1, 0, 0],
    }
    for rule, inside in expected.items():
        assert Foreground(rule)(mask).tolist() == [[bool(each) for each in inside]]
        assert Foreground(rule, invert=True)(mask).tolist() == [[not each for each in inside]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_the_values_that_occur(dtype: type) -> None:
    array = np.array([[7, 3], [3, 0]], dtype)
    assert Mask(array).values() == [0, 3, 7]
    assert Mask(array, (0, 1, 2, RED, 4, 5, 6, WHITE)).values() == [0, RED, WHITE]


def test_the_rule_of_the_settings() -> None:
    assert foreground(DataSettings("folder", ".", foreground=[3, 4], invert=True)) == Foreground((3, 4), invert=True)
    assert foreground(DataSettings("folder", ".", foreground=["#0A0B0C"])).colours == {0x0A0B0C}
    assert foreground(DataSettings("folder", ".", ignore=[255, "#0A0B0C"])).ignore == (255, "#0a0b0c")


def test_ignored_numbers_are_void_whatever_the_rule() -> None:
    values = np.array([[0, 1, 7], [128, 200, 255]])
    for rule in ("auto", 128, (1, 200)):
        for invert in (False, True):
            labels = Foreground(rule, invert)(values)
            labels[0, 2] = labels[1, 2] = VOID
            found = Foreground(rule, invert, (255, 7))(values)
            assert found.dtype == np.uint8
            assert np.array_equal(found, labels)
            assert np.array_equal(Foreground(rule, invert, ("#ffffff", 7))(values), labels)  # white is 255
    assert set(np.unique(Foreground("auto", ignore=tuple(range(256)))(values))) == {VOID}


def test_ignored_numbers_and_colours_of_palettes() -> None:
    mask = Mask(np.array([[0, 1, 2, 3, 4]], np.uint8), (WHITE, RED, BLACK, GREY, GREEN))  # numbers 0, 1, 3, 7, none
    expected = {
        (0,): [VOID, 1, 0, 1, 1],
        (255,): [1, 1, 0, 1, 1],  # the number of white is 0 here
        ("#ffffff",): [VOID, 1, 0, 1, 1],
        (1, "#00c800"): [1, VOID, 0, 1, VOID],
        ("#808080", "#000000"): [1, 1, VOID, VOID, 1],
    }
    for ignore, labels in expected.items():
        assert Foreground(ignore=ignore)(mask).tolist() == [labels]


def test_a_format_says_itself_what_is_void() -> None:
    array = np.array([[0, 1, 2, 2]], np.uint16)
    assert Foreground()(Mask(array, void=2)).tolist() == [[0, 1, VOID, VOID]]
    assert Foreground("nonzero", invert=True)(Mask(array, (0, RED, WHITE), void=1)).tolist() == [[1, VOID, 0, 0]]
    assert Mask(array, void=2).values() == [0, 1]
    assert Mask(array.astype(np.int32), (0, RED, WHITE), void=0).values() == [RED, WHITE]
