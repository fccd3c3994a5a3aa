"""What `plan` says of a phase, against counts made by hand and by other ways."""

import json
import re
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from segtune.commands import plan as commands
from segtune.config.command_settings import PlanSettings
from segtune.config.model_settings import RestoreSettings
from segtune.config.parse import parse
from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES
from segtune.models.build import BuiltModel
from segtune.models.start import build_start
from segtune.runtime.device import resolve_device
from segtune.training import batch_size
from segtune.training import phase_summary as plan
from segtune.training.freezing import find_reached
from segtune.training.optim import build_optimizer
from segtune.training.phase_summary import brief, cost_of, everything, facts
from segtune.training.phases import enter, entered, plan_phases
from segtune.training.step_cost import StepCost
from segtune.training.tensor_facts import tensor_facts
from tests.commands.conftest import SMALL, refused, run, words
from tests.conftest import slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file(BACKBONES["resnet50"].build().state_dict(), path)
    return path


def settings(weights: Path | str, phases: dict, **more) -> PlanSettings:
    return parse(
        PlanSettings,
        {
            "backbone": {"name": "resnet50", "weights": str(weights)},
            "taps": {"low": "layer1.0.act2", "high": "layer2.0.act2"},
            "decoder": {"name": "deeplabv3plus", "channels": 16, "low_channels": 8},
            "freeze": {"phases": phases},
            "data": {"name": "folder", "root": "there/is/none", "image_size": 64},
            "augment": {},
            "loss": {"name": "dice_bce"},
            "optimizer": {"name": "adamw"},
            "train": {"batch_size": 2, "workers": 0, "precision": "fp32", "device": "cpu"},
            "checkpoint": {},
            **more,
        },
    )


PHASES = {
    "head": {"backbone": 0, "epochs": 1, "lr": 1e-3},
    "deep": {"backbone": 1, "steps": 7, "lr": 1e-4, "optimizer": "sgd", "backbone_lr_scale": 0.5, "layer_decay": 0.5},
    "all": {"epochs": 2, "lr": 1e-5, "until": "plateau", "batchnorm": "frozen"},
}


@dataclass(frozen=True)
class Planned:
    """What `plan` returns, prints and writes."""

    shown: list[dict[str, Any]]
    out: str
    written: dict[str, Any]


@pytest.fixture(scope="module")
def planned(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    with redirect_stdout(StringIO()) as out:
        shown = commands.plan(settings(weights, PHASES, output=str(path), details=True, summary=True))
    return Planned(shown, out.getvalue(), json.loads(path.read_text(encoding="utf-8")))


def test_the_facts_of_each_phase(weights: Path, planned: Planned) -> None:
    shown, written = planned.shown, planned.written
    assert written["phases"] == shown
    head, deep, last = shown
    assert [(f["trains"], f["frozen"]) for f in (head, deep)] == [
        ("decoder", "stem … layer2"),
        ("layer2, decoder", "stem … layer1"),
    ]
    assert [f["features"] and f["features"]["frozen_to"] for f in shown] == ["layer2.0.act2", "layer1.2.act3", None]
    assert (head["backward_stops"], deep["backward_stops"]) == ("decoder.project.0", "backbone.layer2.0.conv1")
    assert last["parts"]["stem"] == {
        "trainable": 3 * 64 * 49,
        "parameters": 3 * 64 * 49 + 2 * 64,
    }
    model = build_start(settings(weights, PHASES)).model
    decoder = sum(p.numel() for p in model.decoder.parameters())
    tensors = len(list(model.decoder.parameters()))
    assert (head["trainable"], head["optimizer_tensors"]) == (decoder, tensors)
    assert head["optimizer_bytes"] == 8 * decoder + 4 * tensors  # two moments of four bytes, and a counter for each
    assert deep["optimizer_bytes"] == 4 * deep["trainable"]  # SGD keeps the momentum alone
    costs = [f["step_flops"] for f in shown]
    assert costs[0] < costs[1] < costs[2] <= last["everything"]["step_flops"]
    assert head["step_bytes"] < deep["step_bytes"] < last["everything"]["step_bytes"]
    out = planned.out
    assert out.count("features  up to layer") == 2
    assert "features  nothing to keep" in out
    assert "decoder.classifier.bias" in out
    assert out.count("frozen") > 50
    assert not Path("there").exists()
    check_tensors(model, shown)
    check_layers(model, written)


def check_tensors(model: torch.nn.Module, shown: list[dict[str, Any]]) -> None:
    """Every parameter and buffer is listed, with what the phases do: decoder, then the deepest block, then all."""
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    for of_phase, begins in zip(shown, (("decoder",), ("decoder", "backbone.layer2"), ("",)), strict=True):
        listed = {tensor["name"]: tensor for tensor in of_phase["tensors"]}
        assert {name: tensor["shape"] for name, tensor in listed.items()} == {
            name: list(tensor.shape) for name, tensor in named.items()
        }
        assert sum(tensor.get("optimizer_bytes", 0) for tensor in listed.values()) == of_phase["optimizer_bytes"]
        for name, tensor in listed.items():
            moving = name.startswith(begins) and not name.startswith(("mean", "std", "scale"))
            if of_phase["phase"] == "all" and re.search(r"backbone.*(bn\d|downsample\.1)\.", name):
                moving = False  # batchnorm: frozen
            buffer = name in dict(model.named_buffers())
            assert tensor["state"] == (("changes" if buffer else "trains") if moving else "frozen"), name


def check_layers(model: torch.nn.Module, written: dict[str, Any]) -> None:
    counts = {path: sum(p.numel() for p in m.parameters(recurse=False)) for path, m in model.named_modules()}
    layers = {layer["layer"]: layer for layer in written["layers"]}
    assert {path: layer["parameters"] for path, layer in layers.items() if layer["parameters"]} == {
        path: number for path, number in counts.items() if number
    }
    assert layers["backbone.layer2.0.conv1"]["trains"] == {"head": 0, "deep": 1, "all": 1}
    assert layers["backbone.layer2.0.bn1"]["trains"] == {"head": 0, "deep": 1, "all": 0}
    assert layers["backbone.maxpool"] | {"type": ""} == {
        **{"layer": "backbone.maxpool", "type": "", "shape": [64, 16, 16]},
        **{"parameters": 0, "trains": {}},
    }
    totals = written["totals"]
    assert totals["parameters"] == {"values": sum(counts.values()), "bytes": 4 * sum(counts.values())}
    assert totals["buffers"]["values"] == sum(buffer.numel() for buffer in model.buffers())
    for phase in written["phases"]:
        assert totals[f"trainable in {phase['phase']}"]["values"] == phase["trainable"]
        assert totals[f"non-trainable in {phase['phase']}"]["values"] == phase["parameters"] - phase["trainable"]


TIMM = (
    "plan",
    "backbone=timm",
    f"backbone.name={SMALL}",
    "data.image_size=64",
    "train.device=cpu",
    "freeze=progressive",
)


@pytest.fixture
def without_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = StepCost(flops=0, activations=0, gradients=0, optimizer_tensors={}, weights=0, backward_stops="conv1")
    monkeypatch.setattr(plan, "estimate", lambda *_: cost)


@pytest.mark.slow
@pytest.mark.usefixtures("at_80_columns", "without_costs")
def test_the_layers_fit_80_columns_and_the_model_is_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = run(capsys, *TIMM, "summary=true", "picture=drawn/model.svg")
    table = out[out.index("trains") : out.index("Shapes are for one image")]
    expected = {"blocks.0.0.se.conv_reduce", "decoder.classifier", "Conv2d", "96", "4-5", "1-5", "buffers"}
    assert expected <= words(table)
    assert "Wrote drawn/model.svg." in out
    svg = (tmp_path / "drawn" / "model.svg").read_text(encoding="utf-8")
    written = set(re.findall("<!-- (.*?) -->", svg))
    assert {"blocks.0", "low: blocks.0.0.bn2", "aspp: ASPP", "logits", "deep2", "part of it trains"} <= written


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (
            "net.gif",
            "segtune plan: One setting is wrong:\n"
            "  picture: got 'net.gif'; expected: a file name that ends in .png, .svg or .pdf.",
        ),
        slow("file/net.png", "segtune plan: Cannot write file/net.png: a part of the path is a file, "),
    ],
)
def test_pictures_that_cannot_be_written(
    picture: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert refused(capsys, *TIMM, f"picture={picture}").startswith(message)


def test_the_optimizers_bytes_are_those_of_a_real_one(weights: Path, planned: Planned) -> None:
    chosen = settings(weights, PHASES)
    built = build_start(chosen)
    for phase, shown in zip(plan_phases(chosen, built), planned.shown, strict=True):
        enter(built, phase)
        optimizer = build_optimizer(chosen.optimizer, built.model, phase.settings, built.blocks)
        built.model.eval()
        built.model(torch.zeros(2, 3, 64, 64)).sum().backward()
        optimizer.step()
        held = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
        assert shown["optimizer_bytes"] == sum(t.numel() * t.element_size() for t in held)
        built.model.zero_grad()


def test_the_heading_of_a_phase(weights: Path, planned: Planned) -> None:
    chosen = settings(weights, PHASES)
    lines = [brief(f, phase) for f, phase in zip(planned.shown, chosen.freeze.phases.values(), strict=True)]
    assert lines[0][:2] == ["trains  decoder", "frozen  stem … layer2"]
    assert lines[0][3:] == ["gradients stop at decoder.project.0", "epochs  1, adamw at 0.001"]
    assert lines[1][-1] == (
        "steps   7, sgd at 0.0001, the backbone at 5e-05 times 0.5 for each block further from the decoder"
    )
    assert lines[2][1].endswith("BatchNorm of the whole backbone")
    assert lines[2][-1].startswith("epochs  2 at most, until 3 epochs bring no better Dice, adamw at 1e-05")


def test_random_weights_are_never_frozen() -> None:
    shown = commands.plan(settings("none", {"head": PHASES["head"]}))
    assert shown[0]["trainable"] == shown[0]["parameters"]
    assert shown[0]["step_flops"] == shown[0]["everything"]["step_flops"]


@pytest.mark.usefixtures("without_costs")
def test_weights_are_assumed_and_not_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """There are none: the tests' caches are empty, and the network is off."""
    shown = commands.plan(settings("auto", {"head": PHASES["head"]}))
    assert shown[0]["trains"] == "decoder"
    said = "Pretrained weights are assumed (backbone.weights=auto): no value is needed here."
    out = capsys.readouterr().out
    assert said in out
    assert "warning" not in out


@pytest.mark.usefixtures("without_costs")
def test_a_plan_shows_what_is_restored(weights: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of the backbone nothing, for it is of another network, as its settings say."""
    chosen = settings(weights, {"head": PHASES["head"]})
    tensors = build_start(chosen).model.state_dict()
    del tensors["backbone.conv1.weight"]
    torch.save({"settings": {"backbone": {"name": "resnet101"}}, "model": tensors}, tmp_path / "a.pt")
    shown = commands.plan(replace(chosen, restore=RestoreSettings(str(tmp_path / "a.pt"))))
    assert shown[0]["trains"] == "decoder"
    out = " ".join(capsys.readouterr().out.split())
    assert f"Restored from {tmp_path / 'a.pt'}: backbone 0 of " in out
    assert f"warning: {tmp_path / 'a.pt'} was trained with the backbone resnet101, not resnet50: its backbone" in out


def test_everything_is_everything(weights: Path) -> None:
    chosen = settings(weights, {"head": PHASES["head"] | {"stop_gradient": "layer1"}})
    built = build_start(chosen)
    enter(built, everything(plan_phases(chosen, built)[0]))
    assert all(p.requires_grad for p in built.model.parameters())
    assert not any(stop.active for stop in built.stops.values())


def traces(built: BuiltModel) -> dict[str, object]:
    """All that a question could leave behind on a model, down to the bits of its tensors."""

    def bits(tensor: torch.Tensor | None) -> bytes | None:
        return None if tensor is None else tensor.detach().contiguous().numpy().tobytes()

    parameters, modules = dict(built.model.named_parameters()), dict(built.model.named_modules())
    return {
        "tensors": {name: bits(tensor) for name, tensor in built.model.state_dict().items()},
        "gradients": {name: (p.requires_grad, id(p.grad), bits(p.grad)) for name, p in parameters.items()},
        "modes": {name: module.training for name, module in modules.items()},
        "hooks": {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in modules.items()},
        "stops": {name: (stop.active, stop.passed) for name, stop in built.stops.items()},
    }


CUTS = {
    "head": PHASES["head"],
    "behind": PHASES["all"] | {"stop_gradient": "layer1"},
    "score": {"stop_gradient": "decoder.refine"},
}
CUTS["score"] |= {"epochs": 1, "lr": 1e-3}


@pytest.mark.parametrize(
    "state", ["with gradients", *(slow(state) for state in ("built", "eval", "closed", "in a phase"))]
)
def test_questions_leave_the_model_as_it_was(weights: Path, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(weights, CUTS)
    built, compute = build_start(chosen), resolve_device(chosen.train)
    phases = plan_phases(chosen, built)
    match state:
        case "eval":
            built.model.eval()
        case "closed":
            built.model.requires_grad_(False)
        case "in a phase" | "with gradients":
            enter(built, phases[1])
            if state == "with gradients":
                built.model(torch.zeros(2, 3, 64, 64)).sum().backward()
    before = traces(built)
    plan_phases(chosen, built)
    assert traces(built) == before
    for phase in [*phases, everything(phases[0])]:
        for ask in (facts, tensor_facts):  # both ask for the costs
            ask(built, phase, chosen, compute)
            assert traces(built) == before
    monkeypatch.setattr(plan, "estimate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cost_of(built, phases[2], chosen, compute)
    wrong = settings(weights, {"head": PHASES["head"] | {"stop_gradient": "decoder.refine"}})
    monkeypatch.setattr(built.stops["decoder.refine"], "forward", lambda x: x)  # as of a module that is never called
    with pytest.raises(UserError, match="the model never calls this module itself"):
        plan_phases(wrong, built)
    assert traces(built) == before
    assert "decoder.classifier" in find_reached(built.model)
    assert traces(built) | {"stops": before["stops"]} == before  # a stop remembers that values came


def test_a_phase_is_entered_inside_the_block_alone(weights: Path) -> None:
    chosen = settings(weights, CUTS)
    built = build_start(chosen)
    phases, before = plan_phases(chosen, built), traces(built)
    with entered(built, phases[1]):
        inside = traces(built)
    enter(built, phases[1])
    assert inside == traces(built) != before


@pytest.mark.slow
def test_measured_steps(weights: Path) -> None:
    chosen = settings(weights, {"head": PHASES["head"]}, measure=True)
    # Large enough for what the backward pass keeps to stand out of the allocator's noise of some MB.
    chosen = replace(chosen, data=replace(chosen.data, image_size=224))
    shown = commands.plan(chosen)[0]
    assert shown["measured_seconds"] > 0  # how much less it is, on a busy machine nobody can say
    assert 0 < shown["measured_bytes"] < shown["everything"]["measured_bytes"]


def test_a_batch_size_is_found_without_data(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In half of the free memory; the estimate of a step is doubled, for its temporary tensors."""
    found: list[int] = []

    def cost(*given: Any) -> SimpleNamespace:
        found.append(given[2].train.images_per_batch)
        return SimpleNamespace(memory=found[-1] * 10**9)

    monkeypatch.setattr(batch_size, "cost_of", cost)
    monkeypatch.setattr(batch_size, "free_memory", lambda: 17 * 10**9)
    train = {"batch_size": "auto", "precision": "fp32", "device": "cpu"}
    commands.plan(settings(weights, {"head": PHASES["head"]}, train=train))
    out = capsys.readouterr().out
    assert "train.batch_size=4 (auto): the most that fit into 8.5 GB, half of the free memory, by estimate\n" in out
    assert "batches of 4 images of 64 x 64 pixels\n" in out
    assert found == [2, 8, 4]
