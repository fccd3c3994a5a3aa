"""The facts about layers by hand and against the cut trunk, and which layers `auto` takes."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segtune.config.model_settings import BackboneSettings, DeepLabV3PlusSettings, FCN8sSettings
from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES, spec_of
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.build import build_model, choose_taps
from segtune.models.decoders.registry import DECODERS
from segtune.models.layer_info import BackboneSummary, describe
from segtune.models.layer_info import default_taps as choose_default_taps
from segtune.models.taps import cut


@cache
def anatomy_of(name: str, height: int = 64, width: int = 96) -> BackboneSummary:
    return describe(spec_of(name), (height, width))


def error_of(function: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        function()
    return str(caught.value)


# --- facts ---

# Name: channels, stride, height and width at 256 x 256 and at 250 x 330, receptive field, parameters in the main branch
# from one to the next. The 3 x 3 convolution strides, so the field grows by 2, 4, 8, ... pixels a unit.
RESNET50 = {
    "conv1": (64, 2, (128, 128), (125, 165), 7),
    "maxpool": (64, 4, (64, 64), (63, 83), 11),
    "layer1": (256, 4, (64, 64), (63, 83), 11 + 3 * 8),
    "layer2": (512, 8, (32, 32), (32, 42), 35 + 8 + 3 * 16),
    "layer3": (1024, 16, (16, 16), (16, 21), 91 + 16 + 5 * 32),
    "layer4": (2048, 32, (8, 8), (8, 11), 267 + 32 + 2 * 64),
}


@pytest.mark.parametrize("tap", RESNET50)
def test_facts_of_resnet50_by_hand(tap: str) -> None:
    channels, stride, even, odd, field = RESNET50[tap]
    for size, side in (((256, 256), even), ((250, 330), odd)):
        layer = anatomy_of("resnet50", *size).find(tap)
        assert (layer.channels, layer.stride, (layer.height, layer.width)) == (channels, stride, side)
        assert (layer.receptive_field, layer.sees_all) == ((field, field), False)


def test_costs_of_resnet50_by_hand() -> None:
    summary = anatomy_of("resnet50", 224, 224)
    stem = 64 * 3 * 49
    assert summary.find("conv1").parameters == stem
    assert summary.find("conv1").macs == stem * 112**2
    assert summary.find("maxpool").parameters == stem + 2 * 64
    # Its published sizes, less the classifier of 2048 x 1000 weights and 1000 biases.
    assert summary.parameters == summary.find("layer4").parameters == 25_557_032 - 2_049_000
    assert summary.macs == summary.find("layer4").macs == 4_089_184_256 - 2_048_000


def test_the_shortcut_does_not_count_inside_the_main_branch() -> None:
    summary = anatomy_of("resnet50")
    before, first, second, normalised = (
        summary.find(name) for name in ("layer1", "layer2.0.conv1", "layer2.0.conv2", "layer2.0.bn3")
    )
    assert first.parameters - before.parameters == 256 * 128
    assert first.macs - before.macs == 256 * 128 * (64 // 4) * (96 // 4)
    assert second.parameters - first.parameters == 2 * 128 + 128 * 128 * 9
    shortcut = 256 * 512 + 2 * 512
    joined = summary.find("conv3_block1_add")
    assert joined.parameters - normalised.parameters == shortcut
    beside = summary.find("conv3_block1_0_bn")
    assert beside.parameters - before.parameters == shortcut


def test_blocks_names_and_readers() -> None:
    summary = anatomy_of("resnet50")
    facts = {tap: summary.find(tap) for tap in ("conv1", "act1", "maxpool", "conv3_block1_add", "layer2", "layer4")}
    assert [layer.block for layer in facts.values()] == ["stem", "stem", "stem", "layer2", "layer2", "layer4"]
    assert [layer.is_read for layer in facts.values()] == [False, True, True, False, True, True]
    assert [layer.keras for layer in facts.values()] == [
        "conv1_conv", "conv1_relu", "pool1_pool", "conv3_block1_add", "conv3_block4_out", "conv5_block3_out",
    ]  # fmt: skip
    assert [layer.name for layer in summary.layers][-1] == "layer4.2.act3"
    assert summary.nodes[0] == "x"


def test_layers_behind_a_squeeze_see_all() -> None:
    summary = anatomy_of("mobilenetv3_small_050")
    names = [layer.name for layer in summary.layers if layer.sees_all]
    assert "blocks.0.0.conv_dw" not in names
    first = names.index("blocks.0.0.conv_pw")
    assert first <= 1  # the layer that is multiplied comes before it
    assert names == [layer.name for layer in summary.layers][-len(names) :]


def test_a_square_map_with_as_many_channels_is_told_from_other_layouts() -> None:
    """ConvNeXt's first stage at 384 pixels has 96 channels of 96 x 96, and a layout with channels last inside."""
    names = [[layer.name for layer in anatomy_of("convnext_tiny", 384, width).layers] for width in (384, 416)]
    assert names[0] == names[1]
    assert "stages.0.blocks.0.norm" not in names[0]


def test_output_stride_changes_strides_and_fields_alone() -> None:
    plain, dilated = anatomy_of("resnet50"), describe(BACKBONES["resnet50"], (64, 96), output_stride=8)
    for before, after in zip(plain.layers, dilated.layers, strict=True):
        assert (after.name, after.channels, after.parameters) == (before.name, before.channels, before.parameters)
        assert after.stride == min(8, before.stride)
        assert (after.height, after.width) == (64 // after.stride, 96 // after.stride)
    assert dilated.find("layer4").receptive_field == (427, 427)  # a window that is not moved as far reaches as far


COSTS = [
    ("vgg16", ["fc1"]),
    ("resnet50", ["conv3_block1_0_bn", "layer3.0.conv2"]),
    ("xception", ["block12.skip"]),
    ("mobilenetv3_small_050", ["blocks.1.0.conv_dw", "blocks.3.1"]),
    ("skresnet18", ["layer3"]),  # whose assertions about shapes have kept what lies behind
]
MORE_COSTS = [
    ("xception", ["block2_pool", "block9_sepconv3_act"]),
    ("convnext_atto", ["stages.0.blocks.1", "stages.2.downsample.1"]),
    ("regnety_002", ["s3.b2.conv1", "s4"]),
    ("densenet121", ["features.denseblock2"]),
    ("edgenext_xx_small", ["stages.3"]),
    ("hrnet_w18_small", ["stage2.0.fuse_act_1"]),
    ("rdnet_tiny", ["dense_stages.3"]),
]


@pytest.mark.parametrize(
    ("name", "taps"), [*COSTS, *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE_COSTS)]
)
def test_costs_are_those_of_the_cut_trunk(name: str, taps: list[str]) -> None:
    spec, summary = spec_of(name), anatomy_of(name)
    image = torch.empty(1, 3, 64, 96, device="meta")
    for tap in taps:
        with torch.device("meta"):
            trunk, features = cut(spec.build().eval(), {"tap": tap}, spec)
        layer = summary.find(tap)
        assert sum(parameter.numel() for parameter in trunk.parameters()) == layer.parameters
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            found = trunk(image)["tap"]
        assert counter.get_total_flops() == 2 * layer.macs
        assert tuple(found.shape[1:]) == (layer.channels, layer.height, layer.width)
        assert (features["tap"].node, features["tap"].stride) == (layer.name, layer.stride)
        assert layer.parameters <= summary.parameters
        assert layer.macs <= summary.macs


def test_costs_of_two_branches_count_what_they_share_once() -> None:
    spec, summary = BACKBONES["resnet50"], anatomy_of("resnet50")
    names = ["layer2.0.bn3", "layer2.0.downsample.1"]
    with torch.device("meta"):
        trunk, _ = cut(spec.build().eval(), {name: name for name in names}, spec)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            trunk(torch.empty(1, 3, 64, 96))
    assert counter.get_total_flops() == 2 * summary.macs_of(names)
    assert summary.macs_of(names) == summary.find("layer2.0.add").macs < sum(summary.find(n).macs for n in names)


# --- errors ---


@pytest.mark.parametrize(
    ("name", "tap", "message"),
    [
        (
            "resnet50",
            "layer2.0.atc1",
            "resnet50 has no layer 'layer2.0.atc1'. The nearest names: layer2.0.act1, layer4.0.act1, layer3.0.act1, "
            "layer2.3.act1, layer2.2.act1.",
        ),
        (
            "xception",
            "add_3",
            "'add_3' of xception may mean block3.add or block4.add: Keras numbers layers that have no name from 0 or, "
            "in old versions, from 1, which gives block3.add. Use the layer's PyTorch name.",
        ),
        (
            "resnet50",
            "global_pool",
            "'global_pool' of resnet50 (global_pool.flatten) returns no feature map (N, C, H, W). "
            "The nearest layers before it that do: layer4.2.act3, layer4.2.add, layer4.2.bn3.",
        ),
        (
            "convnext_tiny",
            "stages.0.blocks.0.mlp",
            "'stages.0.blocks.0.mlp' of convnext_tiny (stages.0.blocks.0.mlp.drop2) returns no feature map "
            "(N, C, H, W). The nearest layers before it that do: stages.0.blocks.0.conv_dw, stages.0.downsample, "
            "stem.1.",
        ),
    ],
)
def test_a_layer_that_cannot_be_found(name: str, tap: str, message: str) -> None:
    assert error_of(lambda: anatomy_of(name).find(tap)) == message


ONE_SIZE = ", only of 224 x 224: it is made for one size, as most vision transformers are. Set data.image_size."


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        pytest.param(
            "inception_v3",
            (32, 40),
            "; the smallest that fits is 75 x 75. Set data.image_size.",
            marks=pytest.mark.slow,
        ),
        ("vit_tiny_patch16_224", (256, 320), ONE_SIZE),
        ("hiera_tiny_224", (256, 320), ", nor square ones of up to 1024 pixels, so it cannot be used."),
    ],
)
def test_a_size_that_a_network_cannot_take(name: str, size: tuple[int, int], expected: str) -> None:
    assert error_of(lambda: describe(spec_of(name), size)) == (
        f"{name} cannot take images of {size[0]} x {size[1]} pixels{expected}"
    )


def test_a_network_without_maps() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))

    spec = BackboneSpec("flat", build, "flat", (0.5,) * 3, (0.5,) * 3, {"all": ("1",)})
    assert error_of(lambda: describe(spec, (8, 8))) == (
        "flat has no feature maps (N, C, H, W): it is not a convolutional network."
    )


# --- taps at auto ---


DEFAULTS = {
    "resnet50": ["layer1.2.act3", "layer3.5.act3", "layer2.3.act3", "layer3.5.act3", "layer4.2.act3"],
    # an activation that only the next stage has in front of it, as published
    "xception": ["block2.rep.0", "block12.rep.0", "block3.rep.0", "block12.rep.0", "act4"],
    # in front of each pooling; the last of stride 32 is behind its own
    "vgg16": ["features.15", "features.29", "features.22", "features.29", "drop7"],
    "convnext_tiny": [
        "stages.0.blocks.2.add", "stages.2.blocks.8.add", "stages.1.blocks.2.add", "stages.2.blocks.8.add",
        "stages.3.blocks.2.add",
    ],
    "efficientnet_b0": ["blocks.1.1.add", "blocks.4.2.add", "blocks.2.1.add", "blocks.4.2.add", "blocks.6.0.bn3"],
    # timm names no layer of stride 4 that is there, so the last is taken, and behind it the last of stride 16
    "hrnet_w18": [
        "incre_modules.0.0.act3", "add_1", "stage2.0.fuse_act_1", "stage3.3.fuse_act_2", "stage4.2.fuse_act_3",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "hrnet" in n else n for n in DEFAULTS])
def test_default_taps(name: str) -> None:
    spec = spec_of(name)
    summary = describe(spec, (256, 320))
    chosen = [choose_default_taps(summary, DECODERS[decoder].strides) for decoder in ("deeplabv3plus", "fcn8s")]
    assert [list(taps) for taps in chosen] == [["low", "high"], ["pool3", "pool4", "high"]]
    assert [layer for taps in chosen for layer in taps.values()] == DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "strides", "role", "stride", "there"),
    [
        ("resnet50", {"low": 32, "high": 4}, "high", 4, "2, 4, 8, 16, 32"),  # none behind the other
        ("convmixer_768_32", {"low": 4, "high": 16}, "low", 4, "7"),
    ],
)
def test_no_layer_of_a_stride(name: str, strides: dict[str, int], role: str, stride: int, there: str) -> None:
    summary = describe(spec_of(name), (256, 320))
    assert error_of(lambda: choose_default_taps(summary, strides)) == (
        f"taps.{role}=auto: {name} has no layer of stride {stride} there; its strides are {there}. "
        f"Name a layer (taps.{role}=LAYER); `python -m segtune taps` lists them."
    )


def test_auto_stands_for_one_tap_or_for_all() -> None:
    spec = BACKBONES["resnet50"]
    with torch.device("meta"):
        network = spec.build()
    taps = {"high": "auto", "low": "conv2_block3_2_relu"}
    assert choose_taps(network, spec, taps, DeepLabV3PlusSettings()) == {
        "low": "conv2_block3_2_relu",
        "high": "layer3.5.act3",
    }
    assert choose_taps(network, spec, dict.fromkeys(("pool3", "pool4", "high"), "auto"), FCN8sSettings()) == {
        "pool3": "layer2.3.act3",
        "pool4": "layer3.5.act3",
        "high": "layer4.2.act3",
    }


def test_a_model_with_taps_at_auto() -> None:
    with torch.device("meta"):
        built = build_model(
            BackboneSettings("resnet50", weights="none"), {"low": "auto", "high": "auto"}, DeepLabV3PlusSettings()
        )
    assert {role: (f.node, f.channels, f.stride) for role, f in built.model.features.items()} == {
        "low": ("layer1.2.act3", 256, 4),
        "high": ("layer3.5.act3", 1024, 16),
    }
