"""`train` as a command: what it refuses, and what it says when it is stopped; the loop has tests of its own."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from segtune.cli.help import config_folder
from segtune.commands import train as command
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import Interrupted, UserError
from segtune.models.pretrained import LoadedWeights

SUMMARY = {"val_dice": 0.75, "best_epoch": 3, "seconds": 60.0}


@pytest.fixture(scope="module")
def settings() -> Settings:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", overrides=["data=folder", "data.root=photos", "train.device=cpu", "seed=5"])
    return parse(Settings, OmegaConf.to_container(config, resolve=True))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings) -> list[str]:
    """Replace each step by one that notes its name; the list of them."""
    done: list[str] = []

    def step(name: str, result: Any = None) -> None:
        def run(*_: object) -> Any:
            done.append(name)
            return result() if callable(result) else result

        monkeypatch.setattr(command, name, run)

    monkeypatch.chdir(tmp_path)
    step("look_for_data", settings.data)
    step("_start", lambda: done.append(f"seed {torch.initial_seed()}"))
    step("load_splits", {"train": [1, 2, 3], "val": [4]})
    step("plan_phases", [])
    step("read_groups")
    step("_fit", SUMMARY)
    step("_conclude")
    return done


@pytest.mark.slow
def test_what_the_report_needs_is_not_imported_before_training() -> None:
    code = f"import sys; import {command.__name__}; print(*{{'matplotlib', 'scipy.stats'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_data_are_looked_for_first_and_weights_are_seeded(
    steps: list[str], settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.train(settings, tmp_path / "run") == SUMMARY
    assert steps == [
        "look_for_data",
        "_start",
        "seed 5",
        "load_splits",
        "read_groups",
        "plan_phases",
        "_fit",
        "_conclude",
    ]
    out = capsys.readouterr().out
    assert "; 3 training images, 1 validation images; run folder run\n" in out
    assert "Best validation Dice 0.7500 in epoch 3, after 60 s.\n" in out


@pytest.mark.parametrize(
    ("where", "raised", "expected"),
    [
        ("_fit", Interrupted(), "Stopped; everything is saved. To resume: python -m segtune train resume=run"),
        (
            "_conclude",
            KeyboardInterrupt(),
            "The run is complete except for its report: python -m segtune train resume=run",
        ),
    ],
)
@pytest.mark.usefixtures("steps")
def test_a_stopped_run_says_how_to_go_on(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    raised: BaseException,
    expected: str,
) -> None:
    def stop(*_: object) -> None:
        raise raised

    monkeypatch.setattr(command, where, stop)
    with pytest.raises(Interrupted) as caught:
        command.train(settings, tmp_path / "run")
    assert str(caught.value) == expected


def test_a_checkpoint_without_optimizer_is_not_resumed(
    steps: list[str], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/last.pt"):
        (folder / name).touch()
    bare = SimpleNamespace(state={}, optimizer=None)
    monkeypatch.setattr(command, "Checkpoint", SimpleNamespace(load=lambda _: bare))
    with pytest.raises(UserError, match=r"last\.pt has no optimizer state, so the run cannot be resumed"):
        command.train(replace(settings, resume=str(folder)), folder)
    assert not steps


def test_weights_that_only_some_processes_found_are_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = SimpleNamespace(weights=LoadedWeights(None), restored=None)
    monkeypatch.setattr(command, "build_start", lambda _: built)
    assert command._start(settings, tmp_path) is built
    monkeypatch.setattr(command.distributed, "gather", lambda value: [value, not value])
    with pytest.raises(UserError, match="Only some processes found pretrained weights"):
        command._start(settings, tmp_path)


def test_data_of_ones_own_without_pretrained_weights_end_the_run_after_the_report(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = SimpleNamespace(lines=lambda: ["warning: of another network"])
    built = SimpleNamespace(weights=LoadedWeights(None, trouble="no ImageNet weights"), restored=report)
    monkeypatch.setattr(command, "build_start", lambda _: built)
    with pytest.raises(UserError, match=r"^backbone\.weights=auto: no ImageNet weights$"):
        command._start(settings, tmp_path)
    assert capsys.readouterr().out == "warning: of another network\n"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"val_dice_object": 0.75}, "Best validation Dice 0.7500 in epoch 3, after 60 s."),
        (
            {"val_dice_object": 0.5},
            "Best validation Dice 0.5000 over the images with an object (0.7500 over all) in epoch 3, after 60 s.",
        ),
        (
            {"val_dice_object": 0.0, "val_predicted": 0.0},
            "No epoch is any good: in the best one, 3, nothing is predicted (after 60 s).",
        ),
        (
            {"val_dice_object": None},
            "No validation image has an object, so no epoch is the best: best.pt is the last, 3, after 60 s.",
        ),
    ],
)
def test_what_is_claimed_of_the_best_epoch(found: dict[str, Any], expected: str) -> None:
    assert command._best(SUMMARY | found) == expected


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], "Stopped before the first step, so there is nothing to save. To begin: the same command"),
        (
            ["config.yaml"],
            "Stopped before the first step, so there is nothing to save. To begin: python -m segtune train resume=run",
        ),
        (
            ["config.yaml", "checkpoints/last.pt"],
            "Stopped. Everything after the last save is lost. To resume: python -m segtune train resume=run",
        ),
    ],
)
def test_a_stop_outside_the_steps_says_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in there:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).touch()
    with pytest.raises(Interrupted) as stopped, command._stop_told(tmp_path / "run"):
        raise KeyboardInterrupt
    assert str(stopped.value) == expected


def test_a_resumed_run_takes_the_batch_size_that_was_found(settings: Settings, tmp_path: Path) -> None:
    resumed: Any = SimpleNamespace(settings=replace(settings, train=replace(settings.train, batch_size=48)))
    auto = replace(settings, train=replace(settings.train, batch_size="auto"))
    assert command._as_before(auto, resumed, tmp_path) == resumed.settings
    with pytest.raises(UserError, match=r"train\.batch_size: 48 in training, 8 now"):
        command._as_before(settings, resumed, tmp_path)
