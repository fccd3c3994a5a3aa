"""The three specs written by hand against timm and the traced networks."""

import pytest
import torch
from timm.models import get_pretrained_cfg
from torch import nn
from torchvision.models.feature_extraction import get_graph_node_names

from segtune.models.backbones.registry import BACKBONES
from segtune.models.backbones.spec import BackboneSpec, ambiguous, unambiguous

SPECS = pytest.mark.parametrize("spec", BACKBONES.values(), ids=BACKBONES)


def build_meta(spec: BackboneSpec) -> nn.Module:
    """Build the real network without memory for its values."""
    with torch.device("meta"):
        return spec.build().eval()


def nodes_of(network: nn.Module) -> list[str]:
    nodes: list[str] = get_graph_node_names(network, suppress_diff_warning=True)[0]
    return nodes


@SPECS
def test_normalisation_is_that_of_the_weights(spec: BackboneSpec) -> None:
    config = get_pretrained_cfg(spec.architecture)
    assert config is not None
    assert (spec.mean, spec.std) == (config.mean, config.std)


@SPECS
def test_blocks_hold_every_parameter_exactly_once(spec: BackboneSpec) -> None:
    paths = [path for block in spec.blocks.values() for path in block]
    for name, _ in build_meta(spec).named_parameters():
        assert sum(name.startswith(f"{path}.") for path in paths) == 1, name


@SPECS
def test_blocks_are_in_the_order_of_depth(spec: BackboneSpec) -> None:
    owner = {path: index for index, paths in enumerate(spec.blocks.values()) for path in paths}
    along = [
        next((owner[path] for path in owner if node == path or node.startswith(f"{path}.")), None)
        for node in nodes_of(build_meta(spec))
    ]
    inside = [index for index in along if index is not None]
    assert inside == sorted(inside)
    assert set(inside) == set(range(len(spec.blocks)))


def test_numbered_layers_that_mean_one_or_two() -> None:
    numbered = {"add": ["a", "b", "c"], "pool": ["p"]}
    assert unambiguous(numbered) == {"add": "a", "add_3": "c", "pool": "p", "pool_1": "p"}
    assert ambiguous(numbered) == {"add_1": ("a", "b"), "add_2": ("b", "c")}
