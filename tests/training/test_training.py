"""Slow: every pair of backbone and decoder really learns; a fine-tuning on real photos works."""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from segtune.cli.help import config_folder
from segtune.commands import train as commands
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.losses import build_loss
from segtune.metrics.overlap import counts, summarise
from segtune.models.backbones.registry import BACKBONES
from segtune.models.backbones.vgg16 import VGG16, FullyConvolutionalVGG16
from segtune.models.build import build_model
from segtune.training.optim import build_optimizer

pytestmark = pytest.mark.slow
PAIRS = [(b, d) for b in ("vgg16", "resnet50", "xception") for d in ("fcn8s", "deeplabv3plus")]


def settings(*overrides: str) -> Settings:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", overrides=["train.device=cpu", "backbone.weights=none", *overrides])
    return parse(Settings, OmegaConf.to_container(config, resolve=True))


@pytest.fixture(scope="session")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "portraits"


@pytest.fixture(autouse=True)
def narrow_vgg16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return VGG16's fc6 and fc7 128 channels instead of 4,096: their 120 million weights would take half an hour."""

    def build() -> FullyConvolutionalVGG16:
        network = FullyConvolutionalVGG16()
        network.fc6 = torch.nn.Conv2d(512, 128, 7, padding=3)
        network.fc7 = torch.nn.Conv2d(128, 128, 1)
        return network

    monkeypatch.setitem(BACKBONES, "vgg16", replace(BACKBONES["vgg16"], build=build))


def weights(backbone: str) -> str:
    """Return the ImageNet weights where they are at hand; VGG16 without them or BatchNorm learns slowly."""
    file = Path(os.environ.get("SEGTUNE_SHARED", "")) / "weights" / f"{backbone}.safetensors"
    return str(file) if file.is_file() else "none"


def discs(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright discs on noise: FCN-8s has a score every 8 pixels, too coarse for fingers in a small image."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    masks = torch.stack([(x - 26 - 4 * i) ** 2 + (y - 36 + 3 * i) ** 2 < (14 + 2 * i) ** 2 for i in range(count)])
    images = torch.randint(0, 120, (count, 3, side, side), generator=generator) + 100 * masks[:, None]
    return images.to(torch.uint8), masks[:, None]


def first_losses(model: nn.Module, trained: Sequence[nn.Module], chosen: Settings) -> list[float]:
    """Return the losses of eight steps on four discs, at the default rate and without a warm-up."""
    images, masks = discs(4, 64)
    optimizer = torch.optim.AdamW([p.requires_grad_(True) for part in trained for p in part.parameters()], lr=1e-3)
    losses, loss_fn = list[float](), build_loss(chosen.loss)
    for _ in range(8):
        loss = loss_fn(model(images), masks)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


@pytest.mark.parametrize("decoder", ["fcn8s", "deeplabv3plus"])
@pytest.mark.parametrize("name", [*BACKBONES, "resnet18", "mobilenetv3_small_100", "convnext_atto"])
def test_the_loss_falls_from_the_first_steps_at_the_default_rate(name: str, decoder: str) -> None:
    """Without the warm-up that a run begins with; VGG16 and Xception with ImageNet weights where they are at hand."""
    torch.manual_seed(0)
    backbone = [f"backbone={name}"] if name in BACKBONES else ["backbone=timm", f"backbone.name={name}"]
    chosen = settings(*backbone, f"decoder={decoder}", f"backbone.weights={weights(name)}")
    model = build_model(chosen.backbone, chosen.taps, chosen.decoder).model.train()
    model.backbone.eval().requires_grad_(False)
    losses = first_losses(model, [model.decoder], chosen)
    assert losses[0] == pytest.approx(math.log(2) + 0.7, abs=0.2)  # the discs fill a fifth: the Dice loss of 1/2 is 0.7
    assert losses == sorted(losses, reverse=True)


@pytest.mark.skipif("SEGTUNE_SHARED" not in os.environ, reason="SEGTUNE_SHARED names no folder with photos and weights")
def test_new_fully_connected_layers_survive_the_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights file has no classifier, so fc6 and fc7 are new and train with the decoder: the loss was 5 at once."""
    torch.manual_seed(0)
    monkeypatch.setitem(BACKBONES, "vgg16", VGG16)
    chosen = settings("backbone=vgg16", "decoder=fcn8s", f"backbone.weights={weights('vgg16')}")
    model = build_model(chosen.backbone, chosen.taps, chosen.decoder).model.eval()
    model.requires_grad_(False)
    trained = [model.get_submodule(path) for path in ("backbone.fc6", "backbone.fc7", "decoder")]
    losses = first_losses(model, trained, chosen)
    assert max(losses) < losses[0] + 0.3
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize("file", sorted({"none", weights("vgg16")}), ids=lambda file: Path(file).stem)
def test_the_published_recipe_of_fcn_learns_from_the_first_steps(file: str) -> None:
    """A photo a step at momentum 0.99; the rate is that of a mean over pixels, whatever the size."""
    torch.manual_seed(0)
    chosen = settings("experiment=fcn_paper", "data.root=photos", f"backbone.weights={file}")
    built = build_model(chosen.backbone, chosen.taps, chosen.decoder)
    optimizer = build_optimizer(chosen.optimizer, built.model.train(), chosen.freeze.phases["all"], built.blocks)
    images, masks = discs(4, 128)
    passes, loss_fn = list[float](), build_loss(chosen.loss)
    for _ in range(3):
        losses = []
        for image, mask in zip(images.split(1), masks.split(1), strict=True):
            loss = loss_fn(built.model(image), mask)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        passes.append(sum(losses) / len(losses))
    assert passes == sorted(passes, reverse=True)
    assert passes[-1] < 0.7 * passes[0]


@pytest.mark.parametrize(("backbone", "decoder"), PAIRS)
def test_one_batch_is_learned_by_heart(backbone: str, decoder: str) -> None:
    torch.manual_seed(0)
    chosen = settings(f"backbone={backbone}", f"decoder={decoder}", f"backbone.weights={weights(backbone)}")
    model = build_model(chosen.backbone, chosen.taps, chosen.decoder).model.train()
    images, masks = discs(4, 64)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # what it is there for is to make learning by heart hard
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4 if backbone == "vgg16" else 1e-3)
    loss_fn, best = build_loss(chosen.loss), 0.0
    for _ in range(400):
        logits = model(images)
        best = summarise(counts(logits > 0, masks)).dice_mean
        if best > 0.95:
            break
        optimizer.zero_grad()
        loss_fn(logits, masks).backward()
        optimizer.step()
    assert best > 0.95


@pytest.mark.parametrize(("backbone", "decoder"), PAIRS)
def test_every_pair_goes_up_on_the_built_in_data(backbone: str, decoder: str, portraits: Path, tmp_path: Path) -> None:
    chosen = settings(
        f"backbone={backbone}",
        f"backbone.weights={weights(backbone)}",
        f"decoder={decoder}",
        f"data.root={portraits}",
        "data.image_size=64",
        "data.limit=160",
        "freeze=none",
        "freeze.phases.all.epochs=5",
        f"freeze.phases.all.lr={1e-4 if backbone == 'vgg16' else 1e-3}",
        "train.workers=0",
        "seed=1",
    )
    commands.train(chosen, tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [{name: row[name] for name in ("train_loss", "val_dice")} for row in csv.DictReader(file)]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert max(float(row["val_dice"]) for row in rows[1:]) > float(rows[0]["val_dice"])


@pytest.mark.skipif("SEGTUNE_SHARED" not in os.environ, reason="SEGTUNE_SHARED names no folder with photos and weights")
def test_a_frozen_xception_finds_hands(tmp_path: Path) -> None:
    shared = Path(os.environ["SEGTUNE_SHARED"])
    chosen = settings(
        "data=folder",
        f"data.root={shared / 'data' / 'hand_hgr1'}",
        "data.image_size=128",
        f"backbone.weights={shared / 'weights' / 'xception.safetensors'}",
        "freeze=head_only",
        "freeze.phases.head.epochs=3",
    )
    assert commands.train(chosen, tmp_path / "run")["val_dice"] > 0.75
