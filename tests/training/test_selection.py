"""Which modules a list of a phase names, by hand; `tests/models/backbones/test_keras.py` compares with Keras itself."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES
from segtune.models.backbones.spec import BackboneSpec
from segtune.training.selection import Selection, present_blocks

BLOCKS = {"stem": ("conv0", "relu0", "pool0"), "one": ("block1",), "two": ("block2",), "away": ("conv9",)}

#: Keras's layers: 0 the input, 1 a convolution with its activation, …, 5 and 7 behind the deepest tap.
LAYERS = ("", "relu0", "pool0", "block1.0", "block1.1", "conv9", "block1.add", "gone9", "block2.0")

SPEC = BackboneSpec(
    "tiny",
    nn.Identity,
    "tiny",
    (0.5,) * 3,
    (0.5,) * 3,
    BLOCKS,
    aliases={"b1_conv1": "relu0", "b1_pool": "pool0", "b1_add": "block1.add", "b2_conv": "block2.0", "top": "conv9"},
    ambiguous={"conv2d_1": ("block1.0", "block2.0")},
    others={"conv1_1": "relu0", "relu1_1": "relu0", "res2a": "block2.0"},
    layers=LAYERS,
    convolutions={"relu0": "conv0"},
)


class Tiny(nn.Module):
    """A cut backbone of two blocks behind a stem, and a decoder of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv0, self.backbone.relu0 = nn.Conv2d(3, 2, 1), nn.ReLU()
        self.backbone.pool0 = nn.MaxPool2d(2)
        self.backbone.block1 = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        self.backbone.block2 = nn.Sequential(nn.Conv2d(2, 2, 1))
        self.backbone.stops = nn.ModuleList([nn.Identity()])
        self.decoder = nn.Sequential()
        self.decoder.join = nn.Conv2d(2, 2, 1)
        self.decoder.score = nn.Conv2d(2, 1, 1)


def selection(aim: str = "train", spec: BackboneSpec | None = SPEC) -> Selection:
    return Selection(Tiny(), BLOCKS, spec, "list", aim)


@pytest.mark.parametrize(
    ("item", "modules"),
    [
        ("one", ["block1"]),
        ("stem", ["conv0", "relu0", "pool0"]),
        ("block1.1", ["block1.1"]),
        ("backbone.block1.1", ["block1.1"]),
        ("re:block[12]", ["block1", "block2"]),
        ("b1_conv1", ["conv0", "relu0"]),  # as Keras's convolution, with its activation
        ("conv1_1", ["conv0", "relu0"]),
        ("b2_conv", ["block2.0"]),
        ("res2a", ["block2.0"]),
        (":2", ["conv0", "relu0"]),
        ("1:2", ["conv0", "relu0"]),
        ("1:4", ["conv0", "relu0", "pool0", "block1.0"]),  # between a convolution and its BatchNorm
        ("4:", ["block1.1", "block2.0"]),
        ("5:9", ["block2.0"]),  # the cut has removed 5 and 7
        ("-1:", ["block2.0"]),
        (":-5", ["conv0", "relu0", "pool0", "block1.0"]),
        ("-6:-4", ["block1.0", "block1.1"]),
        (":", ["conv0", "relu0", "pool0", "block1.0", "block1.1", "block2.0"]),
        (" 4 : ", ["block1.1", "block2.0"]),
        ("1: 4", ["conv0", "relu0", "pool0", "block1.0"]),
    ],
)
def test_modules_of_the_backbone(item: str, modules: list[str]) -> None:
    assert selection().of_backbone(item) == modules
    assert selection("freeze").of_model(item) == [f"backbone.{path}" for path in modules]


ALL = "tiny has 9 layers in Keras, 0 to 8."
MODULES = "is not a module of the cut backbone"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("b1_pool", "'b1_pool' has no parameters to train."),
        ("relu0", "'relu0' has no parameters to train."),
        ("relu1_1", "'relu1_1' has no parameters to train."),  # Caffe's activation alone
        ("b1_add", "'b1_add' has no parameters to train."),
        ("top", f"'top' {MODULES}: conv9 lies behind the deepest tap. Its blocks: stem, one, two."),
        ("away", f"'away' {MODULES}: away lies behind the deepest tap. Its blocks: stem, one, two."),
        ("conv9", f"'conv9' {MODULES}: conv9 lies behind the deepest tap. Its blocks: stem, one, two."),
        ("conv9.0", f"'conv9.0' {MODULES}: conv9 lies behind the deepest tap. Its blocks: stem, one, two."),
        (
            "block[12].*",
            f"'block[12].*' {MODULES}. A pattern is a regular expression behind re:, such as 're:stem.*'. "
            "Its blocks: stem, one, two.",
        ),
        ("b2_con", f"'b2_con' {MODULES}. Did you mean b2_conv? Its blocks: stem, one, two."),
        ("scores", f"'scores' {MODULES}. Its blocks: stem, one, two."),
        ("stops", f"'stops' {MODULES}. Its blocks: stem, one, two."),
        (
            "conv2d_1",
            "'conv2d_1' of tiny may mean block1.0 or block2.0: Keras numbers layers that have no name from 0 or, in "
            "old versions, from 1, which gives block1.0. Use the layer's PyTorch name.",
        ),
        (
            "block1.0.bias",
            "'block1.0.bias' matches parameters only (block1.0.bias). Freezing is by module, so that BatchNorm "
            "statistics and dropout are frozen too: name modules, such as block1.0.",
        ),
        (
            "re:.*bias",
            "'re:.*bias' matches parameters only (conv0.bias, block1.0.bias, block1.1.bias and 1 more). Freezing is by "
            "module, so that BatchNorm statistics and dropout are frozen too: name modules, such as conv0.",
        ),
        ("10:", f"'10:' goes past the end: {ALL}"),
        (":10", f"':10' goes past the end: {ALL}"),
        ("-10:", f"'-10:' goes past the end: {ALL}"),
        ("9:", f"'9:' holds no layer: {ALL}"),
        (":0", f"':0' holds no layer: {ALL}"),
        ("5:3", f"'5:3' holds no layer: {ALL}"),
        (":1", "':1' has no parameters to train."),
        ("2:3", "'2:3' has no parameters to train."),
        ("6:7", "'6:7' has no parameters to train."),
        (
            "5:8",
            "nothing is left of '5:8' in the backbone, which is cut behind the deepest tap: of the 9 layers in Keras "
            "it still has 0 to 4, 6, 8.",
        ),
        *(
            (item, f"got '{item}'; expected a range of Keras's layers: '100:', ':100', '3:7', or '5:6' for one layer. "
                   f"{ALL}")
            for item in ("5", "-5", "1:5:2", "::2", "1,5", "3 5", "1:3, 5:6")
        ),
    ],
)  # fmt: skip
def test_an_item_that_names_nothing_to_train(item: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        selection().of_backbone(item)
    assert str(caught.value) == f"list: {message}"


@pytest.mark.parametrize(
    ("item", "modules"),
    [
        ("decoder", ["decoder"]),
        ("backbone", ["backbone"]),
        ("decoder.score", ["decoder.score"]),
        ("re:score", None),  # a path of the decoder begins with decoder.
        ("re:decoder\\..*", ["decoder.join", "decoder.score"]),
        ("re:.*\\.1", ["backbone.block1.1"]),
        ("re:block1\\.1|backbone\\.block2|decoder\\.join",
         ["backbone.block1.1", "decoder.join", "backbone.block2"]),
        ("re:.*stops.*", None),
    ],
)  # fmt: skip
def test_modules_of_the_model(item: str, modules: list[str] | None) -> None:
    if modules is None:
        with pytest.raises(UserError, match="matches nothing"):
            selection("freeze").of_model(item)
    else:
        assert sorted(set(selection("freeze").of_model(item))) == sorted(modules)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("b1_pool", "'b1_pool' has no parameters to freeze."),
        ("re:.*pool0", "'re:.*pool0' has no parameters to freeze."),
        ("scores", f"'scores' {MODULES}. Did you mean decoder.score? Its blocks: stem, one, two."),
        (
            "decoder.scores",
            "'decoder.scores' matches nothing. Did you mean decoder.score? The names are: decoder.join, decoder.score.",
        ),
        (
            "re:decoder.*weight",
            "'re:decoder.*weight' matches parameters only (decoder.join.weight, decoder.score.weight). Freezing is by "
            "module, so that BatchNorm statistics and dropout are frozen too: name modules, such as decoder.join.",
        ),
        (
            "re:.*\\.weight",
            "'re:.*\\.weight' matches parameters only (conv0.weight, block1.0.weight, block1.1.weight and 3 more). "
            "Freezing is by module, so that BatchNorm statistics and dropout are frozen too: name modules, such as "
            "conv0.",
        ),
        (
            "re:backbone.*bias",
            "'re:backbone.*bias' matches parameters only (backbone.conv0.bias, backbone.block1.0.bias, "
            "backbone.block1.1.bias and 1 more). Freezing is by module, so that BatchNorm statistics and dropout are "
            "frozen too: name modules, such as backbone.conv0.",
        ),
        ("re:[", "'re:[' is not a valid regular expression: unterminated character set at position 0."),
    ],
)
def test_an_item_that_names_nothing_to_freeze(item: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        selection("freeze").of_model(item)
    assert str(caught.value) == f"list: {message}"


def test_indices_are_known_for_networks_of_keras() -> None:
    for spec, name in ((replace(SPEC, layers=()), "tiny"), (None, "this network")):
        with pytest.raises(UserError) as caught:
            selection(spec=spec).of_backbone("3:")
        assert str(caught.value) == (
            f"list: '3:': indices count the layers of Keras, which has vgg16, resnet50, xception, but not {name}. Name "
            "blocks (stem, one, two), module paths or patterns (re:…), or set backbone to the number of the deepest "
            "blocks that train."
        )
    assert selection(spec=None).of_backbone("block1.0") == ["block1.0"]


def test_a_module_may_be_called_by_a_number() -> None:
    model = nn.Module()
    model.backbone, model.decoder = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), nn.Identity()
    assert Selection(model, {"0": ("0",)}, None, "list").of_backbone("0") == ["0"]


def test_blocks_that_are_left() -> None:
    assert present_blocks(Tiny().backbone, BLOCKS) == {
        "stem": ["conv0", "relu0", "pool0"],
        "one": ["block1"],
        "two": ["block2"],
    }


def test_every_layer_with_an_index_is_a_module_or_an_addition() -> None:
    for spec in BACKBONES.values():
        with torch.device("meta"):
            modules = dict(spec.build().named_modules())
        for path in filter(None, spec.layers):
            parent, _, last = path.rpartition(".")
            assert path in modules or (last == "add" and parent in modules)
            assert set(spec.modules_of(path)) <= modules.keys() or last == "add"
