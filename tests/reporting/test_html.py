"""Pages escape what they are given, and never leave a hole."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pytest

from segtune.reporting.html import _pages, render
from segtune.reporting.leaderboard import RunResult

EVIL = "<script>foo()</script>"


def page(**changes: object) -> dict[str, Any]:
    """A leaderboard of one run."""
    summary = {"val_dice": 0.87654, "best_epoch": 3, "seconds": 90.0, "parameters": 12345}
    run = RunResult(Path("runs/a"), summary, {}, [0.5], {"intervals": {"dice_mean": [0.8, 0.9]}}, ())
    row = {"name": "a", "report": "a/report.html", "run": run, "settings": ["7"]}
    usual: dict[str, Any] = {"folder": "runs", "runs": [row], "differing": ["seed"], "chart": "<svg></svg>"}
    return usual | {"same_images": True, "unfinished": [], "damaged": [], "versions": {"numpy": "2.0"}} | changes


def test_values_are_formatted_and_the_chart_is_kept() -> None:
    text = render("leaderboard.html", page())
    for expected in (
        '<a href="a/report.html">a</a></td><td>0.8765</td><td class="soft">0.800 – 0.900</td><td>3</td><td>1.5</td>',
        "<td>12,345</td><td>7</td>",
        "<svg></svg>",
        "numpy 2.0.",
    ):
        assert expected in text
    assert "Not finished" not in text
    assert "validated on the same images, so" not in text


def test_names_are_escaped() -> None:
    text = render("leaderboard.html", page(folder=EVIL, differing=[EVIL], unfinished=[EVIL], versions={EVIL: EVIL}))
    assert EVIL not in text
    assert text.count("&lt;script&gt;foo()&lt;/script&gt;") >= 5


def test_different_images_are_pointed_out() -> None:
    assert "cannot be compared directly" in render("leaderboard.html", page(same_images=False))


def test_what_is_missing_is_an_error_not_a_hole() -> None:
    without = page()
    del without["damaged"]
    with pytest.raises(jinja2.UndefinedError, match="'damaged' is undefined"):
        render("leaderboard.html", without)


def test_every_page_parses_and_loads_nothing_from_elsewhere() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in (files("segtune.reporting") / "pages").iterdir()}
    assert found.keys() == {"base.html", "leaderboard.html", "report.html"}
    for name, text in found.items():
        _pages().get_template(name)
        assert "http" not in text
