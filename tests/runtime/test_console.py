"""What a person sees: lines broken between words on a terminal alone, tables that fit, warnings that say so once."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table

from segtune.config.data_settings import DataSettings
from segtune.data.splits import build_splits
from segtune.runtime import console

Widths = Callable[[int | None], None]
LONG = "The layer stages.0.blocks.0.conv_dw sees 52 pixels, and the one behind it more than twice as many of them."


@pytest.fixture
def width(monkeypatch: pytest.MonkeyPatch) -> Widths:
    """Let the console be a terminal of some columns, or none, whatever the tests run in."""

    def choose(columns: int | None) -> None:
        options = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False, "color_system": None}
        terminal = columns is not None
        monkeypatch.setattr(console, "console", Console(width=columns, force_terminal=terminal, **options))
        monkeypatch.setenv("COLUMNS", "50")  # what a shell may have set counts for no file

    return choose


@pytest.fixture
def logger() -> logging.Logger:
    with warnings.catch_warnings():
        console.set_up_logging()
    return logging.getLogger("segtune.some_module")


@pytest.mark.parametrize("columns", [20, 36, 80])
def test_a_terminal_breaks_lines_between_words(columns: int, width: Widths, capsys: pytest.CaptureFixture[str]) -> None:
    width(columns)
    console.say(LONG)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines) == LONG
    assert len(lines) > 1
    assert all(len(line) <= columns or " " not in line for line in lines)


def test_a_file_gets_lines_as_they_are(
    width: Widths, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    width(None)
    console.say(LONG)
    logger.info("%s", LONG)
    console.banner("phase", [LONG])
    assert [line.strip("│ ") for line in capsys.readouterr().out.splitlines() if "─" not in line] == [LONG] * 3


def test_what_a_progress_bar_shows_is_for_files_alone(width: Widths, capsys: pytest.CaptureFixture[str]) -> None:
    for columns in (80, None):
        width(columns)
        console.say_without_bar(f"step 10 {columns}")
    assert capsys.readouterr().out == "step 10 None\n"


def test_a_warning_is_called_one_once(
    width: Widths, logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    width(None)
    logger.info("Downloading it")
    logger.warning("No weights for %s", "it")
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        photo = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(photo).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(np.repeat(np.uint8([0, 255]), [40 * 9, 40 * 31]).reshape(40, 40)).save(
            tmp_path / "masks" / f"{number}.png"
        )
    (tmp_path / "images" / "notes.txt").touch()
    build_splits(DataSettings("folder", str(tmp_path)), seed=0, workers=1)
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == ["Downloading it", "warning: No weights for it"]
    assert "\nwarning: images/: ignored: 1 that are not images (notes.txt)\n" in out
    assert "WARNING" not in out
    assert "warning: warning" not in out


def tables() -> list[Table]:
    """Return three layouts of one row, that need 52, 34 and 22 columns."""
    found = []
    for cells in (("block4_sepconv1_act", "11.5 %", "a b c d e f"), ("block4_sepconv1_act", "11.5 %"), ("x" * 18,)):
        table = Table(*(f"h{n}" for n in range(len(cells))), title="a title that is longer than any of the tables are")
        table.add_row(*cells)
        found.append(table)
    return found


@pytest.mark.parametrize(("columns", "cells"), [(52, 3), (46, 3), (45, 2), (33, 2), (31, 1), (22, 1)])
def test_the_first_layout_that_fits_is_shown(
    columns: int, cells: int, width: Widths, capsys: pytest.CaptureFixture[str]
) -> None:
    width(columns)
    console.print_table(*tables())
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("│"))
    assert row.count("│") == cells + 1
    assert ("x" * 18 if cells == 1 else "block4_sepconv1_act") in row
    assert all(len(line) <= columns for line in lines)


def test_where_none_fits_names_are_broken_not_cut(width: Widths, capsys: pytest.CaptureFixture[str]) -> None:
    width(12)
    console.print_table(*tables())
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert "".join(row.strip("│ ") for row in rows) == "x" * 18


def test_a_file_gets_the_first_table_as_wide_as_it_is(width: Widths, capsys: pytest.CaptureFixture[str]) -> None:
    width(None)
    wide = Table("name", *(f"setting {n}" for n in range(30)))
    wide.add_row("block4_sepconv1_act", *["with several words"] * 30)
    console.print_table(wide, Table("other"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[3].count("with several words") == 30
