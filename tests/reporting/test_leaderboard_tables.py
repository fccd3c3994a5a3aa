"""The leaderboard on the terminal and in a file."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from segtune.reporting.leaderboard import Entry, Leaderboard
from segtune.reporting.leaderboard_tables import costs_of, count_text, csv_rows, dice_text, leaderboard_tables
from segtune.reporting.run_results import RunResult, find_runs
from segtune.runtime import console
from segtune.runtime.files import read_rows, write_csv
from tests.reporting.conftest import write_run, write_six


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Return a function that prints a leaderboard on a terminal, or into a file, and returns the lines."""

    def show(board: Leaderboard, columns: int | None) -> list[str]:
        terminal = Console(width=columns, force_terminal=columns is not None, color_system=None, markup=False)
        monkeypatch.setattr(console, "console", terminal)
        console.print_table(*leaderboard_tables(board))
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return show


@pytest.fixture
def six(tmp_path: Path) -> Leaderboard:
    return Leaderboard(find_runs(write_six(tmp_path)), tmp_path)


@pytest.mark.parametrize("columns", [60, 80])
def test_on_a_narrow_terminal_settings_stand_under_their_run(
    six: Leaderboard, shown: Callable[..., list[str]], columns: int
) -> None:
    lines = shown(six, columns)
    assert all(len(line) <= columns for line in lines)
    assert [re.sub(r"(?<=\S) {2,}", " ", line.strip()) for line in lines[3:6]] == [
        "1 1 0.7000 2 of 2 1.0",
        "backbone=vgg16 0.100 – 0.900",
        "lr=0.001",
    ]


def test_a_very_narrow_terminal_folds_names(six: Leaderboard, shown: Callable[..., list[str]]) -> None:
    lines = shown(six, 40)
    assert all(len(line) <= 40 for line in lines)
    assert "backbone=vgg16" in "".join(line[:12].strip() for line in lines)


def test_a_file_gets_a_column_for_each_setting(six: Leaderboard, shown: Callable[..., list[str]]) -> None:
    rows = [line.split("│")[1:-1] for line in shown(six, None) if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["1", "1", "0.7000", "0.100 – 0.900", "vgg16", "0.001", "2 of 2", "1.0", "–", "–", "–"],
        ["2", "3", "0.6000", "0.100 – 0.900", "resnet50", "0.0001", "2 of 2", "1.1", "–", "–", "–"],
        ["3", "0", "0.5000", "0.100 – 0.900", "vgg16", "0.0001", "2 of 2", "1.0", "–", "–", "–"],
    ]


def test_seeds_share_a_line_on_the_terminal(tmp_path: Path, shown: Callable[..., list[str]]) -> None:
    for seed, dice in enumerate((0.5, 0.7)):
        write_run(
            tmp_path / str(seed), dice, settings={"seed": seed}, seconds=60.0 * (1 + seed), images_per_second=10 * seed
        )
    (row,) = [line for line in shown(Leaderboard(find_runs(tmp_path), tmp_path), None) if line.startswith("│")]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        *("1", "1, 0", "0.6000 ± 0.1414 (n=2)", ""),
        *("2", "1.5", "5", "–", "–"),
    ]


def test_the_csv_has_a_row_for_each_run(six: Leaderboard, tmp_path: Path) -> None:
    write_csv(tmp_path / "leaderboard.csv", csv_rows(six))
    rows = read_rows(tmp_path / "leaderboard.csv")
    assert [(row["rank"], row["name"], row["status"]) for row in rows] == [
        *((1, "1", "finished"), (2, "3", "finished"), (3, "0", "finished")),
        *(("", "2", "failed"), ("", "4", "interrupted"), ("", "5", "not started")),
    ]
    assert list(rows[0])[-2:] == ["backbone", "lr"]
    assert [(row["backbone"], row["lr"]) for row in rows[2:4]] == [("vgg16", 0.0001), ("vgg16", 0.01)]
    best, failed, interrupted = rows[0], rows[3], rows[4]
    assert (best["val_dice"], best["low"], best["high"], best["mean_dice"], best["sd_dice"]) == (0.7, 0.1, 0.9, 0.7, "")
    assert (best["seconds"], best["epochs_done"], best["runs"], best["best_in"]) == (61.0, 2, 1, 1)
    assert best["command"] == "python -m segtune train backbone=vgg16 lr=1e-3"
    assert (failed["reason"], failed["val_dice"], failed["epochs_done"]) == ("Out of memory.", "", 0)
    assert interrupted["epochs_done"] == 2


def test_no_setting_has_the_name_of_a_column(six: Leaderboard) -> None:
    from segtune.cli.help import command_groups
    from segtune.cli.short_names import OF_PHASES, SHORT

    fixed = set(csv_rows(six)[0]) - {"backbone", "lr"}
    assert not fixed & {*command_groups("train"), *OF_PHASES, *SHORT, "seed", "experiment"}


def test_numbers_keep_their_digits_in_the_csv(tmp_path: Path) -> None:
    write_run(tmp_path / "0", 0.12345678901234, trainable_parameters={"all": 1234567}, peak_memory_bytes=1_234_567_890)
    (row,) = csv_rows(Leaderboard(find_runs(tmp_path), tmp_path))
    assert (row["val_dice"], row["trained_parameters"], row["peak_memory_bytes"]) == (
        0.12345678901234,
        1234567,
        1234567890,
    )


def test_costs_and_scores_as_text() -> None:
    facts = {"val_dice": 0.5, "best_epoch": 3, "epochs": 4, "seconds": 90.0, "images_per_second": 12.345}
    facts |= {"trainable_parameters": {"a": 2_345_678}, "peak_memory_bytes": 1.5e9}
    one = RunResult(Path("a"), summary=facts, epochs=[{"val_dice": 0.1}] * 4)
    assert costs_of(Entry((one,))) == ["3 of 4", "1.5", "12.3", "2.35 M", "1.50 GB"]
    assert dice_text(Entry((one,))) == "0.5000"
    assert dice_text(Entry((RunResult(Path("a"), summary={"val_dice_object": None}),))) == "–"
    assert [count_text(value) for value in (None, 0, 999, 1000, 25_636_712, 2.5e9)] == [
        "–",
        "0",
        "999",
        "1 k",
        "25.6 M",
        "2.5 B",
    ]
