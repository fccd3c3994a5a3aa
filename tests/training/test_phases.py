"""From a policy to phases: lengths by hand, cuts by what gets a gradient, and users' mistakes by their messages."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from segtune.__main__ import main
from segtune.config.model_settings import BackboneSettings, DeepLabV3PlusSettings
from segtune.config.training_settings import FreezeSettings, PhaseSettings
from segtune.errors import UserError
from segtune.models import build, start
from segtune.models.backbones.registry import BACKBONES
from segtune.models.build import BuiltModel, build_model
from segtune.models.pretrained import LoadedWeights
from segtune.training.freezing import train_mode
from segtune.training.phases import Phase, Span, enter, plan_phases, span_of

NetworkOf = Callable[[str], nn.Module]
BuiltOf = Callable[[str], BuiltModel]

PAIR = "resnet50_deeplabv3plus"
TAPS = yaml.safe_load((Path(__file__).parents[2] / "conf" / "taps" / f"{PAIR}.yaml").read_text(encoding="utf-8"))
CUTS = (
    "conv3_block4_out",
    "layer2.3.act3",  # the same layer once more, as it is called in PyTorch
    "layer2.0.add",
    "conv2_block3_2_relu",
    "conv4_block6_2_relu",
    "stem",
    "decoder.aspp",
    "decoder.aspp.convs",
    "decoder.refine",
    "decoder.refine.4",
    "decoder.classifier",
    "decoder",
    "logits",
)


def assemble(network_of: NetworkOf, *cuts: str) -> BuiltModel:
    """Build ResNet50 with DeepLabV3+ and places to stop gradients; as in `conftest.built_of`, with the same values."""
    network = network_of("resnet50")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], build=lambda: network))
        torch.manual_seed(0)
        decoder = DeepLabV3PlusSettings(channels=16, low_channels=8)
        built = build_model(BackboneSettings("resnet50", weights="none"), TAPS, decoder, cuts)
    return replace(built, weights=LoadedWeights("a file"))


@pytest.fixture(scope="module")
def built(network_of: NetworkOf) -> BuiltModel:
    return assemble(network_of, *CUTS)


def plan(built: BuiltModel, **phases: dict[str, Any]) -> list[Phase]:
    settings = {name: PhaseSettings(**{"epochs": 1, "lr": 0.1} | phase) for name, phase in phases.items()}
    return plan_phases(SimpleNamespace(freeze=FreezeSettings(settings)), built)  # type: ignore[arg-type]


def error(built: BuiltModel, **phases: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        plan(built, **phases)
    return str(caught.value)


# --- how long ---


@pytest.mark.parametrize(
    ("given", "batches", "accumulate", "span"),
    [
        ({"epochs": 3}, 7, 1, Span(epochs=3, batches=7, last=7, steps=21)),
        ({"epochs": 3}, 7, 2, Span(epochs=3, batches=7, last=7, steps=12)),  # a step of one batch ends each epoch
        ({"steps": 14}, 7, 1, Span(epochs=2, batches=7, last=7, steps=14)),
        ({"steps": 15}, 7, 1, Span(epochs=3, batches=7, last=1, steps=15)),
        ({"steps": 1}, 7, 1, Span(epochs=1, batches=7, last=1, steps=1)),
        ({"steps": 5}, 7, 2, Span(epochs=2, batches=7, last=2, steps=5)),
        ({"steps": 7}, 7, 2, Span(epochs=2, batches=7, last=6, steps=7)),
        ({"steps": 8}, 7, 2, Span(epochs=2, batches=7, last=7, steps=8)),
        ({"steps": 3}, 7, 8, Span(epochs=3, batches=7, last=7, steps=3)),
        ({"steps": 3}, 1, 1, Span(epochs=3, batches=1, last=1, steps=3)),
    ],
)
def test_length_of_a_phase(given: dict[str, int], batches: int, accumulate: int, span: Span) -> None:
    assert span_of(PhaseSettings(lr=0.1, **given), batches, accumulate) == span


@pytest.mark.parametrize(
    ("given", "accumulate", "skipped", "span"),
    [
        ({"epochs": 3}, 1, 5, Span(epochs=3, batches=7, last=7, steps=21)),  # an epoch is its batches
        ({"steps": 13}, 1, 1, Span(epochs=2, batches=7, last=7, steps=13)),
        ({"steps": 13}, 1, 3, Span(epochs=3, batches=7, last=2, steps=13)),
        ({"steps": 5}, 2, 2, Span(epochs=2, batches=7, last=6, steps=5)),
    ],
)
def test_a_phase_of_steps_makes_up_for_skipped_ones(
    given: dict[str, int], accumulate: int, skipped: int, span: Span
) -> None:
    assert span_of(PhaseSettings(lr=0.1, **given), 7, accumulate, skipped) == span


def test_the_batches_of_all_epochs_make_the_steps() -> None:
    for batches in range(1, 8):
        for accumulate in range(1, 10):
            for length in ({"epochs": 3}, *({"steps": steps} for steps in range(1, 20))):
                span = span_of(PhaseSettings(lr=0.1, **length), batches, accumulate)
                assert sum(-(-span.of(epoch) // accumulate) for epoch in range(span.epochs)) == span.steps
                assert 1 <= span.last <= batches


# --- cuts ---

SHALLOW = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.0.", "backbone.layer1.1.")
BELOW_LOW = (*SHALLOW, "backbone.layer1.2.conv1.", "backbone.layer1.2.bn1.", "backbone.layer1.2.conv2.",
             "backbone.layer1.2.bn2.")  # fmt: skip
HEAD = {"backbone": 0}


@pytest.mark.parametrize(
    ("phase", "trained"),
    [
        # The low tap still hands gradients to the layers below it, past a cut behind it.
        ({"stop_gradient": "conv3_block4_out"}, (*BELOW_LOW, "backbone.layer3.", "decoder.")),
        ({"stop_gradient": "layer2.3.act3"}, (*BELOW_LOW, "backbone.layer3.", "decoder.")),
        ({"stop_gradient": "conv3_block4_out", "backbone": 2}, ("backbone.layer3.", "decoder.")),
        (
            {"stop_gradient": "layer2.0.add"},
            (*BELOW_LOW, *(f"backbone.layer2.{n}." for n in (1, 2, 3)), "backbone.layer3.", "decoder."),
        ),
        # A cut at a tap closes that tap; the shortcut beside it stays open.
        (
            {"stop_gradient": "conv2_block3_2_relu"},
            (*SHALLOW, *(f"backbone.layer1.2.{name}3." for name in ("conv", "bn")),
             "backbone.layer2.", "backbone.layer3.", "decoder."),
        ),
        ({"stop_gradient": "conv4_block6_2_relu"}, (*BELOW_LOW, "decoder.")),
        ({"stop_gradient": "conv4_block6_2_relu", "backbone": 1}, ("decoder.",)),
        ({"stop_gradient": "stem"}, ("backbone.layer", "decoder.")),
        ({"stop_gradient": "stem", "backbone": ["re:layer1\\.2\\.conv[13]"], "decoder": ["aspp"]},
         ("backbone.layer1.2.conv1.", "backbone.layer1.2.conv3.", "decoder.aspp.")),
        ({"stop_gradient": "decoder.aspp"}, (*BELOW_LOW, "decoder.project.", "decoder.refine.", "decoder.classifier.")),
        ({"stop_gradient": "decoder.refine.4"}, ("decoder.classifier.",)),
        ({"stop_gradient": "decoder.refine"}, ("decoder.classifier.",)),
    ],
)  # fmt: skip
def test_what_trains_is_what_gets_a_gradient(
    phase: dict[str, Any], trained: tuple[str, ...], built: BuiltModel
) -> None:
    model = built.model
    last = plan(built, head=HEAD, stop_gradient={"backbone": "all"} | phase)[1]
    enter(built, last)
    train_mode(model, last.scope)
    moving = [module for path, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)
              and f"{path}.".startswith(trained)]  # fmt: skip
    assert all(m.training == (m in moving) for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    # Evaluation mode for the rest, so that the shared model's statistics stay as they are.
    model.eval()
    model(torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is name.startswith(trained), name
        assert (parameter.grad is not None) is name.startswith(trained), name
    model.zero_grad(set_to_none=True)


def test_stops_change_neither_logits_nor_names(built: BuiltModel, built_of: BuiltOf) -> None:
    plain = built_of(PAIR).model
    mine, theirs = built.model.state_dict(), plain.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    image = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    for phase in plan(
        built, head=HEAD, deep={"stop_gradient": "layer2.0.add"}, score={"stop_gradient": "decoder.refine"}
    ):
        enter(built, phase)
        assert [name for name, stop in built.stops.items() if stop.active] == [phase.settings.stop_gradient] * bool(
            phase.settings.stop_gradient
        )
        assert torch.equal(built.model.eval()(image), plain.eval()(image))


BEHIND = (
    "this layer is at or behind the logits, and no gradient passes it, so nothing would train. "
    "Stop the gradient at a layer of the backbone."
)


@pytest.mark.parametrize("cut", ["logits", "decoder", "decoder.classifier"])
def test_a_cut_at_the_logits(cut: str, built: BuiltModel) -> None:
    assert error(built, head={"stop_gradient": cut}) == f"freeze.phases.head.stop_gradient={cut}: {BEHIND}"
    assert (
        error(built, head=HEAD, late={"stop_gradient": cut, "backbone": 1})
        == f"freeze.phases.late.stop_gradient={cut}: {BEHIND}"
    )


def test_a_cut_at_a_module_that_is_never_called(built: BuiltModel) -> None:
    assert error(built, head={"stop_gradient": "decoder.aspp.convs"}) == (
        "freeze.phases.head.stop_gradient=decoder.aspp.convs: the model never calls this module itself, so no gradient "
        "can be stopped there. Name one of the modules inside it."
    )


def test_a_cut_that_leaves_nothing_to_train(built: BuiltModel) -> None:
    assert error(built, head=HEAD, late={"stop_gradient": "decoder.refine", "backbone": 1, "decoder": ["aspp"]}) == (
        "freeze.phases.late: nothing would train: no gradient passes stop_gradient=decoder.refine, and everything "
        "behind it is frozen. Name something to train with backbone (a number of its deepest blocks, all, or a list) "
        "or decoder."
    )


@pytest.mark.parametrize(
    ("named", "path"), [(["layer3", "layer2"], "layer2"), (["re:layer2\\.1\\.conv1"], "layer2.1.conv1")]
)
def test_a_list_that_names_what_lies_below_the_cut(named: list[str], path: str, built: BuiltModel) -> None:
    assert error(built, head={"backbone": named, "stop_gradient": "layer2.3.act3"}) == (
        f"freeze.phases.head: backbone names {path}, but with stop_gradient=layer2.3.act3 no gradient reaches it. "
        "Leave it out, or stop the gradient nearer to the input."
    )


def test_stops_are_no_layers(built: BuiltModel) -> None:
    assert error(built, head={"backbone": ["stops"]}) == (
        "freeze.phases.head.backbone: 'stops' is not a module of the cut backbone. "
        "Its blocks: stem, layer1, layer2, layer3."
    )
    assert error(built, head={"backbone": ["re:stops.*"]}) == (
        "freeze.phases.head.backbone: 're:stops.*' matches nothing. "
        "The names are: conv1, bn1, act1, …, layer3.5.drop_block, layer3.5.act2."
    )


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (
            "layer4",
            "stop_gradient=layer4: this layer of resnet50 lies behind the deepest tap, conv4_block6_2_relu, "
            "so it is not part of the model.",
        ),
        (
            "conv4_block6_2_reul",
            "resnet50 has no layer 'conv4_block6_2_reul'. The nearest names: conv4_block6_2_relu, conv4_block6_1_relu, "
            "conv4_block5_2_relu, conv4_block4_2_relu, conv4_block3_2_relu.",
        ),
        ("decoder.refin", "stop_gradient=decoder.refin: the decoder has no such module. Did you mean decoder.refine?"),
    ],
)
def test_a_cut_at_no_layer_of_the_model(cut: str, message: str, network_of: NetworkOf) -> None:
    with pytest.raises(UserError) as caught:
        assemble(network_of, cut)
    assert str(caught.value) == message


# --- random weights ---


def test_random_weights_all_train(built: BuiltModel) -> None:
    random = replace(built, weights=LoadedWeights(None))
    given = {"backbone_lr_scale": 0.1, "layer_decay": 0.5, "batchnorm": "frozen"}
    for backbone in (0, 2, "all"):
        phase = plan(random, head={"backbone": backbone} | given)[0]
        assert phase.scope.modules == ("backbone", "decoder")
        assert phase.scope.without == ()
        assert phase.settings == PhaseSettings(epochs=1, lr=0.1)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"stop_gradient": "stem"}, "stop_gradient=stem"),
        ({"backbone": ["layer3", "layer2"]}, "backbone=[layer3,layer2]"),
        ({"backbone": []}, "backbone=[]"),
    ],
)
def test_random_weights_are_not_frozen_by_name(given: dict[str, Any], what: str, built: BuiltModel) -> None:
    assert error(replace(built, weights=LoadedWeights(None)), head=given) == (
        f"freeze.phases.head: {what} would freeze layers with random weights: the backbone has no pretrained ones. "
        "Load some (backbone.weights=PATH or restore.checkpoint=FILE), or train everything "
        "(backbone: all, no stop_gradient)."
    )


@pytest.mark.parametrize("item", ["layer1", ":20", "re:.*bn1", "backbone", "conv4_block6_1_conv"])
def test_random_weights_are_not_frozen_by_freeze(item: str, built: BuiltModel) -> None:
    random = replace(built, weights=LoadedWeights(None))
    expected = (
        f"freeze=[{item}] would freeze layers with random weights: the backbone has no pretrained ones. Load some "
        "(backbone.weights=PATH or restore.checkpoint=FILE), or train everything (backbone: all, no stop_gradient, "
        "nothing of it in freeze)."
    )
    for backbone in ("all", 2):
        assert error(random, head={"freeze": [item], "backbone": backbone}) == f"freeze.phases.head: {expected}"
    assert error(random, head={}, late={"freeze": [item]}) == f"freeze.phases.late: {expected}"


def test_of_a_decoder_freeze_takes_what_has_trained(built: BuiltModel) -> None:
    late = {"freeze": ["decoder.aspp"]}
    for source in ("a file", None):
        given = replace(built, weights=LoadedWeights(source))
        phase = plan(given, head=HEAD, late=late)[1]
        assert [phase.scope.holds(path) for path in ("decoder.aspp", "decoder.refine", "backbone.conv1")] == [
            False,
            True,
            True,
        ]
        assert error(given, head=late).startswith("freeze.phases.head freezes decoder.aspp.convs.0.0, decoder.aspp.con")
    assert plan(replace(built, new=()), head=late)[0].scope.without[0] == "decoder.aspp"


def test_a_new_layer_of_the_backbone_is_frozen_once_it_has_trained(built: BuiltModel) -> None:
    given = replace(built, new=("backbone.layer3.0.conv1", "decoder"))
    late = {"freeze": ["layer3"]}
    assert error(given, head=late) == (
        "freeze.phases.head freezes backbone.layer3.0.conv1, whose random weights no earlier phase has trained. "
        "Train them first, or load weights for them (restore.checkpoint=FILE)."
    )
    assert not plan(given, head=HEAD, late=late)[1].scope.holds("backbone.layer3.0.conv1")


def test_names_and_indices_of_keras_in_phases(built: BuiltModel) -> None:
    """ResNet50 is cut behind its layer 138, conv4_block6_2_relu."""
    names = plan(built, head=HEAD, late={"backbone": ["conv4_block6_1_conv", "136:"]})[1]
    assert names.scope.modules[:-1] == tuple(f"backbone.layer3.5.{path}" for path in ("conv1", "conv2", "bn2", "act2"))
    assert error(built, head={"freeze": ["139:"]}) == (
        "freeze.phases.head.freeze: nothing is left of '139:' in the backbone, which is cut behind the deepest tap: "
        "of the 175 layers in Keras it still has 0 to 138."
    )
    assert error(built, head={"backbone": ["conv4_block6_2_relu"]}) == (
        "freeze.phases.head.backbone: 'conv4_block6_2_relu' has no parameters to train."
    )


@pytest.mark.parametrize("source", ["a file", None], ids=["pretrained", "random"])
def test_the_first_phase_trains_all_the_new_decoder(source: str | None, built: BuiltModel) -> None:
    given = replace(built, weights=LoadedWeights(source))
    assert error(given, head={"decoder": ["refine", "classifier", "project"]}) == (
        "freeze.phases.head freezes decoder.aspp.convs.0.0, decoder.aspp.convs.0.1, decoder.aspp.convs.1.0.0 and 12 "
        "more, whose random weights no earlier phase has trained. "
        "Train them first, or load weights for them (restore.checkpoint=FILE)."
    )
    assert error(given, head={"decoder": ["aspp", "project", "refine"]}) == (
        "freeze.phases.head freezes decoder.classifier, whose random weights no earlier phase has trained. "
        "Train them first, or load weights for them (restore.checkpoint=FILE)."
    )
    late = plan(given, head=HEAD, late={"decoder": ["classifier"]})[1]
    assert late.scope.modules[-1] == "decoder.classifier"


def test_a_cut_may_not_freeze_the_new_decoder_either(built: BuiltModel) -> None:
    assert error(built, head={"stop_gradient": "decoder.refine.4"}).startswith(
        "freeze.phases.head freezes decoder.aspp.convs.0.0, decoder.aspp.convs.0.1, decoder.aspp.convs.1.0.0 and "
    )


def test_a_decoder_with_weights_may_be_frozen_at_once(built: BuiltModel) -> None:
    restored = replace(built, new=("decoder.classifier",))
    assert plan(restored, head={"backbone": 0, "decoder": ["classifier"]})[0].scope.modules == ("decoder.classifier",)


# --- the mistakes everybody makes, from the command line ---


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network_of: NetworkOf) -> Path:
    """Stand in a folder with a few photos; ResNet50 comes with weights of its own."""
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    for i in range(6):
        mask = np.zeros((64, 64), np.uint8)
        cv2.circle(mask, (24 + 3 * i, 32), 14 + i, 255, -1)
        cv2.imwrite(str(tmp_path / "photos" / "masks" / f"d{i}.png"), mask)
        noise = generator.integers(0, 255, (64, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / "images" / f"d{i}.png"), noise)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "load_weights", lambda *_: LoadedWeights("a file"))
    network = network_of("resnet50")
    monkeypatch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], build=lambda: network))
    return tmp_path


SMALL = ("data=folder", "data.root=photos", "data.image_size=64", "backbone=resnet50", "decoder.channels=8",
         "train.workers=0", "train.device=cpu", "train.batch_size=2",
         "run_dir=run")  # fmt: skip


def message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the message of a command that must end with exit code 2 and without a traceback."""
    code = main([*arguments])
    out, err = capsys.readouterr()
    assert code == 2, out + err
    assert "Traceback" not in out + err
    return err.strip()


@pytest.mark.trains
@pytest.mark.parametrize(
    ("command", "mistake", "expected"),
    [
        ("plan", ["freeze.phases.head.stop_gradient=logits"], f"freeze.phases.head.stop_gradient=logits: {BEHIND}"),
        (
            "train",
            ["freeze.phases.all.stop_gradient=decoder.classifier"],
            f"freeze.phases.all.stop_gradient=decoder.classifier: {BEHIND}",
        ),
        (
            "train",
            ["freeze.phases.all.backbone=['re:layer9.*']"],
            "freeze.phases.all.backbone: 're:layer9.*' matches nothing. "
            "The names are: conv1, bn1, act1, …, layer3.5.drop_block, layer3.5.act2.",
        ),
        (
            "plan",
            ["freeze.phases.all.backbone=[layer1.2.conv1]", "freeze.phases.all.stop_gradient=layer1.2.act2"],
            "freeze.phases.all: backbone names layer1.2.conv1, but with stop_gradient=layer1.2.act2 no gradient "
            "reaches it. Leave it out, or stop the gradient nearer to the input.",
        ),
    ],
    ids=["cut at the logits", "cut at their layer", "pattern without a match", "list below the cut"],
)
def test_a_mistake_in_the_phases_is_one_message(
    command: str, mistake: list[str], expected: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SMALL if command == "train" else SMALL[:-1]  # a plan writes nothing
    assert message(capsys, command, *settings, "freeze=two_phase", *mistake) == f"segtune {command}: {expected}"
    assert not list(desk.rglob("*.pt"))  # no training has begun


@pytest.mark.slow
@pytest.mark.trains
def test_a_tensor_that_no_gradient_reaches_is_one_message(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that nothing is computed with, as when one forgets to call it: found on the first step."""

    def with_a_spare(*arguments: Any) -> BuiltModel:
        built = build_model(*arguments)
        built.model.decoder.spare = nn.Conv2d(2, 2, 1)
        return built

    monkeypatch.setattr(start, "build_model", with_a_spare)
    assert message(capsys, "train", *SMALL, "freeze=head_only") == (
        "segtune train: Phase head: no gradient reaches decoder.spare.weight, decoder.spare.bias, so these trainable "
        "parameters would never change. Something between them and the logits stops gradients, or the forward pass "
        "does not use them. Freeze them, or fix the model."
    )
