"""The ranking on the screen."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from segtune.reporting.leaderboard import RunResult, leaderboard_tables
from segtune.runtime import console

DIFFERING = ["taps.low", "taps.high", "freeze.phases.all.backbone_lr_scale"]


def runs() -> dict[Path, RunResult]:
    """Return two runs, one of them from before evaluations were written, and without one of the settings."""
    evaluation = {"intervals": {"dice_mean": [0.8, 0.9]}}
    summary = {"val_dice": 0.85, "best_epoch": 12, "seconds": 7530.0}
    settings = {"taps.low": "block4_sepconv1_act", "taps.high": "block13_sepconv2_act", DIFFERING[2]: "0.1"}
    first, second = Path("2026-01-31_12-00-00_xception_deeplabv3plus"), Path("sweep/1")
    plain = {name: settings[name] for name in DIFFERING[:2]}
    return {
        first: RunResult(first, summary, settings, [], evaluation, ()),
        second: RunResult(second, summary | {"val_dice": 0.5}, plain, [], {}, ()),
    }


def shown(columns: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    terminal = Console(width=columns, force_terminal=columns is not None, color_system=None, markup=False)
    monkeypatch.setattr(console, "console", terminal)
    found = runs()
    console.print_table(*leaderboard_tables(list(found.values()), {folder: str(folder) for folder in found}, DIFFERING))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_at_80_columns_settings_stand_under_their_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(80, monkeypatch, capsys)
    assert all(len(line) <= 80 for line in lines)
    assert [re.sub(r"(?<=\S) {2,}", " ", line) for line in lines] == [
        "                                           val Dice,",
        "run 95 % interval epoch minutes",
        "─" * len(lines[2]),
        "2026-01-31_12-00-00_xception_deeplabv3plus 0.8500 12 125.5",
        "  taps.low=block4_sepconv1_act 0.800 – 0.900",
        "  taps.high=block13_sepconv2_act",
        "  freeze.phases.all.backbone_lr_scale=0.1",
        "",
        "sweep/1 0.5000 12 125.5",
        "  taps.low=block4_sepconv1_act",
        "  taps.high=block13_sepconv2_act",
    ]


def test_a_file_gets_a_column_for_each_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [line.split("│")[1:-1] for line in shown(None, monkeypatch, capsys) if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [
            *("2026-01-31_12-00-00_xception_deeplabv3plus", "0.8500", "0.800 – 0.900", "12", "125.5"),
            *("block4_sepconv1_act", "block13_sepconv2_act", "0.1"),
        ],
        ["sweep/1", "0.5000", "", "12", "125.5", "block4_sepconv1_act", "block13_sepconv2_act", ""],
    ]
