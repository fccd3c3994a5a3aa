"""Training on a tiny data set at 64 px: what it leaves behind, that it stops well and goes on as if it had not."""

import csv
import gc
import json
import os
import shutil
import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
import yaml

from segtune.commands import train as commands
from segtune.commands.evaluate import evaluate
from segtune.config.command_settings import EvaluateSettings
from segtune.config.data_settings import AugmentSettings
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.config.training_settings import OptimizerSettings
from segtune.data.loader import BatchLoader
from segtune.data.splits import build_splits
from segtune.errors import FailedError, Interrupted, StoppedError, UserError
from segtune.models.build import BuiltModel, build_model
from segtune.models.checkpoint import Checkpoint
from segtune.models.pretrained import LoadedWeights
from segtune.training import epoch
from segtune.training import loop as engine
from segtune.training.phases import Phase
from tests.conftest import slow
from tests.training.conftest import fit, same, settings, weights_of

pytestmark = [pytest.mark.trains, pytest.mark.usefixtures("quick", "without_reports")]


@pytest.fixture(scope="module")
def finished(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, commands.train(settings(discs), folder)


def test_a_run_leaves_what_the_design_promises(finished: tuple[Path, dict]) -> None:
    folder, summary = finished
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8")) == summary
    wanted = {"val_dice", "best_epoch", "seconds", "images_per_second", "parameters", "trainable_parameters"}
    assert wanted <= summary.keys()
    if sys.platform == "linux":
        assert summary["peak_memory_bytes"] > 100e6  # PyTorch alone is more
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["one", "one", "two"]
    assert summary["val_dice"] == max(float(row["val_dice"]) for row in rows)
    assert int(rows[summary["best_epoch"] - 1]["epoch"]) == summary["best_epoch"]
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["data"]["image_size"] == 64
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [f"epoch_00{n}.png" for n in (1, 2, 3)]
    image = cv2.imread(str(folder / "samples" / "epoch_001.png"))
    assert image.shape == (2 * 256 + 4, 3 * 256, 3)
    assert len(list((folder / "tensorboard").rglob("events*"))) == 2
    assert sum(summary["trainable_parameters"].values()) == 2 * summary["parameters"]
    state = Checkpoint.load(folder / "checkpoints" / "last.pt").state
    assert state.start_images == settings(folder).train.batch_size < state.trained_images
    assert 0 < state.start_seconds < state.train_seconds
    rates = (summary["images_per_second"], summary["images_per_second_with_start"])
    assert rates == tuple(round(rate, 2) for rate in state.rates())


def test_the_same_settings_give_the_same_bits(finished: tuple[Path, dict], discs: Path, tmp_path: Path) -> None:
    commands.train(settings(discs, workers=2), tmp_path / "again")
    assert same(weights_of(finished[0]), weights_of(tmp_path / "again"))
    assert (finished[0] / "metrics.csv").read_bytes() == (tmp_path / "again" / "metrics.csv").read_bytes()


@pytest.mark.parametrize("step", [3, *map(slow, (1, 4, 8))])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    finished: tuple[Path, dict], discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Three batches an epoch: the steps lie within, at the end of, and behind an epoch, and in the second phase."""
    folder, count, one_step = tmp_path / "run", 0, epoch.take_step
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def stop_after(*arguments) -> None:
        nonlocal count
        one_step(*arguments)
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGINT if step % 2 else signal.SIGTERM)

    monkeypatch.setattr(epoch, "take_step", stop_after)
    chosen = settings(discs)
    with pytest.raises(Interrupted, match="To resume: python -m segtune train resume="):
        commands.train(chosen, folder)
    assert count == step
    commands.train(replace(chosen, resume=str(folder)), folder)
    last = Checkpoint.load(folder / "checkpoints" / "last.pt")
    assert last.state.start_images == 2 + (2, 2, 1)[step % 3]  # five images in batches of two; both processes began
    assert same(weights_of(finished[0]), weights_of(folder))
    assert same(weights_of(finished[0], "best.pt"), weights_of(folder, "best.pt"))
    assert (finished[0] / "metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4, 7])
def test_rmsprop_and_its_schedule_go_on_in_the_middle_of_an_epoch(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Two steps an epoch, six in the first phase, two in the second."""
    two = {"epochs": 1, "lr": 1e-4, "optimizer": "rmsprop", "schedule": "multistep", "milestone_steps": [1]}
    chosen = settings(discs, {"one": {"epochs": 3, "lr": 1e-3, "decay_steps": 2}, "two": two}, accumulate=2)
    optimizer = OptimizerSettings("rmsprop_tf", schedule="exponential", warmup=1)
    chosen = replace(chosen, optimizer=optimizer)
    commands.train(chosen, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        stop_after(step, epoch, "take_step", patch)
        with pytest.raises(Interrupted):
            commands.train(chosen, tmp_path / "stopped")
    commands.train(replace(chosen, resume=str(tmp_path / "stopped")), tmp_path / "stopped")
    undisturbed, stopped = (
        Checkpoint.load(tmp_path / name / "checkpoints/last.pt") for name in ("undisturbed", "stopped")
    )
    torch.testing.assert_close(stopped.model, undisturbed.model, rtol=0, atol=0)
    assert undisturbed.optimizer
    assert stopped.optimizer
    assert (undisturbed.state.start_images, stopped.state.start_images) == (4, 4 + (4, 1)[step % 2])  # steps of 4 and 1
    for part in ("optimizer", "schedule"):
        torch.testing.assert_close(stopped.optimizer[part], undisturbed.optimizer[part], rtol=0, atol=0)
    metrics = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("undisturbed", "stopped")]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(("step", "begun"), [slow(1, ["one"]), slow(6, ["one"]), (7, ["one", "two"])])
def test_facts_are_worked_out_once_for_each_phase_when_it_begins_and_announced_then_and_when_it_goes_on(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, begun: list[str]
) -> None:
    """They reach the run's summary as they were when the phase began, and those of later phases are not waited for."""
    asked, announced, folder = [], [], tmp_path / "run"

    def facts(_built: BuiltModel, phase: Phase, *_: object) -> dict:
        asked.append(phase.name)
        return {"trainable": len(asked)}

    monkeypatch.setattr(commands, "facts", facts)
    monkeypatch.setattr(
        commands, "announce", lambda phases, number, facts: announced.append((phases[number - 1].name, facts))
    )
    with monkeypatch.context() as patch:
        stop_after(step, epoch, "take_step", patch)
        with pytest.raises(Interrupted):
            commands.train(settings(discs), folder)
    one, two = ("one", {"trainable": 1}), ("two", {"trainable": 2})
    assert asked == begun
    assert announced == [one, two][: len(begun)]
    asked.extend(["resumed"] * 2)
    summary = commands.train(replace(settings(discs), resume=str(folder)), folder)
    if begun == ["one"]:
        two = ("two", {"trainable": 4})
    assert asked[len(begun) + 2 :] == ["two"] * (begun == ["one"])
    assert announced[len(begun) :] == ([two] if step == 7 else [one, two])
    assert summary["phases"] == dict([one, two])
    assert summary["trainable_parameters"] == {"one": 1, "two": two[1]["trainable"]}


def stop_after(count: int, module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM to this process behind the `count`-th call of a function of the engine."""
    calls, original = 0, getattr(module, name)

    def then_stop(*arguments: object) -> None:
        nonlocal calls
        original(*arguments)
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(module, name, then_stop)


def stopped_and_resumed(chosen: Settings, folder: Path, stop: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop(patch)
        with pytest.raises(Interrupted):
            commands.train(chosen, folder)
    commands.train(replace(chosen, resume=str(folder)), folder)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same_end(one: Path, other: Path) -> None:
    assert same(weights_of(one), weights_of(other))
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()


def test_a_run_that_ended_before_its_first_checkpoint_starts_anew(
    finished: tuple[Path, dict], discs: Path, tmp_path: Path
) -> None:
    shutil.copy(finished[0] / "config.yaml", tmp_path)
    commands.train(replace(settings(discs), resume=str(tmp_path)), tmp_path)
    assert_same_end(finished[0], tmp_path)


@pytest.mark.slow
def test_a_phase_that_has_converged_hands_over(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best Dice comes in epoch 2; epoch 4 equals it, which is no better."""
    row, dices = engine._row, [0.3, 0.5, 0.4, 0.5, 0.1, 0.2, 0.9]

    def of(dice: float) -> dict[str, float]:
        return {"val_dice": dice, "val_dice_object": dice, "val_predicted": 0.5}

    monkeypatch.setattr(engine, "_row", lambda run, *more: row(run, *more) | of(dices[len(run.state.rows)]))
    phases = {
        "flat": {"epochs": 6, "lr": 1e-3, "until": "plateau", "patience": 2},
        "next": {"epochs": 3, "lr": 1e-3, "until": "plateau", "patience": 1},
    }
    summary = commands.train(settings(discs, phases), tmp_path / "straight")
    assert [row["phase"] for row in rows_of(tmp_path / "straight")] == 4 * ["flat"] + 3 * ["next"]
    assert summary["best_epoch"] == 7
    said = "flat  has converged: no better validation Dice for 2 epochs, after 4 of at most 6"
    out = capsys.readouterr().out
    assert said in out
    assert "next  has converged" not in out
    stopped_and_resumed(
        settings(discs, phases), tmp_path / "stopped", lambda patch: stop_after(4, engine, "_finish_epoch", patch)
    )
    before, _, after = capsys.readouterr().out.partition("run folder")[2].partition("run folder")
    assert said in before  # and it was stopped at this very place
    assert "next  epoch" not in before
    assert "flat  epoch" not in after
    assert_same_end(tmp_path / "straight", tmp_path / "stopped")


def test_the_best_epoch_is_chosen_by_the_images_with_an_object(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first epochs predict nothing, which is best over all images; a resume in between changes nothing."""
    row, said = engine._row, {"val_dice": 0.9, "val_dice_object": 0.0, "val_predicted": 0.0}
    rows = [said, said, *({"val_dice": 0.5, "val_dice_object": dice, "val_predicted": 0.5} for dice in (0.1, 0.3, 0.2))]
    monkeypatch.setattr(engine, "_row", lambda run, *more: row(run, *more) | rows[len(run.state.rows)])
    phases = {"one": {"epochs": 5, "lr": 1e-3, "until": "plateau", "patience": 2}}
    summary = commands.train(settings(discs, phases), tmp_path / "straight")
    assert (summary["best_epoch"], summary["val_dice"], summary["val_dice_object"]) == (4, 0.5, 0.3)
    assert "Best validation Dice 0.3000 over the images with an object (0.5000 over all) in epoch 4" in (
        capsys.readouterr().out
    )
    stopped_and_resumed(
        settings(discs, phases), tmp_path / "stopped", lambda patch: stop_after(2, engine, "_finish_epoch", patch)
    )
    assert_same_end(tmp_path / "straight", tmp_path / "stopped")
    best = [weights_of(tmp_path / name, "best.pt") for name in ("straight", "stopped")]
    assert same(*best)


@pytest.mark.parametrize("empty", ["zero", slow("one"), slow("skip")])
def test_a_val_split_without_an_object_makes_no_epoch_the_best(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], empty: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(discs, data)
    for name in (data / "val.txt").read_text(encoding="utf-8").split():
        cv2.imwrite(str(data / "masks" / f"{name}.png"), 0 * cv2.imread(str(data / "masks" / f"{name}.png")))
    summary = commands.train(settings(data, empty=empty), tmp_path / "run")
    assert summary["best_epoch"] == 3
    assert np.isnan(summary["val_dice_object"])
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["val_dice_object"] is None
    assert same(weights_of(tmp_path / "run"), weights_of(tmp_path / "run", "best.pt"))
    out = capsys.readouterr().out
    assert "warning: val: no object in this split: all 3 masks are empty" in out
    assert "Dice 1.0000" not in out
    assert " *\n" not in out
    assert "No validation image has an object, so no epoch is the best: best.pt is the last, 3, after" in out


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on(discs: Path, tmp_path: Path) -> None:
    """Its rows lack the Dice of images with an object."""

    def forget(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        content["state"]["rows"] = [
            {name: value for name, value in row.items() if name not in ("val_dice_object", "val_predicted")}
            for row in content["state"]["rows"]
        ]
        torch.save(content, path)

    with pytest.MonkeyPatch.context() as patch:
        stop_after(2, engine, "_finish_epoch", patch)
        with pytest.raises(Interrupted):
            commands.train(settings(discs), tmp_path)
    forget(tmp_path / "checkpoints" / "last.pt")
    summary = commands.train(replace(settings(discs), resume=str(tmp_path)), tmp_path)
    rows = rows_of(tmp_path)
    assert [row["val_dice_object"] for row in rows] == ["", "", rows[2]["val_dice"]]
    assert summary["val_dice"] == max(float(row["val_dice"]) for row in rows)


@pytest.mark.parametrize(("accumulate", "steps"), [(2, 3), slow(1, 4)])
def test_a_phase_of_steps_makes_just_these(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int, steps: int
) -> None:
    """Three batches an epoch: the second epoch is cut after its first step."""
    made, one_step = [], epoch.take_step

    def counted(run: engine.Run, *more) -> None:
        one_step(run, *more)
        made.append((run.state.epoch, run.state.step, run.state.lr))

    monkeypatch.setattr(epoch, "take_step", counted)
    chosen = settings(discs, {"few": {"steps": steps, "lr": 1e-2, "warmup": 0.0}}, accumulate=accumulate)
    commands.train(chosen, tmp_path / "straight")
    expected = {1: [(0, 1), (0, 2), (0, 3), (1, 1)], 2: [(0, 2), (0, 3), (1, 2)]}[accumulate]
    rates = [0.5 * (1 + np.cos(np.pi * i / steps)) * 1e-2 for i in range(steps)]
    assert [step[:2] for step in made] == expected
    assert [step[2] for step in made] == pytest.approx(rates, rel=1e-6)
    assert len(rows_of(tmp_path / "straight")) == 2
    stopped_and_resumed(chosen, tmp_path / "stopped", lambda patch: stop_after(steps, epoch, "take_step", patch))
    assert made[steps:] == made[:steps]
    assert_same_end(tmp_path / "straight", tmp_path / "stopped")
    longer = replace(chosen.freeze, phases={"few": replace(chosen.freeze.phases["few"], steps=steps + 1)})
    with pytest.raises(UserError) as error:
        commands.train(replace(chosen, freeze=longer, resume=str(tmp_path / "stopped")), tmp_path / "stopped")
    assert str(error.value) == (
        f"freeze.phases.few: this phase ended after {steps} steps, within an epoch, so it cannot be extended. "
        "Add a phase: +freeze.phases.NAME={backbone: …, epochs: …, lr: …}."
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard writes in a thread
@pytest.mark.parametrize("trouble", ["at the start", "later"])
def test_a_tensorboard_file_that_cannot_be_written_only_warns(
    finished: tuple[Path, dict],
    discs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trouble: str,
) -> None:
    """At first its folder is a file; later the disk is full."""
    finish, place = engine._finish_epoch, tmp_path / "tensorboard"

    def then_fill_the_disk(*arguments) -> None:
        finish(*arguments)
        for file in place.rglob("*tfevents*"):
            file.unlink()
            file.symlink_to("/dev/full")

    if trouble == "at the start":
        place.write_text("")
    else:
        monkeypatch.setattr(engine, "_finish_epoch", then_fill_the_disk)
    commands.train(settings(discs), tmp_path)
    out, err = capsys.readouterr()
    assert " ".join(out.split()).count("TensorBoard cannot be written") == 1
    assert "Traceback" not in out + err
    assert_same_end(finished[0], tmp_path)


def test_a_finished_run_is_not_written_over(finished: tuple[Path, dict], discs: Path) -> None:
    with pytest.raises(UserError, match=r"There is a run in .* already\. Resume it"):
        commands.train(settings(discs), finished[0])


def test_a_run_whose_folder_is_deleted_ends_with_an_error(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, folder = engine._row, tmp_path / "run"

    def delete(*arguments: object) -> dict:
        shutil.rmtree(folder)
        return row(*arguments)

    monkeypatch.setattr(engine, "_row", delete)
    with pytest.raises(FailedError, match=r"/run was deleted or moved while the run wrote to it: config\.yaml is miss"):
        commands.train(settings(discs), folder)
    assert not folder.exists()


def test_frozen_modules_are_bit_identical_after_their_phase(discs: Path, tmp_path: Path) -> None:
    chosen = settings(discs, {"head": {"epochs": 2, "lr": 1e-2, "backbone": 1}})
    chosen = replace(chosen, taps={"low": "layer1", "high": "layer2"})
    built = build_model(chosen.backbone, chosen.taps, chosen.decoder)
    built = replace(built, weights=LoadedWeights("a file"))  # weights of our own, so freezing is allowed
    before = {name: tensor.clone() for name, tensor in built.model.state_dict().items()}
    splits = build_splits(chosen.data, 0, 0)
    fit(chosen, built, splits, tmp_path / "run")
    for name, tensor in built.model.state_dict().items():
        trains = name.startswith(("backbone.layer2.", "decoder."))
        assert torch.equal(tensor, before[name]) != trains, name


def test_validation_dice_is_what_evaluate_measures(finished: tuple[Path, dict], discs: Path, tmp_path: Path) -> None:
    folder, summary = finished
    report = evaluate(
        parse(
            EvaluateSettings,
            {
                "checkpoint": str(folder / "checkpoints" / "best.pt"),
                "data": {"name": "folder", "root": str(discs), "image_size": None, "split": "val"},
                "train": {"device": "cpu", "workers": 0, "batch_size": 2, "threshold": None},
            },
        ),
        tmp_path / "evaluation",
    )
    assert report["dice_mean"] == summary["val_dice"]
    assert json.loads((tmp_path / "evaluation" / "evaluation.json").read_text(encoding="utf-8")) == report
    assert {"dice_mean", "dice_pooled", "iou_mean", "precision", "recall", "images"} <= report.keys()
    with (tmp_path / "evaluation" / "per_image.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["disc5", "disc6", "disc7"]
    sizes = [int(row["tp"]) + int(row["fp"]) + int(row["fn"]) + int(row["tn"]) for row in rows]
    assert sizes == [75 * 85, 76 * 84, 77 * 83]  # counted at the photos' own size
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(report["dice_mean"], abs=1e-6)


@pytest.fixture(scope="module")
def large_discs(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The discs, twice as large: 140 x 180 pixels, so that a tile of 128 has neighbours."""
    root = tmp_path_factory.mktemp("large")
    for path in discs.rglob("*.png"):
        (root / path.parent.name).mkdir(exist_ok=True)
        cv2.imwrite(str(root / path.parent.name / path.name), cv2.imread(str(path)).repeat(2, 0).repeat(2, 1))
    for path in discs.glob("*.txt"):
        shutil.copy(path, root)
    return root


def at_own_size(root: Path, epochs: int, **train: object) -> Settings:
    """Return settings that train on crops of 64 x 64 pixels and validate in tiles of 128."""
    given = settings(root, {"one": {"epochs": epochs, "lr": 1e-3}}, **train)
    augment = AugmentSettings({"object_fraction": 0.5, "per_image": 2}, {"HorizontalFlip": {"p": 0.5}})
    return replace(given, augment=augment, data=replace(given.data, eval_tile=128))


def test_evaluate_is_in_the_tiles_of_the_validation(
    large_discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = commands.train(at_own_size(large_discs, 1), tmp_path / "run")
    said = capsys.readouterr().out
    assert "Training sees the images at their own size, in crops of 64 x 64 pixels, 50% of them centred" in said
    assert "Validation sees the images at their own size, in tiles of 128 x 128 pixels that share 25%." in said
    best = str(tmp_path / "run" / "checkpoints" / "best.pt")
    given = {"checkpoint": best, "data": {"root": str(large_discs), "split": "val"}, "tune": False}
    given["train"] = {"device": "cpu", "workers": 0}
    report = evaluate(parse(EvaluateSettings, given), tmp_path / "evaluation")
    assert (report["dice_mean"], report["tile"], report["overlap"]) == (summary["val_dice"], 128, 0.25)
    said = capsys.readouterr().out
    assert "sees the images at their own size, in tiles of 128 x 128 pixels that share 25%, as in its valida" in said


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 5, 7])
def test_a_run_on_crops_goes_on_as_if_it_had_not_stopped(
    large_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Five batches an epoch, of two crops of five images; it goes on with crops that worker processes draw."""
    commands.train(at_own_size(large_discs, 2), tmp_path / "straight")
    one_step, made = epoch.take_step, []

    def stop_after(*arguments: object) -> None:
        one_step(*arguments)
        made.append(1)
        if len(made) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(epoch, "take_step", stop_after)
    with pytest.raises(Interrupted):
        commands.train(at_own_size(large_discs, 2), tmp_path / "run")
    commands.train(replace(at_own_size(large_discs, 2, workers=2), resume=str(tmp_path / "run")), tmp_path / "run")
    assert same(weights_of(tmp_path / "straight"), weights_of(tmp_path / "run"))
    assert same(weights_of(tmp_path / "straight", "best.pt"), weights_of(tmp_path / "run", "best.pt"))
    assert (tmp_path / "straight" / "metrics.csv").read_bytes() == (tmp_path / "run" / "metrics.csv").read_bytes()


def test_a_job_frees_the_network_of_the_job_before(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a sweep: Python does not know that the network, which refers to itself, holds a GPU's memory."""
    networks, build = [], commands.build_start

    def built(chosen: Settings) -> BuiltModel:
        assert not [network for network in networks if network() is not None]
        start = build(chosen)
        networks.append(weakref.ref(start.model.backbone))
        return start

    monkeypatch.setattr(commands, "build_start", built)
    gc.disable()
    try:
        for number in range(2):
            commands.train(settings(discs, {"one": {"epochs": 1, "lr": 1e-3}}), tmp_path / str(number))
    finally:
        gc.enable()
    assert len(networks) == 2


@pytest.mark.parametrize("where", ["train", slow("val")])
def test_a_picture_that_vanishes_is_one_message_and_the_last_save_is_good(
    finished: tuple[Path, dict], discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    data, finish = tmp_path / "data", engine._finish_epoch
    shutil.copytree(discs, data)
    lost = data / "images" / ("disc2.png" if where == "train" else "disc6.png")

    def then_lose_it(*arguments) -> None:
        finish(*arguments)
        lost.unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_finish_epoch", then_lose_it)
        with pytest.raises(StoppedError) as error:
            commands.train(settings(data), tmp_path / "run")
    assert str(error.value) == (
        f"{lost}: cannot be read: No such file or directory\nThe last save is good. To go on from it: "
        f"python -m segtune train resume={tmp_path / 'run'}"
    )
    shutil.copy(discs / "images" / lost.name, lost)
    commands.train(replace(settings(data), resume=str(tmp_path / "run")), tmp_path / "run")
    assert_same_end(finished[0], tmp_path / "run")


def test_memory_that_runs_out_is_one_message(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(epoch, "take_step", full)
    with pytest.raises(StoppedError) as error:
        commands.train(settings(discs, precision="fp32"), tmp_path)
    assert str(error.value) == (
        "Out of memory: CUDA out of memory. Tried to allocate 2.00 GiB.\nBatches of 2 images of 64 x 64 pixels, on cpu "
        "in float32. Try train.batch_size=1 train.accumulate=2 (the same steps), or a smaller data.image_size, or "
        "fewer blocks that train (plan).\nThe last save is good. To go on from it: "
        f"python -m segtune train resume={tmp_path}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [2, slow(1)])
def test_a_wish_to_stop_is_heard_while_the_loader_waits(
    finished: tuple[Path, dict], discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    """Between two steps the run is saved; within one, it ends as it was saved before."""
    until = BatchLoader.until

    def hang_at_the_second(loader: BatchLoader, give_up: Callable[[float], bool]) -> Iterator[dict]:
        for number, batch in enumerate(until(loader, give_up)):
            if number == 1:
                assert not give_up(11)
                os.kill(os.getpid(), signal.SIGTERM)
                assert give_up(0) == (accumulate == 1)
                assert give_up(11)
                return
            yield batch

    chosen = settings(discs, accumulate=accumulate)
    with monkeypatch.context() as patch:
        patch.setattr(BatchLoader, "until", hang_at_the_second)
        with pytest.raises(Interrupted) as stopped:
            commands.train(chosen, tmp_path / "run")
    what = {1: "Stopped; everything is saved.", 2: "Stopped while waiting for an image; everything up to the last save"}
    assert str(stopped.value).startswith(what[accumulate])
    assert "To resume: python -m segtune train resume=" in str(stopped.value)
    state = Checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt").state
    assert state is not None
    assert state.step == (1 if accumulate == 1 else 0)
    commands.train(replace(chosen, resume=str(tmp_path / "run")), tmp_path / "run")
    if accumulate == 1:
        assert_same_end(finished[0], tmp_path / "run")
