"""What TensorBoard's own reader finds in a run's files, also behind a kill."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtune.training.tensorboard import TensorBoard
from segtune.training.tracker import Start
from tests.training.conftest import points

pytestmark = pytest.mark.usefixtures("files_in_order")


def test_epochs_and_steps_have_an_axis_each(tmp_path: Path) -> None:
    board = TensorBoard(Start(tmp_path))
    board.epoch(1, 10, {"val_dice": 0.5, "val_loss": 2.0}, {})
    board.step(10, {"train/loss": 0.25, "train/gradient_norm": float("inf")})
    board.end("finished", {})
    assert points(tmp_path) == {"val_dice": [(1, 0.5)], "val_loss": [(1, 2.0)]}
    assert points(tmp_path, "steps") == {"train/loss": [(10, 0.25)], "train/gradient_norm": [(10, float("inf"))]}


def test_what_a_killed_run_wrote_is_there_and_what_a_resume_takes_back_is_not(tmp_path: Path) -> None:
    """The first file is never closed; the second run goes on from epoch 1, step 15."""
    killed = TensorBoard(Start(tmp_path, {"seed": 0}, lambda: "| a | b |"))
    for epoch in (1, 2):
        killed.epoch(epoch, 10 * epoch, {"val_dice": epoch / 10}, {"1 a": np.zeros((2, 2, 3), np.uint8)})
    for step in (5, 10, 15, 20):
        killed.step(step, {"train/loss": float(step)})
    resumed = TensorBoard(Start(tmp_path, {"seed": 1}, lambda: "again", epochs=1, steps=15))
    assert points(tmp_path) == {"val_dice": [(1, pytest.approx(0.1))]}
    resumed.epoch(2, 20, {"val_dice": 0.75}, {})
    resumed.step(20, {"train/loss": 0.5})
    assert points(tmp_path) == {"val_dice": [(1, pytest.approx(0.1)), (2, 0.75)]}
    assert points(tmp_path, "steps") == {"train/loss": [(5, 5.0), (10, 10.0), (15, 15.0), (20, 0.5)]}
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Images("samples/1 a")] == [1]
    texts = {"model": b"| a | b |", "settings": b"```yaml\nseed: 0\n```"}
    for name, text in texts.items():
        assert [(e.step, e.tensor_proto.string_val) for e in events.Tensors(f"{name}/text_summary")] == [(0, [text])]


def test_a_run_that_begins_anew_takes_back_everything(tmp_path: Path) -> None:
    """It was killed in its first epoch, behind its row and before its checkpoint."""
    TensorBoard(Start(tmp_path)).epoch(1, 3, {"val_dice": 0.5}, {})
    TensorBoard(Start(tmp_path)).epoch(1, 3, {"val_dice": 0.25}, {})
    assert points(tmp_path) == {"val_dice": [(1, 0.25)]}


def test_images_are_as_they_look(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    image = cv2.resize(coarse, (96, 64), interpolation=cv2.INTER_CUBIC)
    TensorBoard(Start(tmp_path)).epoch(1, 3, {}, {"1 a": image})
    (event,) = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Images("samples/1 a")
    decoded = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (event.height, event.width) == (64, 96)
    assert np.abs(decoded.astype(int) - image).mean() < 4
