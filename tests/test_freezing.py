"""Who trains: module paths by hand, and real optimizer steps that must leave the frozen part as it was, bit for bit."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from segtune.build import BuiltModel
from segtune.config import PhaseSettings, UserError
from segtune.freezing import Audit, audit, freeze, train_mode, trainable_modules

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
    assert trainable_modules(Tiny(), phase(backbone), BLOCKS, ()) == modules


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
    assert trainable_modules(Tiny(), phase(backbone), BLOCKS, ("conv0",)) == modules


def test_block_without_parameters_is_not_counted() -> None:
    """Behind the tap block13_sepconv1_act of Xception only a ReLU is left of the last block."""
    model = Tiny()
    model.backbone.tail = nn.ReLU()
    assert trainable_modules(model, phase(1), BLOCKS | {"tail": ("tail",)}, ()) == (
        "backbone.block2",
        "backbone.drop2",
        "decoder",
    )


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("block3", " Did you mean block2?"),
        ("away", ""),
        ("behind_the_cut", ""),
        ("", ""),
        ("decoder", ""),
    ],
)
def test_unknown_module(path: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        trainable_modules(Tiny(), phase(["stem", path]), BLOCKS, ())
    assert (
        str(caught.value) == f"backbone: '{path}' is no module of the cut backbone.{hint} Its blocks: stem, one, two."
    )


def test_freeze_gives_gradients_to_the_named_modules_alone() -> None:
    model = Tiny()
    for modules in (["backbone.block2.1", "decoder"], ["backbone"]):  # the second call takes back the first
        freeze(model, modules)
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == name.startswith(tuple(f"{path}." for path in modules)), name


def test_train_mode_reaches_the_named_modules_alone() -> None:
    model = Tiny()
    for modules in (["backbone.drop2", "backbone.block2.1"], ["decoder"]):
        train_mode(model, modules)
        assert {name for name, module in model.named_modules() if module.training} == set(modules)


def test_audit_by_hand() -> None:
    model = Tiny()
    freeze(model, ["backbone.block2", "decoder"])
    parts = {"stem": (0, 12), "one": (0, 90), "two": (8, 8), "decoder": (10, 10)}
    assert audit(model, BLOCKS) == Audit(trainable=18, total=120, parts=parts)
    freeze(model, ["backbone.bn0"])
    parts = {"stem": (4, 12), "one": (0, 90), "two": (0, 8), "decoder": (0, 10)}
    assert audit(model, BLOCKS) == Audit(trainable=4, total=120, parts=parts)


def test_audit_counts_what_no_block_holds_as_backbone() -> None:
    assert audit(Tiny(), {"one": ("block1",)}).parts == {"backbone": (20, 20), "one": (90, 90), "decoder": (10, 10)}


def test_audit_of_the_published_trunk(built_of: BuiltOf) -> None:
    built = built_of("resnet50_deeplabv3plus")
    freeze(built.model, trainable_modules(built.model, phase(0), built.blocks, built.new))
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
    modules = trainable_modules(model, phase(backbone), built.blocks, built.new)
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
        modules = trainable_modules(built.model, phase(backbone), built.blocks, ())
        train_mode(built.model, modules)
        assert built.model.get_submodule("backbone.drop6").training is training
        picture = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
        with torch.no_grad():
            first, second = (built.model.backbone(picture.float() / 255)["high"] for _ in range(2))
        assert torch.equal(first, second) is not training
