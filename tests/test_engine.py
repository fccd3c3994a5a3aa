"""Training on a tiny data set at 64 px: what it leaves behind, that it stops well and goes on as if it had not."""

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from segtune import checkpoint, commands, engine
from segtune.backbones import LoadedWeights
from segtune.build import build_loss, build_model, build_optimizer, build_schedule, walk_phases
from segtune.config import (
    DivergedError,
    EvaluateSettings,
    Interrupted,
    OptimizerSettings,
    PhaseSettings,
    Settings,
    UserError,
    parse,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
            "train": {"batch_size": 2, "workers": 0, "precision": "fp32", "samples": 2, "device": "cpu", **train},
            "checkpoint": {},
        },
    )


def weights_of(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / "checkpoints" / name)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, commands.train(settings(photos), folder)


def test_a_run_leaves_what_the_design_promises(finished: tuple[Path, dict]) -> None:
    folder, summary = finished
    assert json.loads((folder / "summary.json").read_text()) == summary
    wanted = {"val_dice", "best_epoch", "seconds", "images_per_second", "parameters", "trainable_parameters"}
    assert wanted <= summary.keys()
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["one", "one", "two"]
    assert summary["val_dice"] == max(float(row["val_dice"]) for row in rows)
    assert int(rows[summary["best_epoch"] - 1]["epoch"]) == summary["best_epoch"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["image_size"] == 64
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [f"epoch_00{n}.png" for n in (1, 2, 3)]
    picture = cv2.imread(str(folder / "samples" / "epoch_001.png"))
    assert picture.shape == (2 * 64 + 4, 3 * 64, 3)
    assert list((folder / "tensorboard").glob("events*"))
    assert sum(summary["trainable_parameters"].values()) == 2 * summary["parameters"]


def test_the_same_settings_give_the_same_bits(finished: tuple[Path, dict], photos: Path, tmp_path: Path) -> None:
    commands.train(settings(photos, workers=2), tmp_path / "again")
    assert same(weights_of(finished[0]), weights_of(tmp_path / "again"))
    assert (finished[0] / "metrics.csv").read_bytes() == (tmp_path / "again" / "metrics.csv").read_bytes()


@pytest.mark.parametrize("step", [1, 3, 4, 8])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    finished: tuple[Path, dict], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Three batches an epoch: the steps lie within, at the end of, and behind an epoch, and in the second phase."""
    folder, count, one_step = tmp_path / "run", 0, engine._step

    def stop_after(*arguments) -> None:
        nonlocal count
        one_step(*arguments)
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGINT if step % 2 else signal.SIGTERM)

    monkeypatch.setattr(engine, "_step", stop_after)
    chosen = settings(photos)
    with pytest.raises(Interrupted, match="To go on: python -m segtune train resume="):
        commands.train(chosen, folder)
    assert count == step
    commands.train(replace(chosen, resume=str(folder)), folder)
    assert same(weights_of(finished[0]), weights_of(folder))
    assert same(weights_of(finished[0], "best.pt"), weights_of(folder, "best.pt"))
    assert (finished[0] / "metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_finished_run_is_not_written_over(finished: tuple[Path, dict], photos: Path) -> None:
    with pytest.raises(UserError, match=r"There is a run in .* already\. Go on with it"):
        commands.train(settings(photos), finished[0])


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, calls = build_loss(settings(photos).loss), 0

    def ruined(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += logits.requires_grad
        return good(logits, target) * (float("nan") if calls == 5 and logits.requires_grad else 1.0)

    monkeypatch.setattr(engine, "build_loss", lambda _: ruined)
    with pytest.raises(DivergedError) as error:
        commands.train(settings(photos), tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert str(error.value) == (
        f"Training stopped in phase one, epoch 2, step 2: the loss is nan.\nThe last good checkpoint is {last}. "
        "A lower rate (freeze.phases.one.lr=…) or train.precision=fp32 is what helps most often."
    )
    content = checkpoint.load(last)
    assert content["state"]["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in content["model"].values())


def test_a_gradient_that_is_not_finite_stops_the_run_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steep(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (logits - logits.detach()).abs().sqrt().mean()  # 0, with an infinite slope

    monkeypatch.setattr(engine, "build_loss", lambda _: steep)
    with pytest.raises(DivergedError, match=r"phase one, epoch 1, step 2: the gradient's norm is (nan|inf)"):
        commands.train(settings(photos), tmp_path / "run")


def test_frozen_modules_are_bit_identical_after_their_phase(photos: Path, tmp_path: Path) -> None:
    chosen = settings(photos, {"head": {"epochs": 2, "lr": 1e-2, "backbone": 1}})
    chosen = replace(chosen, taps={"low": "layer1", "high": "layer2"})
    built = build_model(chosen.backbone, chosen.taps, chosen.decoder)
    built = replace(built, weights=LoadedWeights("a file"))  # weights of our own, so freezing is allowed
    before = {name: tensor.clone() for name, tensor in built.model.state_dict().items()}
    splits = commands.build_splits(chosen.data, 0, 0)
    engine.fit(chosen, built, splits, tmp_path / "run", commands.choose_compute(chosen.train))
    for name, tensor in built.model.state_dict().items():
        trains = name.startswith(("backbone.layer2.", "decoder."))
        assert torch.equal(tensor, before[name]) != trains, name


def test_random_weights_are_never_frozen(photos: Path) -> None:
    chosen = settings(photos, {"head": {"epochs": 1, "lr": 1e-3, "backbone": 0}})
    assert [phase.backbone for _, phase in walk_phases(chosen, LoadedWeights(None))] == ["all"]
    assert [phase.backbone for _, phase in walk_phases(chosen, LoadedWeights("a file"))] == [0]


def test_accumulated_gradients_equal_those_of_the_whole_batch(photos: Path, tmp_path: Path) -> None:
    """Without BatchNorm in training mode, dropout, clipping and per-batch terms the two are one computation."""
    results = []
    for size, accumulate in ((4, 1), (2, 2)):
        chosen = settings(photos, {"head": {"epochs": 1, "lr": 0.1}}, batch_size=size, accumulate=accumulate, clip=0)
        chosen = replace(
            chosen,
            decoder=parse_fcn(),
            taps={"pool3": "layer1.0.act2", "pool4": "layer1.1.act2", "high": "layer1.2.act2"},
            optimizer=OptimizerSettings("sgd", momentum=0.0, weight_decay=0.0, schedule="constant", warmup=0.0),
            freeze=replace(chosen.freeze, phases={"head": PhaseSettings(1, 0.1, 0)}),
            data=replace(chosen.data, limit=4),
        )
        torch.manual_seed(0)
        built = replace(build_model(chosen.backbone, chosen.taps, chosen.decoder), weights=LoadedWeights("a file"))
        folder = tmp_path / str(accumulate)
        engine.fit(
            chosen, built, commands.build_splits(chosen.data, 0, 0), folder, commands.choose_compute(chosen.train)
        )
        results.append(weights_of(folder))
    assert all(torch.allclose(results[0][name], results[1][name], atol=1e-6) for name in results[0])


def parse_fcn():
    from segtune.config import FCN8sSettings

    return FCN8sSettings()


def test_validation_dice_is_what_evaluate_measures(finished: tuple[Path, dict], photos: Path, tmp_path: Path) -> None:
    folder, summary = finished
    report = commands.evaluate(
        parse(
            EvaluateSettings,
            {
                "checkpoint": str(folder / "checkpoints" / "best.pt"),
                "data": {"name": "folder", "root": str(photos), "image_size": None, "split": "val"},
                "train": {"device": "cpu", "precision": "fp32", "workers": 0, "batch_size": 2, "threshold": None},
            },
        ),
        tmp_path / "evaluation",
    )
    assert report["dice_mean"] == summary["val_dice"]
    assert json.loads((tmp_path / "evaluation" / "evaluation.json").read_text()) == report
    assert {"dice_mean", "dice_pooled", "iou_mean", "precision", "recall", "images"} <= report.keys()
    with (tmp_path / "evaluation" / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["disc5", "disc6", "disc7"]
    sizes = [int(row["tp"]) + int(row["fp"]) + int(row["fn"]) + int(row["tn"]) for row in rows]
    assert sizes == [75 * 85, 76 * 84, 77 * 83]  # counted at the photos' own size
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(report["dice_mean"], abs=1e-6)


def test_the_rate_warms_up_and_decays(photos: Path) -> None:
    model = build_model(*[getattr(settings(photos), name) for name in ("backbone", "taps", "decoder")]).model
    phase = PhaseSettings(1, 1e-2, "all", 0.1)
    for schedule, middle in (("cosine", 0.5), ("poly", 0.5**0.9), ("constant", 1.0)):
        options = OptimizerSettings("sgd", schedule=schedule, warmup=0.2)
        optimizer = build_optimizer(options, model, phase)
        course = build_schedule(options, optimizer, 100)
        rates = []
        for _ in range(100):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            course.step()
        decoder, backbone = max(rates[30]), min(rates[30])
        assert backbone == pytest.approx(0.1 * decoder)
        assert max(rates[0]) == pytest.approx(1e-2 / 21)
        assert max(rates[20]) == pytest.approx(1e-2)
        assert max(rates[60]) == pytest.approx(1e-2 * middle)


def test_the_optimizer_holds_what_trains_and_nothing_else(photos: Path) -> None:
    chosen = settings(photos)
    model = build_model(chosen.backbone, chosen.taps, chosen.decoder).model
    model.requires_grad_(False)
    model.decoder.requires_grad_(True)
    held = [
        p for g in build_optimizer(chosen.optimizer, model, PhaseSettings(1, 1e-3)).param_groups for p in g["params"]
    ]
    assert {id(p) for p in held} == {id(p) for p in model.decoder.parameters()}


def test_the_banner_names_neighbouring_blocks_as_a_span() -> None:
    parts = {"stem": (0, 5), "block1": (0, 5), "block2": (3, 5), "block3": (5, 5), "decoder": (7, 7)}
    assert engine._spans(parts, lambda trainable, _: trainable > 0) == "block2 … block3, decoder"
    assert engine._spans(parts, lambda trainable, total: trainable < total) == "stem … block2"
    assert engine._spans(parts, lambda trainable, total: trainable > total) == ""
