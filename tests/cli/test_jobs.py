"""A job of a sweep, in the sweep's process and in one of its own."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

import segtune
from segtune.cli import jobs
from segtune.cli.jobs import HELD, Share, attempt, value_of
from segtune.errors import FailedError

WORDS = ["python", "-m", "segtune", "train", "--config-dir=mine", "seed=1"]


def test_a_failure_is_kept_until_the_job_succeeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise FailedError("no")

    value, reason = attempt("train", tmp_path, WORDS, fail)
    assert (math.isnan(value), reason) == (True, "no")
    assert json.loads((tmp_path / "failure.json").read_text()) == {
        "reason": "no",
        "kind": "FailedError",
        "overrides": ["seed=1"],
        "command": "python -m segtune train --config-dir=mine seed=1",
    }
    assert capsys.readouterr().err == ""
    assert attempt("train", tmp_path, WORDS, lambda: 0.5) == (0.5, None)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_told_where_it_cannot_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert attempt("train", tmp_path / "file" / "0", WORDS, lambda: {}["x"])[1] == "KeyError: 'x'"
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("share", "place", "expected"),
    [
        (Share(), 0, {}),
        (Share(3, 0, ("4", "7")), 2, {"CUDA_VISIBLE_DEVICES": "4"}),
        (Share(2, 1, ("4", "7")), 1, {"OMP_NUM_THREADS": "1", "SEGTUNE_CORES": "1", "CUDA_VISIBLE_DEVICES": "7"}),
    ],
)
def test_a_share_is_told_by_the_environment(share: Share, place: int, expected: dict[str, str]) -> None:
    found = share.environment(place)
    assert {name: value for name, value in found.items() if name[:3] not in ("MKL", "OPE")} == expected


def test_as_many_jobs_run_at_once_as_there_are_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third waits until another ends; when the sweep is to stop it waits no longer."""
    monkeypatch.setattr(jobs, "PAUSE", 0.005)
    stop, got = tmp_path / "stop", []

    def third() -> None:
        with jobs._place(tmp_path, 2, stop) as place:
            got.append(place)

    with jobs._place(tmp_path, 2, stop) as one:
        with jobs._place(tmp_path, 2, stop) as other:
            assert (one, other) == (0, 1)
            thread = threading.Thread(target=third)
            thread.start()
            time.sleep(0.05)
            assert got == []
        thread.join()
        assert got == [1]
        with jobs._place(tmp_path, 2, stop):
            stop.touch()
            third()
    assert got == [1, 0]


WAITING = r"""
import os, sys, time
print(f"ready {os.getpid()}\n", end="", flush=True)
sys.stdin.read()
print("asked", flush=True)
time.sleep(0.1)
sys.exit(130)
"""


@pytest.mark.parametrize("how", ["stop", "signal", "killed"])
def test_a_job_is_asked_once_to_stop_and_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(jobs, "PAUSE", 0.005)
    log, stop = tmp_path / "log", tmp_path / "stop"

    def act() -> None:
        while not (begun := log.read_text() if log.exists() else "").endswith("\n"):
            time.sleep(0.005)
        if how == "stop":
            stop.touch()
        elif how == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            os.kill(int(begun.split()[1]), signal.SIGKILL)

    threading.Thread(target=act).start()
    code = jobs._wait_for([sys.executable, "-c", WAITING], {"A": "b"}, log, stop)
    assert code == (-9 if how == "killed" else 130)
    assert log.read_text().split()[2:] == ([] if how == "killed" else ["asked"])


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a job in a process of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGTUNE_JOB_FOLDER", str(tmp_path))
    monkeypatch.setattr(jobs, "_interrupt_at_end_of_input", lambda: None)
    return tmp_path


def test_a_job_in_a_process_of_its_own_leaves_its_reason(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["", "train", "seed=-1"])
    assert jobs.main() == 1
    failure = json.loads((own / "failure.json").read_text())
    assert failure["command"] == "python -m segtune train seed=-1"
    assert capsys.readouterr().err == f"segtune train: {failure['reason']}\n"


def test_a_job_that_another_process_finishes_is_not_run_again(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["", "train", "seed=-1"])
    (own / "checkpoints").mkdir()
    locked, finished = threading.Event(), []

    def finish() -> None:
        with FileLock(own / HELD):
            locked.set()
            time.sleep(0.05)
            for name in ("checkpoints/last.pt", "summary.json", "report.html"):
                (own / name).write_text('{"val_dice": 0.75}')
            finished.append(True)

    threading.Thread(target=finish).start()
    locked.wait()
    assert jobs.main() == 0
    assert finished
    assert value_of(own) == 0.75


def test_a_process_is_interrupted_when_the_one_that_started_it_ends(tmp_path: Path) -> None:
    """That one is killed; this one gets the signal, once, that lets a run save what it has."""
    waiting = (
        "import threading, time\nfrom segtune.cli import jobs\n"
        "from segtune.runtime.interrupts import interrupting\n"
        "try:\n    with interrupting():\n"
        "        threading.Thread(target=jobs._interrupt_at_end_of_input, daemon=True).start()\n"
        "        print(flush=True); time.sleep(20)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.1); open('saved', 'w').close()\n"
    )
    starts = f"import subprocess as s, sys; s.Popen([sys.executable, '-c', {waiting!r}], stdin=s.PIPE).wait()"
    env = {**os.environ, "PYTHONPATH": str(Path(segtune.__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, "-c", starts], cwd=tmp_path, env=env, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if (tmp_path / "saved").exists():
            return
        time.sleep(0.05)
    pytest.fail("it was not interrupted")
