"""The specs against timm and the traced networks, and the weights against files and local servers."""

import re

import pytest
import timm
import torch
from torch import nn
from torchvision.models.feature_extraction import get_graph_node_names

from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES, spec_of
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.taps import resolve

SPECS = pytest.mark.parametrize("spec", BACKBONES.values(), ids=BACKBONES)


def build_meta(spec: BackboneSpec) -> nn.Module:
    """Build the real network without memory for its values."""
    with torch.device("meta"):
        return spec.build().eval()


def nodes_of(network: nn.Module) -> list[str]:
    nodes: list[str] = get_graph_node_names(network, suppress_diff_warning=True)[0]
    return nodes


# --- the specs ---


# Layers as Keras counts them. ResNet50: 16 units of 10 layers, a shortcut of 2 in each of 4 stages, and a stem of 4.
# Xception: 34 separable convolutions and 2 plain ones of 3 layers each (one lacks its activation), 4 poolings, and of
# the three kinds that are only numbered the first and the last.
@pytest.mark.parametrize(
    ("name", "layers"),
    [("vgg16", 13 + 5 + 2), ("resnet50", 16 * 10 + 4 * 2 + 4), ("xception", 34 * 3 - 1 + 2 * 3 + 4 + 3 * 2)],
)
def test_keras_layers_are_all_there_and_all_different(name: str, layers: int) -> None:
    spec = BACKBONES[name]
    nodes = nodes_of(build_meta(spec))
    found = [resolve(alias, nodes, spec) for alias in spec.aliases]
    assert len(set(found)) == len(found) == layers
    assert set(found) <= set(nodes)


@SPECS
def test_keras_names_lead_to_layers_of_that_kind(spec: BackboneSpec) -> None:
    network = build_meta(spec)
    nodes = nodes_of(network)
    conv: type[nn.Module] = (
        nn.ReLU if spec.name == "vgg16" else nn.Conv2d
    )  # VGG16's convolutions in Keras hold their ReLU
    kinds = {
        r".*_(relu|act|out)|fc\d": nn.ReLU,
        r".*_bn|batch_normalization(_4)?": nn.BatchNorm2d,
        r".*_pool": nn.MaxPool2d,
        r".*_conv\d?|.*_sepconv\d|conv2d(_4)?": conv,
    }
    for alias in spec.aliases:
        node = resolve(alias, nodes, spec)
        if re.fullmatch(r".*_add|add(_12)?", alias):
            assert node.endswith(".add")
        else:
            (kind,) = (kind for pattern, kind in kinds.items() if re.fullmatch(pattern, alias))
            assert isinstance(network.get_submodule(node), kind), (alias, node)


# --- any network of timm ---


@pytest.mark.parametrize("name", BACKBONES)
def test_the_three_are_found_by_name(name: str) -> None:
    assert spec_of(name) is BACKBONES[name]


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("inception_v3", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("mobilenetv3_small_050", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        # of one network, two weights with a normalisation each
        ("tf_efficientnet_b0.ap_in1k", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("tf_efficientnet_b0.ns_jft_in1k", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_normalisation_is_that_of_timms_weights(
    name: str, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    spec = spec_of(name)
    assert (spec.name, spec.architecture) == (name, name)
    assert (spec.mean, spec.std) == (mean, std)


def test_blocks_and_stages_are_timms() -> None:
    spec = spec_of("convnext_tiny.in12k_ft_in1k")
    assert dict(spec.blocks) == {
        "stem": ("stem",),
        **{f"stages.{n}": (f"stages.{n}",) for n in range(4)},
        "head": ("head",),
    }
    assert spec.stages == tuple(f"stages.{n}" for n in range(4))
    assert not spec.aliases
    assert not spec.renames
    # no one divides these networks, so their parts are the blocks
    assert list(spec_of("rdnet_tiny").blocks) == ["stem", "dense_stages", "head"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resent50",
            f"neither segtune nor timm {timm.__version__} has a network of this name. "
            "The nearest: resnet50, resnet50t, resnet50s, resnet50d. timm.list_models() lists all.",
        ),
        (
            "xceptoin",
            f"neither segtune nor timm {timm.__version__} has a network of this name. "
            "The nearest: xception, xception71, xception65, xception41, xception65p. timm.list_models() lists all.",
        ),
        (
            "§§",
            f"neither segtune nor timm {timm.__version__} has a network of this name. "
            "The nearest: none. timm.list_models() lists all.",
        ),
        ("resnet50.nope", "timm cannot build it: Invalid pretrained tag (nope) for resnet50."),
    ],
)
def test_a_name_that_timm_does_not_know(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        spec_of(name)
    assert str(caught.value) == f"backbone.name={name}: {message}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm/xception", "xception"),
        ("timm/resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("hf_hub:timm/resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("hf-hub:timm/resnet18", "resnet18"),
        ("https://huggingface.co/timm/resnet18.a1_in1k", "resnet18.a1_in1k"),
    ],
)
def test_names_of_the_hub(name: str, expected: str) -> None:
    assert spec_of(name).name == expected


def test_networks_of_others_on_the_hub() -> None:
    with pytest.raises(UserError) as error:
        spec_of("hf_hub:someone/net")
    assert str(error.value) == (
        "backbone.name=hf_hub:someone/net: of the networks on the Hugging Face Hub, segtune can build those of timm/. "
        "Name the architecture of this one as timm does, and its weights by backbone.weights=PATH."
    )


@pytest.mark.parametrize("spec", BACKBONES.values(), ids=BACKBONES)
def test_names_of_other_programs_lead_to_layers(spec: BackboneSpec) -> None:
    nodes = nodes_of(build_meta(spec))
    assert not {name: path for name, path in spec.others.items() if path not in nodes}
