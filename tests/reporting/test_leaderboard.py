"""The leaderboard: which runs it holds, and its tables on the terminal and in a file."""

import json
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from segtune.errors import UserError
from segtune.reporting.leaderboard import RunResult, differing, find_runs, leaderboard_tables, link_to
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


def write_run(folder: Path, dice: float, *, evaluated: float | None = None, split: str = "val") -> None:
    """Write what the leaderboard reads of a run."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 3, "train": {"clip": 1.0}, "run_dir": str(folder)}))
    summary = {"val_dice": dice, "best_epoch": 2, "seconds": 60.0, "parameters": 7}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.csv").write_text(f"epoch,val_dice\n1,0.1\n2,{dice}\n")
    if evaluated is not None:
        facts = {"split": split, "dice_mean": evaluated, "intervals": {"dice_mean": [0.1, 0.9]}}
        (folder / "evaluation.json").write_text(json.dumps(facts))
        (folder / "per_image.csv").write_text("name,dice\n7,0.5\nb,0.6\n")


def test_finished_runs_are_ranked_and_the_others_named(tmp_path: Path) -> None:
    write_run(tmp_path / "worse", 0.5)
    write_run(tmp_path / "sweep" / "better", 0.75, evaluated=0.75)
    write_run(tmp_path / "begun", 0.9)
    (tmp_path / "begun" / "summary.json").unlink()
    write_run(tmp_path / "nan", float("nan"))
    write_run(tmp_path / "cut", 0.9)
    (tmp_path / "cut" / "config.yaml").write_text("")
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "config.yaml").write_text("seed: 0")  # a probe has no checkpoints
    runs, unfinished, damaged = find_runs(tmp_path)
    assert [run.folder.name for run in runs] == ["better", "worse"]
    assert (unfinished, damaged) == ([tmp_path / "begun"], [tmp_path / "cut", tmp_path / "nan"])
    better, worse = runs
    assert better.settings == {"seed": "3", "train.clip": "1.0"}  # without the folder
    assert better.dices == [0.1, 0.75]
    assert (better.interval, better.images) == ("0.100 – 0.900", ("7", "b"))
    assert (worse.interval, worse.images) == ("", ())
    with pytest.raises(UserError):
        find_runs(tmp_path / "nowhere")


@pytest.mark.parametrize(("evaluated", "split"), [(0.7, "val"), (0.75, "test")])
def test_an_interval_of_another_evaluation_is_not_shown(tmp_path: Path, evaluated: float, split: str) -> None:
    write_run(tmp_path / "run", 0.75, evaluated=evaluated, split=split)
    assert find_runs(tmp_path)[0][0].interval == ""


def test_settings_that_differ_or_are_missing_are_named() -> None:
    assert differing([{"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}, {"a": "1", "b": "2"}]) == ["b", "c"]
    assert differing([{"a": "1"}]) == []


def test_a_phase_that_some_runs_lack_differs_in_what_it_sets() -> None:
    own = {"lr": "0.1", "gamma": "None", "freeze": "[]", "backbone": "all", "power": "2.0", "epochs": "3"}
    phase = {f"freeze.phases.late.{key}": value for key, value in own.items()}
    assert differing([phase, {}]) == [f"freeze.phases.late.{key}" for key in ("lr", "power", "epochs")]


def test_links_are_relative_and_quoted(tmp_path: Path) -> None:
    report, page = tmp_path / "a b" / "100%" / "report.html", tmp_path / "pages" / "report.html"
    assert link_to(report, page) == ""  # there is none
    report.parent.mkdir(parents=True)
    report.touch()
    assert link_to(report, page) == "../a%20b/100%25/report.html"
    assert link_to(report, report) == ""


def test_runs_are_ranked_by_the_images_with_an_object(tmp_path: Path) -> None:
    """A run that predicts nothing has the best Dice over mostly empty masks; one without any object comes last."""
    for name, over_all, with_object in (("black", 0.9, 0.0), ("sees", 0.6, 0.7), ("none", 1.0, None)):
        write_run(tmp_path / name, over_all)
        path = tmp_path / name / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"val_dice_object": with_object}))
    runs, *others = find_runs(tmp_path)
    assert [(run.folder.name, run.dice) for run in runs] == [("sees", 0.7), ("black", 0.0), ("none", None)]
    assert others == [[], []]
