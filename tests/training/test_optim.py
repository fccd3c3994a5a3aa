"""Optimizer of a phase: learning rates, weight decay and the steps of RMSprop by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from segtune.config.training_settings import OptimizerSettings, PhaseSettings
from segtune.training.optim import FUSED, OPTIMIZERS, build_optimizer

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


def test_the_optimizer_holds_what_trains_and_nothing_else() -> None:
    model = Tiny()
    model.requires_grad_(False)
    model.decoder.requires_grad_(True)
    optimizer = build_optimizer(OptimizerSettings("adamw"), model, PhaseSettings(epochs=1, lr=1e-3), BLOCKS)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.decoder.parameters()}


def test_a_phase_has_its_own_optimizer() -> None:
    group = OptimizerSettings("adamw", weight_decay=0.1, momentum=0.8)

    def optimizer_of(**own: Any) -> torch.optim.Optimizer:
        return build_optimizer(group, Tiny(), PhaseSettings(epochs=1, lr=0.5, **own), BLOCKS)

    optimizer = optimizer_of()
    assert type(optimizer) is torch.optim.AdamW
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0]
    optimizer = optimizer_of(optimizer="sgd", weight_decay=0.0)
    assert type(optimizer) is torch.optim.SGD
    assert [(g["weight_decay"], g["momentum"]) for g in optimizer.param_groups] == [(0, 0.8), (0, 0.8)]
    optimizer = optimizer_of(optimizer="adam", weight_decay=0.2)
    assert type(optimizer) is torch.optim.Adam
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.2, 0]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_settings_that_are_not_set_are_the_optimizers_own(name: str) -> None:
    """PyTorch's, but for the momentum of SGD; of rmsprop_tf those of TF-slim's flags."""
    model, phase = Tiny(), PhaseSettings(epochs=1, lr=0.5)
    made = build_optimizer(OptimizerSettings(name), model, phase, BLOCKS).defaults
    changed = {"sgd": {"momentum": 0.9}, "rmsprop_tf": {"alpha": 0.9, "momentum": 0.9, "eps": 1.0}}
    fused = {"fused": True} if name in FUSED else {}
    assert made == OPTIMIZERS[name](model.parameters()).defaults | changed.get(name, {}) | fused


@pytest.mark.parametrize("name", FUSED)
def test_fused_steps_are_those_of_one_tensor_after_another(name: str) -> None:
    """Up to rounding, with weights channels-last; the gradients come from a backward pass, in whatever layout."""
    ends = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 3, groups=6))
        model.to(memory_format=torch.channels_last)
        whole = nn.Module()
        whole.backbone, whole.decoder = model, nn.Identity()
        settings = OptimizerSettings(name, weight_decay=0.1)
        optimizer = build_optimizer(settings, whole, PhaseSettings(epochs=1, lr=0.01), {"all": ("",)})
        for group in optimizer.param_groups:
            assert group["fused"]
            group["fused"] = fused
        for _ in range(5):
            optimizer.zero_grad(set_to_none=True)
            for images in (torch.randn(2, 4, 9, 9), torch.randn(2, 4, 9, 9).to(memory_format=torch.channels_last)):
                model(images).square().mean().backward()
            optimizer.step()
        ends.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert (ends[0] - ends[1]).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "rmsprop_tf"])
def test_epsilon_is_set(name: str) -> None:
    optimizer = build_optimizer(OptimizerSettings(name, epsilon=0.25), Tiny(), PhaseSettings(epochs=1, lr=1), BLOCKS)
    assert {group["eps"] for group in optimizer.param_groups} == {0.25}


def rmsprop(weight: float, gradients: list[float], lr: float, alpha: float, momentum: float, epsilon: float) -> float:
    """The RMSprop of PyTorch's documentation."""
    square = buffer = 0.0
    for g in gradients:
        square = alpha * square + (1 - alpha) * g * g
        step = g / (square**0.5 + epsilon)
        buffer = momentum * buffer + step
        weight -= lr * buffer
    return weight


def tf_rmsprop(
    weight: float, gradients: list[float], lr: float, alpha: float, momentum: float, epsilon: float
) -> float:
    """The operation ApplyRMSProp of TensorFlow, as tf.train.RMSPropOptimizer calls it: its `rms` slot starts at 1."""
    square, buffer = 1.0, 0.0
    for g in gradients:
        square = alpha * square + (1 - alpha) * g * g
        buffer = momentum * buffer + lr * g / (square + epsilon) ** 0.5
        weight -= buffer
    return weight


@pytest.mark.parametrize(
    ("name", "given", "used", "oracle"),
    [
        ("rmsprop", {}, (0.99, 0.0, 1e-8), rmsprop),
        ("rmsprop", {"alpha": 0.9, "momentum": 0.9, "epsilon": 1.0}, (0.9, 0.9, 1.0), rmsprop),
        ("rmsprop_tf", {}, (0.9, 0.9, 1.0), tf_rmsprop),
        ("rmsprop_tf", {"alpha": 0.95, "momentum": 0.0, "epsilon": 1e-10}, (0.95, 0.0, 1e-10), tf_rmsprop),
        ("rmsprop_tf", {"alpha": 0.95, "momentum": 0.5, "epsilon": 1e-3}, (0.95, 0.5, 1e-3), tf_rmsprop),
    ],
)
def test_ten_steps_of_rmsprop_by_hand(
    name: str, given: dict[str, float], used: tuple[float, float, float], oracle: Callable[..., float]
) -> None:
    """With a learning rate that changes between the steps, as a schedule's does: here it matters where it stands."""
    model = Tiny().double().requires_grad_(False)
    weight = model.decoder.bias.requires_grad_(True)
    optimizer = build_optimizer(OptimizerSettings(name, **given), model, PhaseSettings(epochs=1, lr=0.01), BLOCKS)
    gradients = [0.3, -2.0, 0.01, 5.0, 0.0, -0.4, 1.5, 0.2, -0.1, 3.0]
    before = weight.item()
    for g in gradients:
        weight.grad = torch.full_like(weight, g)
        optimizer.step()
    assert weight.item() == pytest.approx(oracle(before, gradients, 0.01, *used), abs=1e-12)
    others = {rmsprop: tf_rmsprop, tf_rmsprop: rmsprop}
    assert abs(weight.item() - others[oracle](before, gradients, 0.01, *used)) > 1e-4  # they differ


@pytest.mark.slow
def test_rmsprop_is_that_of_keras_once_its_beginning_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's epsilon is inside the root as TensorFlow's is, but its mean square starts at 0."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import keras

    theirs = keras.Variable([1.0])
    of_keras = keras.optimizers.RMSprop(0.01)
    model = Tiny().requires_grad_(False)
    ours = model.decoder.bias.requires_grad_(True)
    settings = OptimizerSettings("rmsprop_tf", momentum=0, epsilon=1e-7)
    optimizer = build_optimizer(settings, model, PhaseSettings(epochs=1, lr=0.01), BLOCKS)
    moved = []
    for step in range(200):
        before = ours.item(), theirs.numpy().item()
        ours.grad = torch.full_like(ours, 1e-3 * (-1) ** step)  # small: epsilon counts
        optimizer.step()
        of_keras.apply([ours.grad.clone()], [theirs])
        moved.append((ours.item() - before[0], theirs.numpy().item() - before[1]))
    assert moved[0][1] / moved[0][0] == pytest.approx((0.9 / (1e-7 + 1e-7)) ** 0.5, rel=1e-3)
    assert moved[-1][0] == pytest.approx(moved[-1][1], rel=1e-3)
    assert abs(moved[-1][1]) == pytest.approx(0.01 * 1e-3 / (1e-6 + 1e-7) ** 0.5, rel=1e-3)
