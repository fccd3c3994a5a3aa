"""The layers of a backbone: which can be tapped, their receptive fields, and the network's cost up to each."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from segtune.errors import UserError
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.dilation import set_output_stride
from segtune.models.input_size import too_small
from segtune.models.module_paths import within
from segtune.models.receptive_field import Fields
from segtune.models.taps import resolve
from segtune.models.tracing import trace


@dataclass(frozen=True)
class LayerInfo:
    """A layer that can be tapped, for a certain input size.

    `stride` is in input pixels, `height` and `width` in pixels of the map. `receptive_field` is the height and width of
    the receptive field in input pixels; with `sees_all` a pixel also depends on the whole image, through global
    pooling, attention or normalisation. `parameters` and `macs` (multiply-adds for one image) are what the network
    needs up to and including this layer. `is_read` tells whether a convolution or a pooling reads the layer.
    `keras` is the layer's name in Keras Applications and `index` its place in Keras's `model.layers`, from 0; "" and
    None without one.
    """

    name: str
    keras: str
    block: str
    channels: int
    stride: int
    height: int
    width: int
    receptive_field: tuple[int, int]
    sees_all: bool
    parameters: int
    macs: int
    is_read: bool
    index: int | None = None


@dataclass(frozen=True)
class BackboneSummary:
    """All layers of a backbone that can be tapped, in the order of computation, and the whole network's costs.

    `parameters` and `macs` are those of the network without its classifier; `nodes` are the names of all nodes,
    `node_macs` the multiply-adds of each alone, and `needed` (layers, nodes) is 1 where a layer needs a node, else 0.
    """

    spec: BackboneSpec
    layers: tuple[LayerInfo, ...]
    parameters: int
    macs: int
    nodes: tuple[str, ...]
    node_macs: NDArray[np.int64]
    needed: NDArray[np.int64]

    @cached_property
    def by_name(self) -> Mapping[str, LayerInfo]:
        """Layers by their node's name."""
        return {layer.name: layer for layer in self.layers}

    def macs_of(self, names: Iterable[str]) -> int:
        """Return the multiply-adds needed to compute some layers together."""
        place = {layer.name: index for index, layer in enumerate(self.layers)}
        return int(self.needed[[place[name] for name in names]].max(0) @ self.node_macs)

    def find(self, tap: str) -> LayerInfo:
        """Return the layer that a tap names.

        Raises:
            UserError: There is no such layer, or it returns no map.
        """
        node = resolve(tap, list(self.nodes), self.spec)
        if node not in self.by_name:
            raise UserError(no_map(tap, node, self.spec.name, self.before(node)))
        return self.by_name[node]

    def before(self, node: str) -> list[str]:
        """Return the names of the three layers before a node, the nearest first."""
        place = {name: index for index, name in enumerate(self.nodes)}
        return [layer.name for layer in reversed(self.layers) if place[layer.name] < place[node]][:3]


def no_map(tap: str, node: str, network: str, near: Sequence[str]) -> str:
    """Return the message that a layer cannot be tapped."""
    return (
        f"'{tap}' of {network} ({node}) returns no feature map (N, C, H, W). "
        f"The nearest layers before it that do: {', '.join(near) or 'none'}."
    )


def describe(spec: BackboneSpec, size: tuple[int, int], output_stride: int | None = None) -> BackboneSummary:
    """Return the summary of a backbone for an input of `size` (height, width); nothing is computed or loaded.

    Raises:
        UserError: The network cannot be traced, or cannot take images of this size.
    """
    with torch.device("meta"):
        network = spec.build()
        if output_stride:
            set_output_stride(network, output_stride, spec.name)
    return describe_network(network, spec, size)


def describe_network(network: nn.Module, spec: BackboneSpec, size: tuple[int, int]) -> BackboneSummary:
    """Return the summary of a backbone that is built already, with or without values; it stays unchanged.

    Raises:
        UserError: The network cannot be traced, or cannot take images of this size.
    """
    network = without_values(network).eval()
    graph, names = trace(network, spec)
    reader = _Reader(graph, torch.empty(1, 3, *size, device="meta"))
    try:
        reader.read()
    except Exception as error:  # a forward pass can raise anything
        words = too_small(size, partial(_reads, graph), "data.image_size")
        raise UserError(f"{spec.name} {words}") from error
    nodes = [node for node in graph.graph.nodes if node in names]
    needed = _needed(nodes)
    node_macs = np.array([reader.macs.get(node, 0) for node in nodes], np.int64)
    macs = needed @ node_macs
    parameters = needed @ np.array(_parameters(graph, nodes))
    keras = _by_output(spec.aliases, [names[node] for node in nodes])
    index_of = _by_output(dict(enumerate(spec.layers)), [names[node] for node in nodes])
    blocks = _blocks(spec, [names[node] for node in nodes])
    tapped = [index for index, node in enumerate(nodes) if node in reader.maps and node.op != "placeholder"]
    layers = [
        LayerInfo(
            names[nodes[index]],
            keras.get(names[nodes[index]], ""),
            blocks[index],
            *_facts(reader, nodes[index]),
            int(parameters[index]),
            int(macs[index]),
            any(_is_spatial(graph, user) for user in nodes[index].users),
            index_of.get(names[nodes[index]]),
        )
        for index in tapped
    ]
    if not layers:
        raise UserError(f"{spec.name} has no feature maps (N, C, H, W): it is not a convolutional network.")
    total = sum(parameter.numel() for parameter in network.parameters())
    every = tuple(names[node] for node in nodes)
    return BackboneSummary(spec, tuple(layers), total, int(node_macs.sum()), every, node_macs, needed[tapped])


def _reads(graph: fx.GraphModule, side: int) -> bool:
    try:
        fx.Interpreter(graph).run(torch.empty(1, 3, side, side, device="meta"))
    except Exception:  # a forward pass can raise anything
        return False
    return True


def without_values(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose parameters and buffers have shapes but no values."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad) for p in network.parameters()
    }
    memo |= {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    return copy.deepcopy(network, memo)


def default_taps(summary: BackboneSummary, strides: Mapping[str, int]) -> dict[str, str]:
    """Return a layer for each role by its stride, roles from fine to coarse.

    It is the end of the stage of that stride, by timm's list of stages; without one, the last layer of the stride.

    Raises:
        UserError: The network has no layers of these strides, one behind the other.
    """
    spec, ends = summary.spec, {}
    for module in spec.stages:
        found = [layer for layer in summary.layers if within(layer.name, [module])]
        if found:
            ends[found[-1].stride] = found[-1].name
    place = {name: index for index, name in enumerate(summary.nodes)}
    chosen: dict[str, str] = {}
    for role, stride in strides.items():
        behind = max((place[name] for name in chosen.values()), default=-1)
        able = [layer for layer in summary.layers if layer.stride == stride and place[layer.name] > behind]
        name = ends.get(stride)
        if name is None or place[name] <= behind:
            name = able[-1].name if able else None
        if name is None:
            there = ", ".join(str(s) for s in sorted({layer.stride for layer in summary.layers}))
            raise UserError(
                f"taps.{role}=auto: {spec.name} has no layer of stride {stride} there; its strides are {there}. "
                f"Name a layer (taps.{role}=LAYER); `python -m segtune taps` lists them."
            )
        chosen[role] = name
    return chosen


class _Reader(fx.Interpreter):
    """Runs a graph node by node, and records which outputs are maps and the multiply-adds of each node."""

    def __init__(self, graph: fx.GraphModule, image: Tensor) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.fields, self.image = Fields(image), image
        self.counter = FlopCounterMode(display=False)
        self.macs: dict[fx.Node, int] = {}
        self.maps: dict[fx.Node, tuple[tuple[int, ...], Any]] = {}

    def read(self) -> None:
        """Run the graph on the image."""
        with torch.no_grad(), self.counter, self.fields:
            self.run(self.image)

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and record its facts."""
        before = self.counter.get_total_flops()
        out = super().run_node(n)
        self.macs[n] = (self.counter.get_total_flops() - before) // 2  # a multiply-add counts as two operations
        field = self.fields.of(out) if isinstance(out, Tensor) else None
        if field and field.is_map(out):
            self.maps[n] = (tuple(out.shape), field)
        return out


def _facts(reader: _Reader, node: fx.Node) -> tuple[int, int, int, int, tuple[int, int], bool]:
    (_, channels, height, width), field = reader.maps[node]
    return channels, int(field.stride), height, width, field.size, field.whole


def _needed(nodes: Sequence[fx.Node]) -> NDArray[np.int64]:
    """Return a matrix (nodes, nodes): 1 where the node of a row needs that of a column or is the same, else 0."""
    place = {node: index for index, node in enumerate(nodes)}
    needed = np.eye(len(nodes), dtype=np.int64)
    for index, node in enumerate(nodes):
        for source in node.all_input_nodes:
            if source in place:
                needed[index] |= needed[place[source]]
    return needed


def _parameters(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> list[int]:
    """Return the number of parameters that each node adds; shared ones count at their first node."""
    seen: set[int] = set()
    counts = []
    for node in nodes:
        owned: list[Tensor] = []
        if node.op == "call_module":
            owned = list(graph.get_submodule(str(node.target)).parameters())
        elif node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            value = getattr(graph.get_submodule(path), name)
            owned = [value] if isinstance(value, nn.Parameter) else []
        counts.append(sum(p.numel() for p in owned if id(p) not in seen))
        seen |= {id(p) for p in owned}
    return counts


K = TypeVar("K")


def _by_output(paths: Mapping[K, str], nodes: Sequence[str]) -> dict[str, K]:
    """Return the keys of some module paths by the node of each module's output."""
    inside = {key: [node for node in nodes[1:] if within(node, [path])] for key, path in paths.items()}
    return {found[-1]: key for key, found in inside.items() if found}


def _blocks(spec: BackboneSpec, nodes: Sequence[str]) -> list[str]:
    """Return the block of each node; a node outside all blocks, such as a pooling, belongs to the one before it."""
    found, last = [], next(iter(spec.blocks))
    for node in nodes:
        last = next((block for block, paths in spec.blocks.items() if within(node, paths)), last)
        found.append(last)
    return found


def _is_spatial(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    return isinstance(graph.get_submodule(str(node.target)), kinds)


#: Layers whose features are used together.
Group = tuple[str, ...]
