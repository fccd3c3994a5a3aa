"""`report` as a command: what it writes, shows and returns, for any set of runs."""

from pathlib import Path

import pytest

from segtune.__main__ import main
from segtune.commands.report import report
from segtune.config.command_settings import ReportSettings
from segtune.runtime.files import read_rows
from tests.reporting.conftest import write_run, write_six


def test_all_runs_are_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, page = write_six(tmp_path / "runs"), tmp_path / "page.html"
    found = report(ReportSettings(str(folder), str(page)))
    assert [entry.best.folder.name for entry in found.entries] == ["1", "3", "0"]
    out = capsys.readouterr().out
    assert out.startswith("6 runs: 3 finished, 1 failed, 1 interrupted, 1 not started.\n")
    for expected in (
        "3 of 6 runs did not finish:\n  2  failed  backbone=vgg16 lr=0.01\n      Out of memory.\n  4  interrupted",
        "\n  5  not started  backbone=resnet50 lr=0.01\n",
        "What mattered, the other settings averaged:\n  lr: 0.001 0.7500 (1 run) against 0.0001 0.5500 (2 runs), "
        "0.2000 more.\n",
        "optimistically biased",
        "Evaluate the best run on the test split:\n  python -m segtune evaluate checkpoint=",
    ):
        assert expected in out, expected
    assert out.endswith(f"Wrote {page} and {tmp_path / 'leaderboard.csv'}.\n")
    assert "<h2>Leaderboard</h2>" in page.read_text(encoding="utf-8")
    assert len(read_rows(tmp_path / "leaderboard.csv")) == 6
    assert not (folder / "report.html").exists()


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", f"folder={tmp_path}"]) == 2
    assert f"folder={tmp_path}: no run found (no config.yaml of a run, no failure.json" in capsys.readouterr().err


def test_failures_alone_have_a_table_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "failure.json").write_text('{"reason": "No such data.", "overrides": ["lr=1"]}')
    assert main(["report", f"folder={tmp_path}"]) == 0
    assert "1 of 1 runs failed:\n  0  failed  lr=1\n      No such data.\n" in capsys.readouterr().out
    assert [(row["status"], row["reason"]) for row in read_rows(tmp_path / "leaderboard.csv")] == [
        ("failed", "No such data.")
    ]
    assert "No such data." in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_of_a_single_run_is_kept(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 0.5)
    (tmp_path / "run" / "report.html").write_text("its own")
    (entry,) = report(ReportSettings(str(tmp_path / "run"))).entries
    assert entry.dice == 0.5
    assert (tmp_path / "run" / "report.html").read_text() == "its own"
    assert 'href="report.html">run</a>' in (tmp_path / "run" / "leaderboard.html").read_text(encoding="utf-8")
