"""`report` as a command: which runs are ranked, in which order, and which are named as left out."""

import json
from pathlib import Path

import pytest
import yaml

from segtune.__main__ import main
from segtune.commands.report import report
from segtune.config.command_settings import ReportSettings


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder of two finished runs, one that is not finished, and one whose summary is damaged."""
    for name, dice in {"low": 0.5, "high": 0.75, "begun": None, "odd": None}.items():
        folder = tmp_path / "runs" / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed": len(name), "backbone": {"name": "resnet50"}}))
        (folder / "metrics.csv").write_text("epoch,val_dice\n1,0.25\n")
        if dice is not None:
            (folder / "summary.json").write_text(
                json.dumps({"val_dice": dice, "best_epoch": 1, "seconds": 60.0, "parameters": 9})
            )
    (tmp_path / "runs" / "odd" / "summary.json").write_text("{")
    return tmp_path / "runs"


def test_the_best_run_is_first_and_what_is_left_out_is_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = runs.parent / "page.html"
    found = report(ReportSettings(str(runs), str(page)))
    assert [run.folder.name for run in found] == ["high", "low"]
    out = capsys.readouterr().out
    assert out.index("high") < out.index("low")
    assert f"Not ranked (unfinished): {runs / 'begun'}.\n" in out
    assert f"Not ranked (not readable): {runs / 'odd'}.\n" in out
    assert out.endswith(f"Wrote {page}.\n")
    text = page.read_text(encoding="utf-8")
    assert "<th>seed</th>" in text  # in which they differ
    assert "backbone.name" not in text
    assert not (runs / "report.html").exists()


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", f"folder={tmp_path}"]) == 2
    assert f"folder={tmp_path}: no finished run found (no summary.json beside" in capsys.readouterr().err


def test_unfinished_runs_alone_are_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", f"folder={runs / 'begun'}"]) == 2
    assert f" Unfinished: {runs / 'begun'}. Expected a folder such as" in capsys.readouterr().err
