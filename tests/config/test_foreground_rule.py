"""The settings `data.foreground` and `data.ignore`, in every way to write them."""

import re
from typing import Any

import pytest

from segtune.config.data_settings import DataSettings
from segtune.config.parse import parse
from segtune.errors import UserError


def parsed(value: Any) -> Any:
    return parse(DataSettings, {"name": "folder", "root": ".", "foreground": value}).foreground


@pytest.mark.parametrize("rule", ["auto", "nonzero", 128, [3, 7], ["#ff0000", "#00ff7f"]])
def test_rules_stay_what_they_are(rule: Any) -> None:
    assert parsed(rule) == rule


def test_one_colour_needs_no_list_and_capitals_are_welcome() -> None:
    assert parsed("#FF00aa") == ["#ff00aa"]


@pytest.mark.parametrize("wrong", ["#ff00", "#gg0000", "#ff0000ff"])
def test_what_is_no_colour_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match=f"got '{wrong}'; expected: a valid integer, or a colour, such as '#ff8000'."):
        parsed([wrong])


def ignored(value: Any, **more: Any) -> Any:
    return parse(DataSettings, {"name": "folder", "root": ".", "ignore": value, **more}).ignore


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ([], []),
        (255, [255]),
        ("#E0e0c0", ["#e0e0c0"]),
        ([0, "#FFffff", -1], [0, "#ffffff", -1]),
    ],
)
def test_void_is_a_list_of_numbers_and_colours(given: Any, kept: Any) -> None:
    assert ignored(given) == kept


@pytest.mark.parametrize("wrong", ["auto", "#ff00", "255", 1.5, True, [7]])
def test_what_is_neither_number_nor_colour_is_refused(wrong: Any) -> None:
    message = f"ignore[1]: got {wrong!r}; expected: a number, such as 255, or a colour, such as '#e0e0c0'."
    with pytest.raises(UserError, match=re.escape(message)):
        ignored([3, wrong])


def test_a_value_cannot_be_object_and_void() -> None:
    for named in (255, "#ff0000"):
        with pytest.raises(
            UserError, match=f"foreground and ignore both name {named}: a value is the object, or counts"
        ):
            ignored(named, foreground=[named])
    assert ignored(255, foreground=255) == [255]  # a threshold names no value
