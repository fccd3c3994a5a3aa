"""Tracing: what counts as a layer, and what cannot be traced."""

import pytest
import torch
from torch import Tensor, nn

from segtune.errors import UserError
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.tracing import trace, tracer_options


def spec_of(network: nn.Module, name: str = "own") -> BackboneSpec:
    return BackboneSpec(name, lambda: network, name, (0.5,) * 3, (0.5,) * 3, {"all": ("",)})


class Unit(nn.Module):
    """Can be traced: its parts are layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.conv(x))


class Own(nn.Conv2d):
    """Refines a layer of PyTorch's, so it is one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Looking(nn.Module):
    """Depends on values, so it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else x


def test_nodes_are_layers_and_operations_with_their_paths() -> None:
    network = nn.Sequential(Unit(), Own(3, 4, 1), nn.Sequential(Unit.__mro__[1](), nn.Flatten()))
    network[2][0] = nn.Identity()
    graph, names = trace(network, spec_of(network))
    assert list(names.values())[1:] == ["0.conv", "0.act", "0.add", "1", "2.0", "2.1"]
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(graph(x), network(x))


def test_a_module_that_cannot_be_traced_is_a_layer() -> None:
    network = nn.Sequential(Unit(), Looking())
    assert list(trace(network, spec_of(network))[1].values())[1:] == ["0.conv", "0.act", "0.add", "1"]
    assert Looking in tracer_options(network, spec_of(network))["leaf_modules"]


def test_a_network_that_cannot_be_traced_itself() -> None:
    with pytest.raises(UserError) as caught:
        tracer_options(Looking(), spec_of(Looking(), "looking"), hint=False)
    assert str(caught.value).startswith(
        "looking cannot be traced, so its layers cannot be tapped: symbolically traced "
    )
    assert "A similar network" not in str(caught.value)
