"""The records of an epoch, read back with independent readers."""

import csv
from pathlib import Path

import cv2
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtune.training.epoch_log import EpochRecorder
from segtune.training.tracker import Start
from segtune.training.tracking import Tracking
from tests.training.conftest import points


def row(epoch: int, loss: float) -> dict[str, object]:
    return {"epoch": epoch, "phase": "head", "train_loss": loss}


def test_rows_images_and_curves(tmp_path: Path) -> None:
    recorder = EpochRecorder(tmp_path, [], Tracking(Start(tmp_path)))
    samples = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    recorder.epoch(row(1, 0.5), 3, {"1 a": samples[0], "3 c": samples[1]})
    recorder.epoch(row(2, 0.25), 6, {})
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["epoch", "phase", "train_loss"], ["1", "head", "0.5"], ["2", "head", "0.25"]]
    (image,) = (tmp_path / "samples").iterdir()
    assert image.name == "epoch_001.png"
    drawn = cv2.imread(str(image))[..., ::-1]
    np.testing.assert_array_equal(drawn[:4], samples[0])
    np.testing.assert_array_equal(drawn[-4:], samples[1])
    assert points(tmp_path) == {"train_loss": [(1, 0.5), (2, 0.25)]}
    tags = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Tags()
    assert tags["images"] == ["samples/1 a", "samples/3 c"]


def test_a_resumed_run_goes_on_behind_the_epochs_it_has(tmp_path: Path) -> None:
    recorder = EpochRecorder(tmp_path, [], Tracking(Start(tmp_path)))
    for epoch in (1, 2):
        recorder.epoch(row(epoch, 1 / epoch), epoch, {})
    again = EpochRecorder(tmp_path, [row(1, 1.0)], Tracking(Start(tmp_path, epochs=1)))  # the second is lost
    again.epoch(row(2, 0.125), 2, {})
    assert (tmp_path / "metrics.csv").read_text() == "epoch,phase,train_loss\n1,head,1.0\n2,head,0.125\n"
