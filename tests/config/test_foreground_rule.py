"""The setting `data.foreground`, in every way to write it."""

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
