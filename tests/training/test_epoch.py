"""An epoch of training: what its steps compute, and when they stop the run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segtune.commands import train as commands
from segtune.config.model_settings import FCN8sSettings
from segtune.config.training_settings import OptimizerSettings, PhaseSettings
from segtune.data.splits import build_splits
from segtune.errors import DivergedError
from segtune.losses import build_loss
from segtune.models.build import build_model
from segtune.models.checkpoint import Checkpoint
from segtune.models.pretrained import LoadedWeights
from segtune.training import epoch
from tests.training.conftest import fit, settings, weights_of

pytestmark = [pytest.mark.trains, pytest.mark.usefixtures("quick", "without_reports")]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, calls = build_loss(settings(discs).loss), 0

    def ruined(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += logits.requires_grad
        return good(logits, target) * (float("nan") if calls == 5 and logits.requires_grad else 1.0)

    monkeypatch.setattr(epoch, "build_loss", lambda _: ruined)
    with pytest.raises(DivergedError) as error:
        commands.train(settings(discs), tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert str(error.value) == (
        f"Training stopped in phase one, epoch 2, step 2: the loss is nan.\nThe last good checkpoint is {last}. "
        "Try a lower learning rate (freeze.phases.one.lr=…) or train.precision=fp32."
    )
    good = Checkpoint.load(last)
    assert good.state["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in good.model.values())


def test_a_gradient_that_is_not_finite_stops_the_run_too(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steep(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (logits - logits.detach()).abs().sqrt().mean()  # 0, with an infinite slope

    monkeypatch.setattr(epoch, "build_loss", lambda _: steep)
    with pytest.raises(DivergedError, match=r"phase one, epoch 1, step 2: the gradient's norm is (nan|inf)"):
        commands.train(settings(discs), tmp_path / "run")


def test_accumulated_gradients_equal_those_of_the_whole_batch(discs: Path, tmp_path: Path) -> None:
    """Without BatchNorm in training mode, dropout, clipping and per-batch terms the two are one computation."""
    results = []
    for size, accumulate in ((4, 1), (2, 2)):
        more = {"batch_size": size, "accumulate": accumulate, "clip": 0, "precision": "fp32"}
        chosen = settings(discs, {"head": {"epochs": 1, "lr": 0.1}}, **more)
        chosen = replace(
            chosen,
            decoder=FCN8sSettings(),
            taps={"pool3": "layer1.0.act2", "pool4": "layer1.1.act2", "high": "layer1.2.act2"},
            optimizer=OptimizerSettings("sgd", momentum=0.0, weight_decay=0.0, schedule="constant", warmup=0.0),
            freeze=replace(chosen.freeze, phases={"head": PhaseSettings(epochs=1, lr=0.1, backbone=0)}),
            data=replace(chosen.data, limit=4),
        )
        torch.manual_seed(0)
        built = replace(build_model(chosen.backbone, chosen.taps, chosen.decoder), weights=LoadedWeights("a file"))
        folder = tmp_path / str(accumulate)
        fit(chosen, built, build_splits(chosen.data, 0, 0), folder)
        results.append(weights_of(folder))
    assert all(torch.allclose(results[0][name], results[1][name], atol=1e-6) for name in results[0])
