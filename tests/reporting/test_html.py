"""Pages escape what they are given, and never leave a hole."""

from importlib.resources import files

import jinja2
import pytest

from segtune.reporting.html import _pages, render


def test_what_is_missing_is_an_error_not_a_hole() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'board' is undefined"):
        render("leaderboard.html", {})


def test_every_page_parses_and_loads_nothing_from_elsewhere() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in (files("segtune.reporting") / "pages").iterdir()}
    assert found.keys() == {"base.html", "leaderboard.html", "report.html"}
    for name, text in found.items():
        _pages().get_template(name)
        assert "http" not in text
