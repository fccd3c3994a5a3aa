"""The guards: exact messages on planted faults, on small modules and in real runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.data.splits import build_splits
from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES
from segtune.models.build import BuiltModel, build_model
from segtune.models.pretrained import LoadedWeights
from segtune.runtime.device import resolve_device
from segtune.training import loop as engine
from segtune.training.invariants import check_gradients, check_members, check_unchanged, fingerprint
from segtune.training.optim import build_optimizer
from segtune.training.phases import plan_phases

NetworkOf = Callable[[str], nn.Module]


def half_frozen() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    model.eval().requires_grad_(False)
    model[2].train().requires_grad_(True)
    return model


# --- who is in the optimizer ---


def test_an_optimizer_of_what_trains_is_right() -> None:
    model = half_frozen()
    check_members(model, torch.optim.SGD(model[2].parameters(), lr=0.1), "head")


def test_a_frozen_parameter_in_the_optimizer() -> None:
    model = half_frozen()
    with pytest.raises(UserError) as caught:
        check_members(model, torch.optim.SGD(model.parameters(), lr=0.1), "head")
    assert str(caught.value) == (
        "Phase head: the optimizer holds frozen parameters: 0.weight, 0.bias, 1.weight, 1.bias."
    )
    groups = [{"params": [*model[2].parameters()]}, {"params": [model[1].weight], "lr": 0.0}]
    with pytest.raises(UserError, match=r"holds frozen parameters: 1\.weight\.$"):
        check_members(model, torch.optim.SGD(groups, lr=0.1), "head")


def test_a_trainable_parameter_that_is_not_in_the_optimizer() -> None:
    model = half_frozen()
    with pytest.raises(UserError) as caught:
        check_members(model, torch.optim.SGD([model[2].weight], lr=0.1), "deep")
    assert str(caught.value) == "Phase deep: the optimizer lacks trainable parameters: 2.bias."


def test_equal_values_do_not_stand_for_each_other() -> None:
    """Two layers of the same numbers are two: comparing tensors by value would take one for the other."""
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    with pytest.raises(UserError, match=r"lacks trainable parameters: 1\.weight, 1\.bias\.$"):
        check_members(model, torch.optim.SGD(model[0].parameters(), lr=0.1), "all")


# --- gradients ---


def test_parameters_without_a_gradient() -> None:
    model = half_frozen()
    model(torch.ones(1, 3, 4, 4)).sum().backward()
    check_gradients(model, "head")
    model[0].requires_grad_(True)
    with pytest.raises(UserError) as caught:
        check_gradients(model, "deep")
    assert str(caught.value) == (
        "Phase deep: no gradient reaches 0.weight, 0.bias, so these trainable parameters would never change. "
        "Something between them and the logits stops gradients, or the forward pass does not use them. "
        "Freeze them, or fix the model."
    )


def test_a_gradient_of_zeros_is_one() -> None:
    """The skip scores of FCN-8s start at zero: what lies behind them gets zeros, and moves from the second step on."""
    model = half_frozen()
    (0 * model(torch.ones(1, 3, 4, 4))).sum().backward()
    assert not model[2].weight.grad.any()
    check_gradients(model, "head")


def test_many_names_are_cut_short() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    with pytest.raises(UserError, match=r"reaches 0\.weight, 0\.bias, 1\.weight, 1\.bias, 2\.weight and 3 more, so"):
        check_gradients(model, "all")


# --- what is frozen ---


def test_the_fingerprint_holds_what_is_frozen_and_nothing_else() -> None:
    model = half_frozen()
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert fingerprint(model).keys() == {"0.weight", "0.bias", "1.weight", "1.bias"} | statistics
    model[1].train()
    assert fingerprint(model).keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}
    model[1].eval().requires_grad_(True)  # trains, at statistics that stand still
    assert fingerprint(model).keys() == {"0.weight", "0.bias"} | statistics
    model.register_buffer("mean", torch.zeros(3))
    assert "mean" in fingerprint(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_one_bit_is_a_change_and_a_copy_is_none(dtype: torch.dtype) -> None:
    model = half_frozen().to(dtype)
    before = fingerprint(model)
    check_unchanged(model, before, "head")
    check_unchanged(model.to(memory_format=torch.channels_last), before, "head")
    with torch.no_grad():
        model[2].weight.add_(1)  # it trains
    check_unchanged(model, before, "head")
    with torch.no_grad():
        model[0].weight.view(-1)[1] = torch.nextafter(model[0].weight.view(-1)[1], torch.tensor(9, dtype=dtype))
    with pytest.raises(UserError) as caught:
        check_unchanged(model, before, "head")
    assert str(caught.value) == CHANGED.format(phase="head", names="0.weight")


CHANGED = (
    "Phase {phase} has changed tensors that were frozen in it: {names}. The run stops because its weights contradict "
    "its settings. The usual cause: a module that updates its own tensors in every pass."
)


def test_a_changed_buffer() -> None:
    model = half_frozen()
    before = fingerprint(model)
    model[1].train()
    model(torch.randn(2, 3, 4, 4))
    with pytest.raises(UserError) as caught:
        check_unchanged(model, before, "deep")
    names = "1.running_mean, 1.running_var, 1.num_batches_tracked"
    assert str(caught.value) == CHANGED.format(phase="deep", names=names)


def test_zero_and_minus_zero_are_two() -> None:
    model = half_frozen()
    model[1].running_mean.zero_()
    before = fingerprint(model)
    model[1].running_mean.neg_()
    with pytest.raises(UserError, match=r"frozen in it: 1\.running_mean\. The run stops"):
        check_unchanged(model, before, "head")


# --- in a run ---

PHASES = {
    "head": {"epochs": 1, "lr": 1e-3, "backbone": 0},
    "deep": {"epochs": 1, "lr": 1e-3, "backbone": ["layer1.1", "layer1.2"]},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four discs on noise: two to train, one to validate, one to test."""
    root = tmp_path_factory.mktemp("discs")
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for i, split in enumerate(("train", "train", "val", "test")):
        mask = np.zeros((64, 64), np.uint8)
        cv2.circle(mask, (30, 30 + i), 14 + i, 255, -1)
        cv2.imwrite(str(root / "masks" / f"d{i}.png"), mask)
        cv2.imwrite(str(root / "images" / f"d{i}.png"), generator.integers(0, 255, (64, 64, 3), np.uint8))
        with (root / f"{split}.txt").open("a") as names:
            names.write(f"d{i}\n")
    return root


@pytest.fixture
def faulty(photos: Path, tmp_path: Path, network_of: NetworkOf) -> Callable[..., str]:
    """Return a function that trains with a fault planted in the model, and gives the message the run stops with."""
    settings = parse(
        Settings,
        {
            "backbone": {"name": "resnet50", "weights": "none"},
            "taps": {"low": "layer1.0.act2", "high": "layer1.2.act2"},
            "decoder": {"name": "deeplabv3plus", "channels": 8, "low_channels": 8},
            "freeze": {"phases": PHASES},
            "data": {"name": "folder", "root": str(photos), "image_size": 64},
            "augment": {},
            "loss": {"name": "dice_bce"},
            "optimizer": {"name": "sgd"},
            "train": {"batch_size": 2, "workers": 0, "samples": 0, "device": "cpu"},
            "checkpoint": {},
        },
    )
    network = network_of("resnet50")

    def run(plant: Callable[[BuiltModel], Any] = lambda _: None) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], build=lambda: network))
            built = build_model(settings.backbone, settings.taps, settings.decoder)
        built = replace(built, weights=LoadedWeights("a file"))  # weights of one's own may be frozen
        plant(built)
        splits = build_splits(settings.data, 0, 0)
        phases = plan_phases(settings, built)
        with pytest.raises(UserError) as caught:
            engine.fit(
                settings, built, phases, lambda _: {"trainable": 0}, splits, tmp_path, resolve_device(settings.train)
            )
        return str(caught.value)

    return run


@pytest.mark.trains
@pytest.mark.parametrize("added", [True, False], ids=["a frozen one too", "all but one"])
def test_a_run_with_a_wrong_optimizer_stops(
    faulty: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, added: bool
) -> None:
    def wrong(settings: Any, model: nn.Module, *others: Any) -> torch.optim.Optimizer:
        optimizer = build_optimizer(settings, model, *others)
        if added:
            optimizer.add_param_group({"params": [model.get_submodule("backbone.conv1").weight]})
        else:
            optimizer.param_groups[-1]["params"].pop()
        return optimizer

    monkeypatch.setattr(engine, "build_optimizer", wrong)
    assert faulty() == (
        "Phase head: the optimizer holds frozen parameters: backbone.conv1.weight."
        if added
        else "Phase head: the optimizer lacks trainable parameters: decoder.classifier.bias."
    )
    assert not (tmp_path / "checkpoints").exists()  # it has not begun


@pytest.mark.trains
def test_a_run_with_a_tensor_that_gets_no_gradient_stops_on_the_first_step_of_its_phase(
    faulty: Callable[..., str], tmp_path: Path
) -> None:
    def plant(built: BuiltModel) -> None:
        built.model.get_submodule("backbone.layer1.1").spare = nn.Conv2d(1, 1, 1)  # frozen in the first phase

    names = "backbone.layer1.1.spare.weight, backbone.layer1.1.spare.bias"
    assert faulty(plant).startswith(
        f"Phase deep: no gradient reaches {names}, so these trainable parameters would never change. "
    )
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 2  # the heading, and the first phase's epoch


@pytest.mark.trains
@pytest.mark.parametrize(
    ("path", "tensor", "phase"),
    [
        ("backbone.layer1.1.bn1", "running_var", "head"),  # a buffer
        ("backbone.layer1.1.conv1", "weight", "head"),  # a parameter
        ("backbone.bn1", "num_batches_tracked", "head"),
    ],
)
def test_a_run_that_changes_what_is_frozen_stops_at_the_end_of_the_phase(
    faulty: Callable[..., str], tmp_path: Path, path: str, tensor: str, phase: str
) -> None:
    @torch.no_grad()
    def write(module: nn.Module, *_: Any) -> None:
        getattr(module, tensor).add_(1)

    def plant(built: BuiltModel) -> None:
        built.model.get_submodule(path).register_forward_hook(write)

    assert faulty(plant) == CHANGED.format(phase=phase, names=f"{path}.{tensor}")
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.trains
def test_only_what_is_frozen_in_a_phase_is_watched_in_it(
    faulty: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Statistics that move because their layer trains are no fault; those beside them that should stand still are."""
    one_epoch = engine.train_epoch

    def fouled(run: engine.Run, network: nn.Module, movers: engine.OptimState, phase: Any, **options: Any) -> None:
        one_epoch(run, network, movers, phase, **options)
        still = {"head": "decoder.aspp.convs.0.1", "deep": "backbone.layer1.0.bn1"}[phase.name]  # the first one trains
        run.model.get_submodule(still).running_mean.add_(1)

    monkeypatch.setattr(engine, "train_epoch", fouled)
    assert faulty() == CHANGED.format(phase="deep", names="backbone.layer1.0.bn1.running_mean")
