"""A run in MLflow without a server, read back from its database with SQLite alone."""

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow", reason="needs the extra: pip install 'segtune[mlflow]'")

from mlflow import MlflowClient

from segtune.training.mlflow import MLflow
from segtune.training.tracker import Start
from segtune.training.tracking import Tracking

pytestmark = pytest.mark.slow  # MLflow takes seconds to make its database

SETTINGS = {
    "seed": 0,
    "data": {"root": "photos", "image_size": [64, 96], "limit": None, "skin": True},
    "restore": {"rename": {"re:a|b": "c."}},
    **{f"many{number}": number for number in range(200)},
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    return tmp_path


def rows(home: Path, query: str) -> list[Any]:
    with sqlite3.connect(home / "mlflow.db") as database:
        return database.execute(query).fetchall()


def test_a_killed_and_resumed_run_is_one_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process works in another folder, with another setting."""
    folder = home / "runs" / "a"
    killed = Tracking(Start(folder, SETTINGS), ["mlflow"])
    killed.step(10, {"train/loss": 2.0, "train/gradient_norm": 1.5})
    killed.step(20, {"train/loss": 1.0})
    ((status,),) = rows(home, "SELECT status FROM runs")
    assert status == "RUNNING"
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    resumed = Tracking(Start(folder, {**SETTINGS, "seed": 1}, steps=10), ["mlflow"])
    resumed.step(20, {"train/loss": 1.0})
    resumed.epoch(1, 25, {"val_dice": 0.5}, {})
    resumed.end("finished", {"val_dice": 0.5, "device": "cpu", "phases": {"all": {"trainable": 3}}, "none": None})
    assert not (home / "elsewhere" / "mlflow.db").exists()
    assert rows(home, "SELECT status, name FROM runs") == [("FINISHED", "a")]
    assert rows(home, "SELECT name FROM experiments ORDER BY name") == [("Default",), ("segtune",)]
    metrics = "SELECT key, value, step FROM metrics ORDER BY key, step"
    assert rows(home, metrics) == [
        ("summary/phases.all.trainable", 3.0, 0),
        ("summary/val_dice", 0.5, 0),
        ("train/gradient_norm", 1.5, 10),
        ("train/loss", 2.0, 10),
        ("train/loss", 1.0, 20),
        ("val_dice", 0.5, 1),
    ]
    settings = dict(rows(home, "SELECT key, value FROM params"))
    assert len(settings) == 206
    assert (
        settings.items()
        >= {
            "seed": "0",
            "data.root": "photos",
            "data.image_size": "[64, 96]",
            "data.limit": "null",
            "data.skin": "true",
            "restore.rename.re_a_b": "c.",
            "many199": "199",
        }.items()
    )
    tags = dict(rows(home, "SELECT key, value FROM tags"))
    assert tags.items() >= {"seed": "1", "summary/device": "cpu", "folder": str(folder)}.items()
    assert tags["checkpoint"] == str(folder / "checkpoints" / "best.pt")
    assert "data.root" not in tags


def test_runs_that_begin_at_once_share_a_new_database(home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from segtune.training.mlflow import MLflow;"
        "from segtune.training.tracker import Start; MLflow(Start(Path(sys.argv[1]))).end('finished', {})"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("a", "b")]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert rows(home, "SELECT name, status FROM runs ORDER BY name") == [("a", "FINISHED"), ("b", "FINISHED")]


@pytest.mark.parametrize(("status", "expected"), [("killed", "KILLED"), ("failed", "FAILED")])
def test_a_run_has_the_status_of_its_end(home: Path, status: Any, expected: str) -> None:
    MLflow(Start(home / "runs" / "a")).end(status, {})
    assert rows(home, "SELECT status FROM runs") == [(expected,)]


def test_the_users_store_and_experiment_count_and_no_password_is_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mine.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "skin")
    tracker = MLflow(Start(home / "runs" / "a"))
    assert tracker.kept.keys() == {"run"}
    again = MLflow(Start(home / "runs" / "a", kept=tracker.kept))
    assert again.kept == tracker.kept
    (home / "mine.db").rename(home / "mlflow.db")
    assert rows(home, "SELECT name FROM experiments ORDER BY name") == [("Default",), ("skin",)]


def test_a_run_that_was_deleted_begins_anew_and_an_unreachable_store_is_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = MLflow(Start(home / "runs" / "a", kept={"run": 32 * "0"}))
    assert tracker.run != 32 * "0"
    assert MlflowClient().get_run(tracker.run).info.status == "RUNNING"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    Tracking(Start(home / "runs" / "a"), ["mlflow"]).step(1, {"loss": 1.0})
    (message,) = [each for each in caplog.messages if each.startswith("MLflow")]
    assert message.startswith("MLflow cannot be written (API request to http://127.0.0.1:9/")
