"""The records of an epoch, read back with independent readers."""

import csv
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtune.training import epoch_log
from segtune.training.epoch_log import EpochRecorder


def row(epoch: int, loss: float) -> dict[str, object]:
    return {"epoch": epoch, "phase": "head", "train_loss": loss}


def scalars(folder: Path) -> Iterator[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return ((event.step, event.value) for event in events.Scalars("train_loss"))


def test_rows_images_and_curves(tmp_path: Path) -> None:
    recorder = EpochRecorder(tmp_path, [])
    samples = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    recorder.epoch(row(1, 0.5), samples)
    recorder.epoch(row(2, 0.25), None)
    recorder.close()
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["epoch", "phase", "train_loss"], ["1", "head", "0.5"], ["2", "head", "0.25"]]
    (image,) = (tmp_path / "samples").iterdir()
    assert image.name == "epoch_001.png"
    np.testing.assert_array_equal(cv2.imread(str(image))[..., ::-1], samples)
    assert list(scalars(tmp_path)) == [(1, 0.5), (2, 0.25)]


def test_a_resumed_run_goes_on_behind_the_epochs_it_has(tmp_path: Path) -> None:
    recorder = EpochRecorder(tmp_path, [])
    for epoch in (1, 2):
        recorder.epoch(row(epoch, 1 / epoch), None)
    recorder.close()
    again = EpochRecorder(tmp_path, [row(1, 1.0)])  # the second epoch is not in the checkpoint
    again.epoch(row(2, 0.125), None)
    again.close()
    assert (tmp_path / "metrics.csv").read_text() == "epoch,phase,train_loss\n1,head,1.0\n2,head,0.125\n"


def test_without_tensorboard_the_table_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(epoch_log, "SummaryWriter", full)
    recorder = EpochRecorder(tmp_path, [])
    recorder.epoch(row(1, 0.5), None)
    recorder.close()
    assert caplog.messages == ["The TensorBoard file cannot be written (disk full); metrics.csv is still written."]
    assert (tmp_path / "metrics.csv").read_text().endswith("1,head,0.5\n")
