"""A run in Weights & Biases, offline, read back from its file."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wandb", reason="needs the extra: pip install 'segtune[wandb]'")

from wandb.proto import wandb_internal_pb2

from segtune.training.tracker import Start
from segtune.training.tracking import Tracking

pytestmark = pytest.mark.slow  # it starts a process of its own


def records(file: Path) -> Iterator[Any]:
    """Yield all records of a `.wandb` file: LevelDB's log format behind seven bytes, in blocks of 32 KiB."""
    content, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        part = content[place + 7 : place + 7 + size]
        place += 7 + size
        whole = part if kind in (1, 2) else whole + part  # whole, or first
        if kind in (1, 4):  # whole, or last
            yield wandb_internal_pb2.Record.FromString(whole)


def wait_for_end(file: Path) -> None:
    """Wait for the record of the exit: W&B's own process writes it, perhaps a little after `finish` returns."""
    ends = time.monotonic() + 30
    while not any(record.HasField("exit") for record in records(file)) and time.monotonic() < ends:
        time.sleep(0.05)


def history(file: Path) -> list[dict[str, float]]:
    """Return the rows of the history, without W&B's own columns but for the step."""
    found = []
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            row = {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            found.append({key: value for key, value in row.items() if key not in ("_runtime", "_timestamp")})
    return found


def test_a_killed_and_resumed_run_has_one_id_and_every_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB__DISABLE_STATS", "true")
    folder = tmp_path / "night" / "3"
    folder.mkdir(parents=True)
    (folder.parent / "multirun.yaml").touch()
    stopped = Tracking(Start(folder, {"seed": 0, "data": {"root": "photos"}}), ["wandb"])
    stopped.step(10, {"train/loss": 2.0})
    stopped.step(20, {"train/loss": 1.0})
    stopped.end("killed", {})
    resumed = Tracking(Start(folder, {"seed": 0, "data": {"root": "photos"}}, steps=10), ["wandb"])
    resumed.step(20, {"train/loss": 1.0})
    resumed.step(30, {"train/loss": 0.5})
    resumed.epoch(1, 30, {"val_dice": 0.5}, {})
    resumed.epoch(2, 60, {"val_dice": 0.75}, {})
    resumed.end("finished", {"val_dice": 0.75, "phases": {"all": {"trainable": 3}}})
    assert capsys.readouterr().err == ""
    first, second = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    wait_for_end(first)
    wait_for_end(second)
    assert history(first) == [{"_step": 10, "train/loss": 2.0}, {"_step": 20, "train/loss": 1.0}]
    assert history(second) == [
        {"_step": 30, "train/loss": 0.5, "epoch": 1, "val_dice": 0.5},
        {"_step": 60, "epoch": 2, "val_dice": 0.75},
    ]
    runs = [each.run for file in (first, second) for each in records(file) if each.WhichOneof("record_type") == "run"]
    assert len({run.run_id for run in runs}) == 1
    assert {(run.project, run.run_group, run.display_name) for run in runs} == {("segtune", "night", "night/3")}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["data"] == {"root": "photos"}
    assert config["place"]["checkpoint"] == str(folder / "checkpoints" / "best.pt")
    codes = [each.exit.exit_code for file in (first, second) for each in records(file) if each.HasField("exit")]
    assert codes == [255, 0]
    summary = {item.key: item.value_json for each in records(second) for item in each.summary.update}
    assert summary.items() >= {"summary/val_dice": "0.75", "summary/phases.all.trainable": "3"}.items()


def test_what_fails_at_the_start_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    Tracking(Start(tmp_path), ["wandb"]).step(1, {"loss": 1.0})
    (message,) = [each for each in caplog.messages if each.startswith("Weights")]
    assert message.startswith("Weights & Biases cannot be written (")
