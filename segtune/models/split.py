"""Split a cut backbone where freezing ends: a part that computes the same every time, and the part that trains.

The values that cross from one to the other can be kept, so that the first part runs once for each image.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from segtune.models.layer_info import without_values
from segtune.models.receptive_field import PROBE_SIZE


@dataclass(frozen=True)
class Crossing:
    """The values that cross between the two parts, by name, each (N, ...), of images of a `size` (H, W)."""

    values: Mapping[str, Tensor]
    size: tuple[int, int]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(next(iter(self.values.values())))

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Crossing":
        """Return the values on a device."""
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in self.values.items()}
        return Crossing(moved, self.size)


@dataclass(frozen=True)
class Split:
    """The two parts of a cut backbone; they share its modules and parameters.

    `frozen` maps normalised RGB (N, 3, H, W) to the crossing values by name, `trained` maps these, by name, to the
    features by role. `modules` are the paths inside the backbone of the layers that `frozen` calls.
    """

    frozen: fx.GraphModule
    trained: fx.GraphModule
    modules: tuple[str, ...]

    @property
    def end(self) -> str:
        """The path of the last layer of the frozen part that changes anything."""
        return [path for path in self.modules if not isinstance(self.frozen.get_submodule(path), nn.Identity)][-1]


def split_backbone(trunk: Any) -> Split | None:
    """Return the two parts of a cut backbone as it is set up for a phase; None if only the image would cross.

    A node belongs to the frozen part if neither it nor anything before it can change or is random: its parameters get
    no gradient, its module is in evaluation mode. So the line runs through any block, across any number of edges.

    Args:
        trunk: A backbone that `segtune.models.taps.cut` returned.
    """
    graph: fx.Graph = trunk.train_graph if trunk.training else trunk.eval_graph
    frozen = _frozen_nodes(trunk, graph)
    crossing = [node for node in graph.nodes if node in frozen and any(user not in frozen for user in node.users)]
    if not crossing or any(node.op == "placeholder" for node in crossing):
        return None
    before, after = fx.Graph(), fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in frozen:
            copied[node] = before.node_copy(node, copied.__getitem__)
    before.output({node.name: copied[node] for node in crossing})
    copied = {node: after.placeholder(node.name) for node in crossing}
    for node in graph.nodes:
        if node not in frozen:
            copied[node] = after.node_copy(node, copied.__getitem__)
    modules = tuple(dict.fromkeys(str(node.target) for node in graph.nodes if _calls(node) and node in frozen))
    return Split(fx.GraphModule(trunk, before), fx.GraphModule(trunk, after), modules)


#: Functions that draw random numbers or follow the batch in a graph that was traced in training mode.
_RANDOM = re.compile("drop|norm|rand|bernoulli|rrelu")


def _calls(node: fx.Node) -> bool:
    return node.op == "call_module"


def _frozen_nodes(trunk: Any, graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes that compute the same every time, and return tensors; others are cheap, and computed again."""
    tensors = _tensor_nodes(trunk, graph)
    frozen: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "output" or node not in tensors:
            continue
        if all(each in frozen for each in node.all_input_nodes) and not _may_change(trunk, node):
            frozen.add(node)
    return frozen


def _may_change(trunk: nn.Module, node: fx.Node) -> bool:
    """Return whether a node trains, follows the batch, or draws random numbers."""
    if node.op == "call_module":
        module = trunk.get_submodule(str(node.target))
        trains = any(parameter.requires_grad for parameter in module.parameters())
        return trains or any(each.training for each in module.modules())
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        return bool(getattr(getattr(trunk.get_submodule(owner), name), "requires_grad", False))
    return trunk.training and bool(_RANDOM.search(str(getattr(node.target, "__name__", node.target))))


def _tensor_nodes(trunk: Any, graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose value is a tensor, found without computing any."""
    found: set[fx.Node] = set()

    class Watching(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                found.add(n)
            return value

    with torch.no_grad():
        Watching(without_values(trunk).eval(), graph=graph).run(torch.zeros(1, 3, *PROBE_SIZE, device="meta"))
    return found
