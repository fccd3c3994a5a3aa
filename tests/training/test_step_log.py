"""The log of steps: its lines word by word, and a run's against an independent computation, behind a kill too."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import cos, pi
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtune.commands import train as commands
from segtune.config.training_settings import TrainSettings
from segtune.losses import build_loss
from segtune.runtime import console
from segtune.training import epoch, step_log
from segtune.training.step_log import StepLog
from segtune.training.tracker import Start
from segtune.training.tracking import Tracking
from tests.training.conftest import points, same, settings, weights_of

FACTS = {"lr_min": 1e-5, "lr_max": 1e-3, "gradient_norm": 0.12345}


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., StepLog]:
    return lambda **train: StepLog(TrainSettings(**train), Tracking(Start(tmp_path)))


def test_a_line_and_points_tell_the_means_since_the_last_ones(
    log: Callable[..., StepLog], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = log()
    for loss_sum, images, seconds, waited in ((8.0, 8, 0.5, 0.25), (2.5, 2, 0.75, 0.25)):
        logged.add(loss_sum, images)
        logged.add_time(seconds, waited)
    logged.write("head  epoch 1/3  step 10/30", 10, FACTS)
    logged.add(1.0, 4)
    logged.add_time(2.0, 0.0)
    logged.write("head  epoch 1/3  step 20/30", 20, {**FACTS, "lr_min": 1e-3, "loss_scale": 32768.0})
    assert capsys.readouterr().out.splitlines() == [
        "head  epoch 1/3  step 10/30  loss 1.0500  lr 1e-05 to 0.001  8.0 images/s  waiting 40%  gradient norm 0.123",
        "head  epoch 1/3  step 20/30  loss 0.2500  lr 0.001  2.0 images/s  waiting 0%  gradient norm 0.123  "
        "loss scale 32768",
    ]
    found = {tag: dict(values) for tag, values in points(tmp_path, "steps").items()}
    assert found == {
        "train/loss": {10: pytest.approx(1.05), 20: 0.25},
        "train/images_per_second": {10: 8.0, 20: 2.0},
        "train/waiting": {10: pytest.approx(0.4), 20: 0.0},
        "train/wait_seconds": {10: 0.5, 20: 0.0},
        "train/lr_min": {10: pytest.approx(1e-5), 20: pytest.approx(1e-3)},
        "train/lr_max": {10: pytest.approx(1e-3), 20: pytest.approx(1e-3)},
        "train/gradient_norm": {10: pytest.approx(0.12345), 20: pytest.approx(0.12345)},
        "train/loss_scale": {20: 32768.0},
    }


def test_on_a_terminal_the_progress_bar_is_enough(
    log: Callable[..., StepLog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "console", Console(force_terminal=True))
    logged = log()
    logged.add(1.0, 4)
    logged.add_time(2.0, 0.0)
    logged.write("head", 10, FACTS)
    assert capsys.readouterr().out == ""
    assert points(tmp_path, "steps")["train/loss"] == [(10, 0.25)]


@pytest.mark.parametrize(
    ("every", "seconds", "expected"),
    [(3, None, [3, 6, 9]), (0, None, []), (0, 2.5, [3, 6, 9]), (5, 4, [4, 5, 9, 10]), (1, 99, range(1, 11))],
)
def test_steps_are_logged_by_number_and_by_time(
    log: Callable[..., StepLog],
    monkeypatch: pytest.MonkeyPatch,
    every: int,
    seconds: float | None,
    expected: Sequence[int],
) -> None:
    """A step a second."""
    now = 100.0
    monkeypatch.setattr(step_log, "time", SimpleNamespace(monotonic=lambda: now))
    logged, found = log(log_every=every, log_seconds=seconds), []
    for step in range(1, 11):
        now += 1
        logged.add(1.0, 1)
        if logged.is_due(step):
            found.append(step)
            logged.write("", step, FACTS)
    assert found == list(expected)


class Killed(BaseException):
    """What a kill is to a test: nothing is saved or closed."""


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.usefixtures("quick", "without_reports", "files_in_order")
def test_a_killed_and_resumed_run_logs_every_step_once(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batches of 2, 2 and 1 images make two steps an epoch; the kill comes within the second epoch, in step 4."""
    losses: list[float] = []  # of every batch, times its images
    norms: list[float] = []  # of every step
    loss_fn, take, killed_at = build_loss(settings(discs).loss), epoch.take_step, 0

    def watched(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = loss_fn(logits, target)
        if logits.requires_grad:
            losses.append(loss.item() * len(logits))
        return loss

    def step(run: Any, *more: Any) -> None:
        if len(norms) + 1 == killed_at:
            raise Killed
        gradients = [p.grad.double() for p in run.model.parameters() if p.grad is not None]
        norms.append(float(np.sqrt(sum((gradient**2).sum().item() for gradient in gradients))))
        take(run, *more)

    monkeypatch.setattr(epoch, "build_loss", lambda _: watched)
    monkeypatch.setattr(epoch, "take_step", step)
    straight, folder = tmp_path / "straight", tmp_path / "killed"
    commands.train(settings(discs, accumulate=2, log_every=0), straight)
    assert points(straight, "steps") == {}
    assert (len(losses), len(norms)) == (9, 6)
    one, two = list(losses), list(norms)
    assert "  step " not in capsys.readouterr().out
    killed_at = len(norms) + 4
    with pytest.raises(Killed):
        commands.train(settings(discs, accumulate=2, log_every=1), folder)
    killed_at = 0
    chosen = settings(discs, accumulate=2, log_every=3)
    commands.train(replace(chosen, resume=str(folder)), folder)
    assert same(weights_of(straight), weights_of(folder))
    lines = re.findall(r"(\w+)  epoch (\d/\d)  step (\d/\d)  loss ([\d.]+) ", capsys.readouterr().out)
    # Steps 1 to 3 before the kill, each by itself; the resume goes on behind step 2, with every third of the run.
    steps = [("one", "1/3", "1/6"), ("one", "1/3", "2/6"), ("one", "2/3", "3/6")]
    places = [*steps, ("one", "2/3", "3/6"), ("two", "3/3", "6/6")]
    means = [sum(one[:2]) / 4, one[2], *[sum(one[3:5]) / 4] * 2, sum(one[5:]) / 6]
    assert [line[:3] for line in lines] == places
    assert [float(line[3]) for line in lines] == pytest.approx(means, abs=5e-5)
    read = points(folder, "steps")
    assert all([step for step, _ in values] == [1, 2, 3, 6] for values in read.values())  # none twice
    found = {tag: dict(values) for tag, values in read.items()}
    rates = {step: 1e-3 * (1 + cos(pi * (step - 1) / 4)) / 2 for step in (1, 2, 3)}
    rates[6] = 1e-4 * (1 + cos(pi / 2)) / 2
    assert all(rate > 0 for rate in found.pop("train/images_per_second").values())
    assert all(0 < share < 1 for share in found.pop("train/waiting").values())
    assert all(0 < seconds < 60 for seconds in found.pop("train/wait_seconds").values())
    assert found == {
        "train/loss": pytest.approx({1: means[0], 2: means[1], 3: means[2], 6: means[4]}, rel=1e-6),
        "train/gradient_norm": pytest.approx({step: two[step - 1] for step in (1, 2, 3, 6)}, rel=1e-4),
        "train/lr_min": pytest.approx(rates, rel=1e-6),
        "train/lr_max": pytest.approx(rates, rel=1e-6),
    }
    assert [step for step, _ in points(folder)["train_loss"]] == [1, 2, 3]
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [len(events.Tensors(f"{name}/text_summary")) for name in ("model", "settings")] == [1, 1]
