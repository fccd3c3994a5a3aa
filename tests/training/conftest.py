"""What tests of training share: a tiny data set, settings for it, and a training on it."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from segtune.commands import train as commands
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.data.sources.base import Pair
from segtune.models.build import BuiltModel
from segtune.models.checkpoint import Checkpoint
from segtune.runtime.device import resolve_device
from segtune.training import loop as engine
from segtune.training.phases import plan_phases


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten discs on noise, of odd sizes, with train.txt of 5 (a last batch of one), val.txt and test.txt."""
    root = tmp_path_factory.mktemp("discs")
    generator = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "masks").mkdir()
    names = [f"disc{i}" for i in range(10)]
    for i, name in enumerate(names):
        mask = np.zeros((70 + i, 90 - i), np.uint8)
        cv2.circle(mask, (30 + 3 * i, 35), 14 + i, 255, -1)
        photo = generator.integers(0, 120, (*mask.shape, 3)).astype(np.uint8) + (mask > 0)[..., None] * np.uint8(100)
        cv2.imwrite(str(root / "images" / f"{name}.png"), photo)
        cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
    for split, part in {"train": names[:5], "val": names[5:8], "test": names[8:]}.items():
        (root / f"{split}.txt").write_text("\n".join(part) + "\n")
    return root


def settings(root: Path, phases: dict | None = None, **train) -> Settings:
    return parse(
        Settings,
        {
            "backbone": {"name": "resnet50", "weights": "none"},
            "taps": {"low": "layer1.0.act2", "high": "layer1.2.act2"},
            "decoder": {"name": "deeplabv3plus", "channels": 16, "low_channels": 8},
            "freeze": {"phases": phases or {"one": {"epochs": 2, "lr": 1e-3}, "two": {"epochs": 1, "lr": 1e-4}}},
            "data": {"name": "folder", "root": str(root), "image_size": 64},
            "augment": {"transforms": {"HorizontalFlip": {"p": 0.5}}},
            "loss": {"name": "dice_bce"},
            "optimizer": {"name": "adamw"},
            "train": {"batch_size": 2, "workers": 0, "samples": 2, "device": "cpu", **train},
            "checkpoint": {},
        },
    )


@pytest.fixture
def files_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let event files of one second sort as they were made: TensorBoard reads them by name, and file 10 before 9."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(100))


def points(folder: Path, below: str = "") -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values by tag that TensorBoard's own reader finds in a run; repeated ones too."""
    events = EventAccumulator(str(folder / "tensorboard" / below)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def weights_of(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return Checkpoint.load(folder / "checkpoints" / name).model


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def without_reports() -> Iterator[None]:
    """Leave out the evaluation and the report at the end of a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "_conclude", lambda *_: None)
        yield


def fit(chosen: Settings, built: BuiltModel, splits: dict[str, list[Pair]], folder: Path) -> None:
    phases = plan_phases(chosen, built)
    engine.fit(chosen, built, phases, lambda _: {"trainable": 0}, splits, folder, resolve_device(chosen.train))
