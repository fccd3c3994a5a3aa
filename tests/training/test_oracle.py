"""Freezing against its oracle: train everything with plain SGD, and put the frozen tensors back after every step.

Without momentum, weight decay and clipping no tensor's step depends on another's, so what trains must come out the same
as with real freezing. It does, to the last bit: the same kernels see the same values in the same order, whether or not
gradients of other tensors are computed beside them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from segtune.config.training_settings import FreezeSettings, OptimizerSettings, PhaseSettings
from segtune.losses import dice_bce_loss
from segtune.models.build import BuiltModel
from segtune.models.pretrained import LoadedWeights
from segtune.training.freezing import train_mode
from segtune.training.optim import build_optimizer
from segtune.training.phases import enter, plan_phases
from tests.conftest import slow

BuiltOf = Callable[[str], BuiltModel]
Tensors = dict[str, Tensor]

PRESETS = sorted((Path(__file__).parents[2] / "conf" / "freeze").glob("*.yaml"))
QUICK = [path if path.stem != "staged" else slow(path) for path in PRESETS]  # test_staged.py compares that one anew

# The blocks up to the deepest tap, in the order of depth, written down by hand: the beginnings of their tensors' names.
BLOCKS: dict[str, list[tuple[str, ...]]] = {
    "vgg16_fcn8s": [
        ("features.0.", "features.2."),
        ("features.5.", "features.7."),
        ("features.10.", "features.12.", "features.14."),
        ("features.17.", "features.19.", "features.21."),
        ("features.24.", "features.26.", "features.28."),
        ("fc6.", "drop6.", "fc7.", "drop7."),
    ],
    "resnet50_deeplabv3plus": [("conv1.", "bn1."), ("layer1.",), ("layer2.",), ("layer3.",)],
    "xception_deeplabv3plus": [("conv1.", "bn1.", "conv2.", "bn2."), *((f"block{n}.",) for n in range(1, 9))],
}

PLAIN_SGD = OptimizerSettings("sgd", momentum=0.0, weight_decay=0.0, schedule="constant", warmup=0.0)


@dataclass(frozen=True)
class Meant:
    """What a phase means, read without segtune: `rate_of` gives a tensor's rate by its name, None if it is frozen."""

    settings: dict[str, Any]
    rate_of: Callable[[str], float | None]


def meant_by(settings: dict[str, Any], pair: str) -> Meant:
    """Read a phase whose `backbone` is a number of blocks or `all`, and whose `decoder` is `all` or a list."""
    decoder = settings.get("decoder", "all")

    def rate_of(tensor: str) -> float | None:
        if tensor.startswith("decoder."):
            trains = decoder == "all" or tensor.startswith(tuple(f"decoder.{path}." for path in decoder))
            return float(settings["lr"]) if trains else None
        inside = tensor.removeprefix("backbone.")
        above = next((n for n, starts in enumerate(reversed(BLOCKS[pair])) if inside.startswith(starts)), None)
        if above is None or (settings["backbone"] != "all" and above >= settings["backbone"]):
            return None  # the model's mean and std are in no block
        return float(
            settings["lr"] * settings.get("backbone_lr_scale", 1.0) * settings.get("layer_decay", 1.0) ** above
        )

    return Meant(settings, rate_of)


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    for _ in range(count):
        images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
        yield images, (images[:, :1] > 127).to(torch.uint8)


def backward(model: nn.Module, images: Tensor, masks: Tensor) -> None:
    torch.manual_seed(3)  # for dropout
    dice_bce_loss(model(images), masks).backward()


def tensors_of(model: nn.Module) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def train_really(built: BuiltModel, phases: Mapping[str, Meant], steps: int) -> Iterator[Tensors]:
    """Train as the engine does; give the model's tensors after each phase."""
    freeze = FreezeSettings({name: PhaseSettings(**phase.settings) for name, phase in phases.items()})
    for phase in plan_phases(SimpleNamespace(freeze=freeze), built):  # type: ignore[arg-type]
        enter(built, phase)
        train_mode(built.model, phase.scope)
        optimizer = build_optimizer(PLAIN_SGD, built.model, phase.settings, built.blocks)
        for images, masks in batches(steps):
            backward(built.model, images, masks)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield tensors_of(built.model)


def train_and_put_back(model: nn.Module, phases: Mapping[str, Meant], steps: int) -> Iterator[Tensors]:
    """Train everything, each tensor at its rate, and after every step put back what is frozen."""
    model.requires_grad_(True)
    for phase in phases.values():
        for path, module in model.named_modules():
            module.training = phase.rate_of(f"{path}.") is not None
        frozen = {name: tensor for name, tensor in tensors_of(model).items() if phase.rate_of(name) is None}
        some = phase.settings["lr"]  # frozen tensors move at a rate too, until they are put back
        groups = [{"params": [p], "lr": phase.rate_of(name) or some} for name, p in model.named_parameters()]
        optimizer = torch.optim.SGD(groups)
        for images, masks in batches(steps):
            backward(model, images, masks)
            assert all(parameter.grad is not None for parameter in model.parameters())
            optimizer.step()
            optimizer.zero_grad()
            model.load_state_dict(frozen, strict=False)
        yield tensors_of(model)


def check(built: BuiltModel, oracle: nn.Module, phases: Mapping[str, Meant], steps: int) -> None:
    """Train both; what trains must be equal after every phase, and what is frozen as it was before it."""
    built = replace(built, weights=LoadedWeights("a file"))  # weights of one's own may be frozen
    for model in (built.model, oracle):
        model.to(memory_format=torch.channels_last)
    before = tensors_of(built.model)
    found, expected = train_really(built, phases, steps), train_and_put_back(oracle, phases, steps)
    for (name, phase), real, wanted in zip(phases.items(), found, expected, strict=True):
        for tensor, value in real.items():
            assert torch.equal(value, wanted[tensor]), f"phase {name}: {tensor} differs from the oracle"
            frozen = phase.rate_of(tensor) is None
            assert torch.equal(value, before[tensor]) is frozen, f"phase {name}: {tensor}, frozen: {frozen}"
        before = real


@pytest.mark.parametrize("pair", [next(iter(BLOCKS)), *map(slow, list(BLOCKS)[1:])])
@pytest.mark.parametrize("preset", QUICK, ids=lambda path: path.stem)
def test_presets(preset: Path, pair: str, built_of: BuiltOf) -> None:
    policy = yaml.safe_load(preset.read_text(encoding="utf-8"))
    if policy.get("decoder", "") not in pair:
        pytest.skip("a policy for another decoder")
    given = policy["phases"]
    # A hundred times the preset's rates: the smallest steps of plain SGD would be lost in rounding.
    phases = {name: meant_by(phase | {"lr": 100 * phase["lr"]}, pair) for name, phase in given.items()}
    # What is put back tells on what trains only in the steps after it; most presets have those in their next phase.
    steps = 1 if any(phase["backbone"] == "all" for phase in given.values()) else 2
    check(built_of(pair), built_of(pair).model, phases, steps)


def test_what_trains_lies_between_what_is_frozen(built_of: BuiltOf) -> None:
    """Gradients pass a frozen ASPP and frozen layers on their way to `layer2`, whose BatchNorm stands still."""
    pair = "resnet50_deeplabv3plus"
    middle: dict[str, Any] = {
        "epochs": 1,
        "lr": 0.03,
        "backbone": ["layer2", "re:layer1\\.[01]\\.conv."],
        "decoder": ["re:refine\\..*", "classifier"],
        "batchnorm": "frozen",
    }

    def rate_of(tensor: str) -> float | None:
        shallow = ("backbone.layer1.0.conv", "backbone.layer1.1.conv", "backbone.layer2.")
        normalises = tensor.startswith("backbone.") and (".bn" in tensor or "downsample.1." in tensor)
        trains = tensor.startswith((*shallow, "decoder.refine.", "decoder.classifier.")) and not normalises
        return 0.03 if trains else None

    phases = {
        "head": meant_by({"epochs": 1, "lr": 0.1, "backbone": 0}, pair),
        "middle": Meant(middle, rate_of),
    }
    check(built_of(pair), built_of(pair).model, phases, steps=2)


def test_what_freeze_takes_out_of_what_trains(built_of: BuiltOf) -> None:
    """Keras's first 20 layers of ResNet50 end within a unit; BatchNorm of `layer2` and the ASPP stand still as well."""
    pair = "resnet50_deeplabv3plus"
    late: dict[str, Any] = {
        "epochs": 1,
        "lr": 0.03,
        "backbone": 3,
        "layer_decay": 0.5,
        "freeze": [":20", "re:layer2\\..*\\.bn\\d", "decoder.aspp"],
    }
    first = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.0.", "backbone.layer1.1.conv1.", "decoder.aspp.")
    plain = meant_by(late, pair)

    def rate_of(tensor: str) -> float | None:
        frozen = tensor.startswith(first) or (tensor.startswith("backbone.layer2.") and ".bn" in tensor)
        return None if frozen else plain.rate_of(tensor)

    phases = {"head": meant_by({"epochs": 1, "lr": 0.1, "backbone": 0}, pair), "late": Meant(late, rate_of)}
    check(built_of(pair), built_of(pair).model, phases, steps=2)
