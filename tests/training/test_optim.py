"""Optimizer and schedule of a phase: learning rates and weight decay by hand."""

from typing import Any

import pytest
import torch
from torch import nn

from segtune.config.training_settings import OptimizerSettings, PhaseSettings
from segtune.training.optim import build_optimizer, build_schedule

BLOCKS = {"stem": ("conv0", "bn0"), "one": ("block1",), "two": ("block2",), "away": ("behind_the_cut",)}


class Tiny(nn.Module):
    """A backbone of three blocks, and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv0, self.backbone.bn0 = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)
        self.backbone.block1 = nn.Sequential(nn.Conv2d(2, 5, 3, bias=False), nn.ReLU())
        self.backbone.block2 = nn.Sequential(nn.Conv2d(5, 1, 1), nn.BatchNorm2d(1))
        self.decoder = nn.Conv2d(1, 1, 3)


def test_rates_of_layer_wise_decay_by_hand() -> None:
    given = PhaseSettings(epochs=1, lr=0.1, backbone_lr_scale=0.5, layer_decay=0.2)
    model = Tiny()
    optimizer = build_optimizer(OptimizerSettings("sgd", weight_decay=0.3), model, given, BLOCKS)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert found == {  # blocks two, one and stem; the block that is not there counts for nothing
        "backbone.conv0.weight": (pytest.approx(0.002), 0.3),
        "backbone.conv0.bias": (pytest.approx(0.002), 0),
        "backbone.bn0.weight": (pytest.approx(0.002), 0),
        "backbone.bn0.bias": (pytest.approx(0.002), 0),
        "backbone.block1.0.weight": (pytest.approx(0.01), 0.3),
        "backbone.block2.0.weight": (pytest.approx(0.05), 0.3),
        "backbone.block2.0.bias": (pytest.approx(0.05), 0),
        "backbone.block2.1.weight": (pytest.approx(0.05), 0),
        "backbone.block2.1.bias": (pytest.approx(0.05), 0),
        "decoder.weight": (0.1, 0.3),
        "decoder.bias": (0.1, 0),
    }


def test_the_learning_rate_warms_up_and_decays() -> None:
    model = Tiny()
    phase = PhaseSettings(epochs=1, lr=1e-2, backbone_lr_scale=0.1)
    for name, middle in (("cosine", 0.5), ("poly", 0.5**0.9), ("constant", 1.0)):
        options = OptimizerSettings("sgd", schedule=name, warmup=0.2)
        optimizer = build_optimizer(options, model, phase, BLOCKS)
        schedule = build_schedule(options, optimizer, phase, 100)
        lrs = []
        for _ in range(100):
            lrs.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        decoder, backbone = max(lrs[30]), min(lrs[30])
        assert backbone == pytest.approx(0.1 * decoder)
        assert max(lrs[0]) == pytest.approx(1e-2 / 21)
        assert max(lrs[20]) == pytest.approx(1e-2)
        assert max(lrs[60]) == pytest.approx(1e-2 * middle)


def test_the_optimizer_holds_what_trains_and_nothing_else() -> None:
    model = Tiny()
    model.requires_grad_(False)
    model.decoder.requires_grad_(True)
    optimizer = build_optimizer(OptimizerSettings("adamw"), model, PhaseSettings(epochs=1, lr=1e-3), BLOCKS)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.decoder.parameters()}


def test_a_phase_has_its_own_optimizer_and_schedule() -> None:
    model = nn.Module()
    model.backbone, model.decoder = nn.Module(), nn.Conv2d(1, 1, 1)
    group = OptimizerSettings("adamw", weight_decay=0.1, momentum=0.8, schedule="cosine", warmup=0.25)

    def lrs_of(**own: Any) -> tuple[torch.optim.Optimizer, list[float]]:
        phase = PhaseSettings(epochs=1, lr=0.5, **own)
        optimizer = build_optimizer(group, model, phase, {})
        schedule, lrs = build_schedule(group, optimizer, phase, 4), []
        for _ in range(4):
            lrs.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return optimizer, lrs

    optimizer, lrs = lrs_of()
    assert type(optimizer) is torch.optim.AdamW
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0]
    assert lrs == pytest.approx([0.25, 0.5, 0.375, 0.125])  # one step of warm-up, then (1 + cos(x pi)) / 2 at thirds
    optimizer, lrs = lrs_of(optimizer="sgd", weight_decay=0.0, schedule="constant", warmup=0.5)
    assert type(optimizer) is torch.optim.SGD
    assert [(g["weight_decay"], g["momentum"]) for g in optimizer.param_groups] == [(0, 0.8), (0, 0.8)]
    assert lrs == pytest.approx([0.5 / 3, 1 / 3, 0.5, 0.5])
    optimizer, lrs = lrs_of(optimizer="adam", weight_decay=0.2, schedule="poly", warmup=0.0)
    assert type(optimizer) is torch.optim.Adam
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.2, 0]
    assert lrs == pytest.approx([0.5 * (1 - step / 4) ** 0.9 for step in range(4)])
