"""The files that remember a sweep."""

import json
import os
from pathlib import Path

import pytest

from segtune.errors import UserError
from segtune.runtime.sweep_files import (
    SweepJob,
    SweepRecord,
    is_finished,
    label,
    read_failure,
    read_sweep,
    remove_failure,
    write_failure,
    write_sweep,
)

JOBS = tuple(
    SweepJob(number, str(number), ("epochs=2", f"seed={number % 2}", f"lr={rate}"))
    for number, rate in enumerate(("1e-3", "1e-3", "1e-4", "1e-4"))
)


def test_a_sweep_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = SweepRecord("python -m segtune train -m seed=0,1", JOBS)
    assert read_sweep(tmp_path) is None
    write_sweep(tmp_path, record)
    assert read_sweep(tmp_path) == record
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["jobs"][2] == {"number": 2, "folder": "2", "overrides": ["epochs=2", "seed=0", "lr=1e-4"]}


@pytest.mark.parametrize("content", ["{", "[]", '{"command": "x"}', '{"command": "x", "jobs": [{"number": "a"}]}'])
def test_a_damaged_record_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UserError, match=r"sweep\.json is damaged: .* Remove it; the sweep's own command, with run_dir"):
        read_sweep(tmp_path)


def test_a_failure_is_there_until_the_job_succeeds(tmp_path: Path) -> None:
    assert read_failure(tmp_path) is None
    write_failure(tmp_path, "no", "UserError", ["seed=1"], "python -m segtune train seed=1")
    assert read_failure(tmp_path) == {
        "reason": "no",
        "kind": "UserError",
        "overrides": ["seed=1"],
        "command": "python -m segtune train seed=1",
    }
    (tmp_path / "failure.json").write_text("{")
    assert read_failure(tmp_path) == {"reason": f"unknown: {tmp_path / 'failure.json'} is damaged"}
    for _ in range(2):
        remove_failure(tmp_path)
    assert read_failure(tmp_path) is None


def test_a_run_is_finished_with_its_report_unless_it_went_on_or_failed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/last.pt", "summary.json", "report.html"):
        assert not is_finished(tmp_path)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (100, 100))
    assert is_finished(tmp_path)
    os.utime(tmp_path / "checkpoints" / "last.pt", (101, 101))
    assert not is_finished(tmp_path)
    os.utime(tmp_path / "summary.json", (102, 102))
    assert is_finished(tmp_path)
    (tmp_path / "failure.json").touch()
    assert not is_finished(tmp_path)


def test_a_label_is_what_not_all_jobs_share() -> None:
    assert [label(job, JOBS) for job in JOBS] == [
        "seed=0 lr=1e-3",
        "seed=1 lr=1e-3",
        "seed=0 lr=1e-4",
        "seed=1 lr=1e-4",
    ]
    assert label(JOBS[0], JOBS[:1]) == ""
