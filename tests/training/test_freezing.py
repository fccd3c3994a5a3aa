"""Who trains: module paths by hand, and real optimizer steps that must leave the frozen part as it was, bit for bit."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from segtune.config.training_settings import PhaseSettings
from segtune.errors import UserError
from segtune.models.build import BuiltModel
from segtune.training.freezing import Audit, Scope, audit, choose, freeze, train_mode

BuiltOf = Callable[[str], BuiltModel]

BLOCKS = {
    "stem": ("conv0", "bn0"),
    "one": ("block1",),
    "two": ("block2", "drop2"),
    "away": ("behind_the_cut",),
}


class Tiny(nn.Module):
    """A backbone of three blocks and a decoder, with parameter counts one can add up."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv0 = nn.Conv2d(3, 2, 1)  # 3 * 2 + 2 = 8
        self.backbone.bn0 = nn.BatchNorm2d(2)  # 4
        self.backbone.block1 = nn.Sequential(nn.Conv2d(2, 5, 3, bias=False), nn.ReLU())  # 2 * 5 * 9 = 90
        self.backbone.block2 = nn.Sequential(nn.Conv2d(5, 1, 1), nn.BatchNorm2d(1))  # 6 + 2 = 8
        self.backbone.drop2 = nn.Dropout()
        self.decoder = nn.Conv2d(1, 1, 3)  # 10


def phase(backbone: int | str | list[str]) -> PhaseSettings:
    return PhaseSettings(epochs=1, lr=0.1, backbone=backbone)


def new_of(built: BuiltModel) -> list[str]:
    return [path.removeprefix("backbone.") for path in built.new if path.startswith("backbone.")]


def paths(*arguments, **options) -> tuple[str, ...]:
    return choose(*arguments, **options).modules


@pytest.mark.parametrize(
    ("backbone", "modules"),
    [
        (0, ("decoder",)),
        (1, ("backbone.block2", "backbone.drop2", "decoder")),
        (2, ("backbone.block1", "backbone.block2", "backbone.drop2", "decoder")),
        (3, ("backbone.conv0", "backbone.bn0", "backbone.block1", "backbone.block2", "backbone.drop2", "decoder")),
        (99, ("backbone.conv0", "backbone.bn0", "backbone.block1", "backbone.block2", "backbone.drop2", "decoder")),
        ("all", ("backbone", "decoder")),
        ([], ("decoder",)),
        (["stem"], ("backbone.conv0", "backbone.bn0", "decoder")),
        (["block2.1", "one"], ("backbone.block2.1", "backbone.block1", "decoder")),
        (["one", "block1"], ("backbone.block1", "decoder")),
    ],
)
def test_modules_of_a_phase(backbone: int | str | list[str], modules: tuple[str, ...]) -> None:
    assert paths(Tiny(), "head", phase(backbone), BLOCKS, ()) == modules


@pytest.mark.parametrize(
    ("backbone", "modules"),
    [
        (0, ("backbone.conv0", "decoder")),
        (1, ("backbone.block2", "backbone.drop2", "backbone.conv0", "decoder")),
        (["stem"], ("backbone.conv0", "backbone.bn0", "decoder")),
        ("all", ("backbone", "decoder")),
    ],
)
def test_new_modules_always_train(backbone: int | str | list[str], modules: tuple[str, ...]) -> None:
    assert paths(Tiny(), "head", phase(backbone), BLOCKS, ("conv0",)) == modules


def test_block_without_parameters_is_not_counted() -> None:
    """Behind the tap block13_sepconv1_act of Xception only a ReLU is left of the last block."""
    model = Tiny()
    model.backbone.tail = nn.ReLU()
    assert paths(model, "head", phase(1), BLOCKS | {"tail": ("tail",)}, ()) == (
        "backbone.block2",
        "backbone.drop2",
        "decoder",
    )


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("block3", ". Did you mean block2?"),
        ("away", ": away lies behind the deepest tap."),
        ("behind_the_cut", ": behind_the_cut lies behind the deepest tap."),
        ("", "."),
        ("decoder", "."),
    ],
)
def test_unknown_module(path: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        choose(Tiny(), "head", phase(["stem", path]), BLOCKS, ())
    assert str(caught.value) == (
        f"freeze.phases.head.backbone: '{path}' is not a module of the cut backbone{hint} Its blocks: stem, one, two."
    )


def test_freeze_gives_gradients_to_the_named_modules_alone() -> None:
    model = Tiny()
    for modules in (["backbone.block2.1", "decoder"], ["backbone"]):  # the second call takes back the first
        freeze(model, Scope(tuple(modules)))
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == name.startswith(tuple(f"{path}." for path in modules)), name


def test_train_mode_reaches_the_named_modules_alone() -> None:
    model = Tiny()
    for modules in (["backbone.drop2", "backbone.block2.1"], ["decoder"]):
        train_mode(model, Scope(tuple(modules)))
        assert {name for name, module in model.named_modules() if module.training} == set(modules)


def test_audit_by_hand() -> None:
    model = Tiny()
    freeze(model, Scope(("backbone.block2", "decoder")))
    parts = {"stem": (0, 12), "one": (0, 90), "two": (8, 8), "decoder": (10, 10)}
    assert audit(model, BLOCKS) == Audit(trainable=18, total=120, parts=parts)
    freeze(model, Scope(("backbone.bn0",)))
    parts = {"stem": (4, 12), "one": (0, 90), "two": (0, 8), "decoder": (0, 10)}
    assert audit(model, BLOCKS) == Audit(trainable=4, total=120, parts=parts)


def test_audit_counts_what_no_block_holds_as_backbone() -> None:
    assert audit(Tiny(), {"one": ("block1",)}).parts == {"backbone": (20, 20), "one": (90, 90), "decoder": (10, 10)}


def test_audit_of_the_published_trunk(built_of: BuiltOf) -> None:
    built = built_of("resnet50_deeplabv3plus")
    freeze(built.model, choose(built.model, "head", phase(0), built.blocks, new_of(built)))
    counted = audit(built.model, built.blocks)
    decoder = sum(p.numel() for p in built.model.decoder.parameters())
    assert (counted.trainable, counted.total) == (decoder, 8_279_104 + decoder)
    assert list(counted.parts) == ["stem", "layer1", "layer2", "layer3", "decoder"]
    assert counted.parts["stem"] == (0, 3 * 64 * 49 + 2 * 64)


STEPS = [
    ("resnet50_deeplabv3plus", 0, "sgd", ()),
    ("resnet50_deeplabv3plus", 1, "adamw", ("layer3.",)),
    ("resnet50_fcn8s", ["layer2.1", "stem"], "sgd", ("layer2.1.", "conv1.", "bn1.")),
    ("xception_deeplabv3plus", 2, "sgd", ("block7.", "block8.")),
    ("xception_deeplabv3plus", "all", "adamw", ("",)),
    ("vgg16_fcn8s", 1, "adamw", ("fc6.", "fc7.")),
]


@pytest.mark.parametrize(("pair", "backbone", "optimizer", "trained"), STEPS)
def test_steps_change_what_trains_and_nothing_else(
    pair: str, backbone: int | str | list[str], optimizer: str, trained: tuple[str, ...], built_of: BuiltOf
) -> None:
    built = built_of(pair)
    model = built.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = choose(model, "head", phase(backbone), built.blocks, new_of(built))
    freeze(model, modules)
    everything = list(model.parameters())  # what is frozen must not move even so
    movers: torch.optim.Optimizer = (
        torch.optim.SGD(everything, lr=0.01, momentum=0.9, weight_decay=0.1)
        if optimizer == "sgd"
        else torch.optim.AdamW(everything, lr=0.01, weight_decay=0.1)
    )
    torch.manual_seed(0)
    for _ in range(2):
        train_mode(model, modules)
        movers.zero_grad()
        logits = model(torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8))
        (logits - torch.randn(logits.shape)).square().mean().backward()
        movers.step()
    moving = ("decoder.", *(f"backbone.{prefix}" for prefix in trained))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith(moving), name
        assert value.isfinite().all(), name
        if name.endswith("num_batches_tracked") and name.startswith(moving):
            assert value == before[name] + 2


def test_dropout_of_the_frozen_part_stands_still(built_of: BuiltOf) -> None:
    built = built_of("vgg16_fcn8s")
    for backbone, training in ((0, False), (1, True), ("all", True)):
        modules = choose(built.model, "head", phase(backbone), built.blocks, ())
        train_mode(built.model, modules)
        assert built.model.get_submodule("backbone.drop6").training is training
        image = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
        with torch.no_grad():
            first, second = (built.model.backbone(image.float() / 255)["high"] for _ in range(2))
        assert torch.equal(first, second) is not training


# --- lists and patterns ---


class Deeper(Tiny):
    """The same with a decoder of three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential()
        self.decoder.join = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        self.decoder.joined = nn.ReLU()
        self.decoder.score = nn.Conv2d(2, 1, 1)


def scope(new: tuple[str, ...] = (), reached: set[str] | None = None, **given) -> Scope:
    return choose(Deeper(), "late", PhaseSettings(epochs=1, lr=0.1, **given), BLOCKS, new, reached)


def error(**given) -> str:
    with pytest.raises(UserError) as caught:
        scope(**given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("decoder", "modules"),
    [
        ("all", ["decoder"]),
        (["score"], ["decoder.score"]),
        (["join"], ["decoder.join", "decoder.join.0", "decoder.join.1"]),  # not decoder.joined
        (
            ["decoder.score", "re:decoder\\.joi.", "re:decoder.joined"],
            ["decoder.score", "decoder.join", "decoder.joined"],
        ),
        (["re:join"], ["decoder.join"]),  # the expression is of the whole name
        (["re:join.*"], ["decoder.join", "decoder.join.0", "decoder.join.1", "decoder.joined"]),
        (["re:.*\\.1", "score"], ["decoder.join.1", "decoder.score"]),
    ],
)
def test_lists_of_the_decoder(decoder: str | list[str], modules: list[str]) -> None:
    assert scope(backbone=0, decoder=decoder) == Scope(tuple(modules))


@pytest.mark.parametrize(
    ("backbone", "modules"),
    [
        (["re:block\\d"], ["block1", "block2"]),
        (["re:block2\\..*", "stem"], ["block2.0", "block2.1", "conv0", "bn0"]),
        (["re:bn.|drop2", "bn0"], ["bn0", "drop2"]),
    ],
)
def test_patterns_of_the_backbone(backbone: list[str], modules: list[str]) -> None:
    assert scope(backbone=backbone, decoder=[]) == Scope(tuple(f"backbone.{path}" for path in modules))


BACKBONE_NAMES = "The names are: conv0, bn0, block1, …, block2.1, drop2."
DECODER_NAMES = "The names are: join, join.0, join.1, joined, score."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backbone": ["re:block3.*"]}, f"backbone: 're:block3.*' matches nothing. {BACKBONE_NAMES}"),
        ({"backbone": ["re:lock1"]}, f"backbone: 're:lock1' matches nothing. {BACKBONE_NAMES}"),
        ({"decoder": ["re:"]}, f"decoder: 're:' matches nothing. {DECODER_NAMES}"),
        ({"decoder": ["scores"]}, f"decoder: 'scores' matches nothing. Did you mean score? {DECODER_NAMES}"),
        ({"decoder": ["score", "decoder.cat"]}, f"decoder: 'cat' matches nothing. {DECODER_NAMES}"),
        (
            {"backbone": ["re:block[1"]},
            "backbone: 're:block[1' is not a valid regular expression: unterminated character set at position 5.",
        ),
        (
            {"decoder": ["re:*"]},
            "decoder: 're:*' is not a valid regular expression: nothing to repeat at position 0.",
        ),
    ],
)
def test_a_pattern_that_matches_nothing_or_is_none(given: dict[str, list[str]], message: str) -> None:
    assert error(**given) == f"freeze.phases.late.{message}"


def test_nothing_would_train() -> None:
    advice = "Name something to train with backbone (a number of its deepest blocks, all, or a list) or decoder."
    assert error(backbone=0, decoder=[]) == f"freeze.phases.late: nothing would train: everything is frozen. {advice}"
    assert error(backbone=1, decoder=[], stop_gradient="block2", reached={"decoder.score"}) == (
        "freeze.phases.late: nothing would train: no gradient passes stop_gradient=block2, and everything behind it is "
        f"frozen. {advice}"
    )


def test_layers_that_no_gradient_reaches_do_not_train() -> None:
    reached = {"backbone.block2.0", "backbone.block2.1", "decoder.join.0", "decoder.join.1", "decoder.score"}
    chosen = scope(backbone=2, stop_gradient="block1", reached=reached)
    assert chosen.modules == ("backbone.block1", "backbone.block2", "backbone.drop2", "decoder")
    assert chosen.without == ("backbone.block1.0", "backbone.block1.1", "backbone.drop2", "decoder.joined")
    assert not chosen.holds("backbone.block1.0")
    assert chosen.holds("backbone.block2.0")


def test_a_list_may_not_name_what_no_gradient_reaches() -> None:
    reached = {"backbone.block2.1", "decoder.score"}
    assert scope(backbone=["two"], stop_gradient="block2.0", reached=reached).holds(
        "backbone.block2.1"
    )  # a part of it trains
    assert error(backbone=["two", "one"], stop_gradient="block2.0", reached=reached) == (
        "freeze.phases.late: backbone names block1, but with stop_gradient=block2.0 no gradient reaches it. "
        "Leave it out, or stop the gradient nearer to the input."
    )
    assert error(stop_gradient="score", reached=set()) == (
        "freeze.phases.late.stop_gradient=score: this layer is at or behind the logits, and no gradient passes it, so "
        "nothing would train. Stop the gradient at a layer of the backbone."
    )


# --- freeze ---


def test_freeze_wins_over_what_trains() -> None:
    assert scope(freeze=["block1.0", "re:.*bn.", "decoder.join"]) == Scope(
        ("backbone", "decoder"),
        ("backbone.block1.0", "backbone.bn0", "decoder.join", "decoder.join.0", "decoder.join.1"),
    )
    both = scope(backbone=["stem", "two"], decoder=["score"], freeze=["conv0"])
    assert [both.holds(f"backbone.{path}") for path in ("conv0", "bn0", "block1.0", "block2.1")] == [
        False,
        True,
        False,
        True,
    ]
    assert not scope(backbone=["block1.0"], freeze=["one"]).holds("backbone.block1.0")
    assert scope(backbone=1, freeze=["stem"]).holds("backbone.block2.0")  # what is frozen anyway may be named


def test_freeze_may_name_new_modules_whom_the_phases_then_refuse() -> None:
    assert not scope(new=("conv0",), freeze=["conv0"]).holds("backbone.conv0")
    assert scope(new=("conv0",), backbone=0, freeze=["bn0"]).holds("backbone.conv0")


def test_freeze_leaves_out_what_a_cut_would_refuse() -> None:
    reached = {"backbone.block2.1", "decoder.score"}
    given = {"backbone": ["re:block.", "two"], "stop_gradient": "block2.0", "reached": reached}
    assert "backbone names block1, but" in error(**given)
    assert scope(**given, freeze=["block1"]).holds("backbone.block2.1")


def test_nothing_trains_but_what_freeze_leaves() -> None:
    advice = "a number of its deepest blocks, all, or a list) or decoder, and less with freeze."
    assert error(freeze=["re:.*"]).endswith(advice)
    assert error(backbone=["one"], decoder=[], freeze=["block1"]).startswith(
        "freeze.phases.late: nothing would train: everything is frozen. "
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"freeze": ["block3"]}, "freeze: 'block3' is not a module of the cut backbone. Did you mean block2?"),
        ({"freeze": ["re:.*bias"]}, "freeze: 're:.*bias' matches parameters only (conv0.bias, bn0.bias, block2.0.bias"),
        (
            {"backbone": ["re:.*bias"]},
            "backbone: 're:.*bias' matches parameters only (conv0.bias, bn0.bias, block2.0.b",
        ),
        (
            {"decoder": ["score.bias"]},
            "decoder: 'score.bias' matches parameters only (score.bias). Freezing is by modu",
        ),
        ({"freeze": ["drop2"]}, "freeze: 'drop2' has no parameters to freeze."),
    ],
)
def test_what_a_list_may_not_name(given: dict[str, list[str]], message: str) -> None:
    assert error(**given).startswith(f"freeze.phases.late.{message}")


def test_frozen_by_name_over_real_steps(built_of: BuiltOf) -> None:
    """Keras's names and indices on a real network; dropout and BatchNorm statistics stand still too."""
    built = built_of("vgg16_fcn8s")
    given = PhaseSettings(epochs=1, lr=0.1, backbone=["block4_conv1", "14:", "fc"], freeze=["block5_conv2", "fc1"])
    chosen = choose(built.model, "late", given, built.blocks, spec=built.spec)
    freeze(built.model, chosen)
    trains = {n for n, p in built.model.backbone.named_parameters() if p.requires_grad}
    assert trains == {f"{path}.{end}" for path in ("features.17", "features.24", "features.28", "fc7")
                      for end in ("weight", "bias")}  # fmt: skip


# --- BatchNorm, and rates ---


def test_frozen_batchnorm_is_left_out_but_where_it_is_new() -> None:
    both = ("backbone.bn0", "backbone.block2.1")
    assert scope(batchnorm="frozen") == Scope(("backbone", "decoder"), both)
    assert scope(batchnorm="frozen", backbone=1).without == both
    assert scope(batchnorm="frozen", new=("bn0",)).without == both[1:]
    assert scope(batchnorm="frozen", new=("block2",)).without == both[:1]
    assert scope(batchnorm="train").without == ()


def test_frozen_batchnorm_stands_still_over_real_steps(built_of: BuiltOf) -> None:
    built = built_of("resnet50_deeplabv3plus")
    model = built.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = PhaseSettings(epochs=1, lr=0.1, backbone=1, batchnorm="frozen")
    chosen = choose(model, "late", given, built.blocks, ["layer1.0.bn1"])
    freeze(model, chosen)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    torch.manual_seed(0)
    for _ in range(2):
        train_mode(model, chosen)
        optimizer.zero_grad()
        model(torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)).square().mean().backward()
        optimizer.step()
    moving = re.compile(r"decoder\..*|backbone\.(layer1\.0\.bn1\..*|layer3\..*(conv\d|downsample\.0)\.weight)")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) is not bool(moving.fullmatch(name)), name


def test_names_without_parameters_are_refused() -> None:
    for item in ("drop2", "re:block1\\.1"):
        with pytest.raises(UserError) as caught:
            choose(Tiny(), "head", phase([item]), BLOCKS)
        assert str(caught.value) == (f"freeze.phases.head.backbone: '{item}' has no parameters to train.")
