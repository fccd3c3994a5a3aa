"""Taps: from layer names to features.

A backbone is traced with torch.fx (torchvision's `feature_extraction`), so any node of it can be a tap, and what lies
behind the deepest tap is not kept.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import DualGraphModule, create_feature_extractor, get_graph_node_names

from segtune.errors import UserError, close_matches
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.module_paths import within
from segtune.models.receptive_field import PROBE_SIZE, Fields, dry_run, one_size
from segtune.models.tracing import tracer_options

NO_STOPS: Mapping[str, "StopGradient"] = {}

#: Operators that write into their first argument, and those that do not.
_OUT_OF_PLACE = {getattr(operator, f"i{name}"): getattr(operator, name) for name in ("add", "sub", "mul", "truediv")}


@dataclass(frozen=True)
class FeatureInfo:
    """A tapped layer: its node in the backbone, its channels, and how many input pixels one of its pixels spans."""

    node: str
    channels: int
    stride: int


class StopGradient(nn.Module):
    """Lets values through as they are and, while `active`, no gradient. `passed` says whether values ever came."""

    def __init__(self) -> None:
        super().__init__()
        self.active = self.passed = False

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of any shape back."""
        self.passed = True
        return x.detach() if self.active else x


class _Thinning(nn.Conv2d):
    """A strided 1 x 1 convolution that drops pixels first: the same values.

    oneDNN's gradient of one that reads RGB in channels-last breaks the heap on some CPUs (its issue 6035).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, 3, H, W)."""
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight, self.bias)


def resolve(name: str, nodes: list[str], spec: BackboneSpec) -> str:
    """Turn a tap name into the name of a node of the traced backbone.

    Args:
        name: A module path (`layer3.5.act2`), a block name (`layer3`) or a Keras name (`conv4_block6_2_relu`).
        nodes: Node names in the order of computation.
        spec: The backbone's spec, for its aliases and blocks.

    Raises:
        UserError: No layer has that name, or more than one; the message lists the nearest names.
    """
    if meanings := spec.ambiguous.get(name):
        raise UserError(
            f"'{name}' of {spec.name} may mean {' or '.join(meanings)}: Keras numbers layers that have no name from 0 "
            "or, in old versions, from 1. Say which, by its PyTorch name."
        )
    path = spec.aliases.get(name, name)
    nodes = nodes[1:]  # the first is the picture itself
    for paths in ([path], spec.blocks.get(name, ())):
        if inside := [node for node in nodes if within(node, paths)]:
            return inside[-1]
    known = [*spec.blocks, *spec.aliases, *nodes]
    near = close_matches(name, known, 5, cutoff=0.5) or list(spec.blocks)
    raise UserError(f"{spec.name} has no layer '{name}'. The nearest names: {', '.join(near)}.")


def cut(
    network: nn.Module,
    taps: Mapping[str, str],
    spec: BackboneSpec,
    stops: Mapping[str, StopGradient] = NO_STOPS,
    found: Mapping[str, str] | None = None,
) -> tuple[nn.Module, dict[str, FeatureInfo]]:
    """Cut a backbone behind its deepest tap.

    In-place activations are switched off first, so that no tap is overwritten by the layer behind it, and 1 x 1
    convolutions of the picture are computed in another way, which changes no value.

    Args:
        network: The whole backbone; its modules are taken over.
        taps: Role to tap name, in the order of depth.
        spec: The backbone's spec.
        stops: Gradient stops to put behind layers, by the layer's name.
        found: Role to node, if the names of `taps` are resolved already.

    Returns:
        A module from normalised RGB (N, 3, H, W) to `{role: (N, C, h, w)}`, and the features' facts by role.

    Raises:
        UserError: A name is unknown, two roles name one layer, the roles are not in the order of depth, or a stop lies
            behind the deepest tap.
    """
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
        if type(module) is nn.Conv2d and module.in_channels == 3 and module.kernel_size == (1, 1):
            module.__class__ = _Thinning
    options = tracer_options(network, spec)
    nodes = get_graph_node_names(network, options, suppress_diff_warning=True)[0]
    if found is None:
        found = {role: resolve(name, nodes, spec) for role, name in taps.items()}
    order = [nodes.index(node) for node in found.values()]
    if order != sorted(set(order)):
        named = ", ".join(f"taps.{role}={taps[role]} (layer {nodes.index(node)})" for role, node in found.items())
        raise UserError(
            f"The taps of {spec.name} must be different layers, from shallow to deep in the order {', '.join(taps)}. "
            f"Came: {named}, of {len(nodes) - 1} layers."
        )
    stopped = {name: resolve(name, nodes, spec) for name in stops}
    for name, node in stopped.items():
        if nodes.index(node) > order[-1]:
            raise UserError(
                f"stop_gradient={name}: this layer of {spec.name} lies behind the deepest tap, {list(taps.values())[-1]}, "
                "so it is not part of the model."
            )
    # A node has one role: a stop behind a tapped layer shares the tap's.
    roles = {node: f"stop {node}" for node in stopped.values()} | {node: role for role, node in found.items()}
    trunk = create_feature_extractor(network, roles, tracer_kwargs=options, suppress_diff_warning=True)
    trunk = _without_checks(trunk)
    _write_nothing_in_place(trunk)
    _insert(trunk, [(roles[node], stops[name]) for name, node in stopped.items()], list(taps))
    return trunk, _measure(trunk, found, spec)


def _write_nothing_in_place(trunk: Any) -> None:
    """Let no operation of the traced network write into its input, which may be tapped."""
    for graph in {trunk.train_graph, trunk.eval_graph}:
        for node in graph.nodes:
            if node.kwargs.get("inplace"):
                node.update_kwarg("inplace", False)
            if not node.users:
                continue  # a method called for nothing but its effect
            if node.op == "call_function":
                node.target = _OUT_OF_PLACE.get(node.target, node.target)
            elif node.op == "call_method" and node.target.endswith("_") and hasattr(Tensor, node.target[:-1]):
                node.target = node.target[:-1]
    trunk.recompile()


def _without_checks(trunk: Any) -> Any:
    """Drop assertions, and what nothing but they have kept of the layers behind the deepest tap."""
    graphs = (trunk.train_graph, trunk.eval_graph)
    for graph in graphs:
        for node in graph.find_nodes(op="call_function", target=torch._assert):
            graph.erase_node(node)
        graph.eliminate_dead_code()
    return DualGraphModule(trunk, *graphs).train(trunk.training)


def _insert(trunk: Any, stops: Sequence[tuple[str, StopGradient]], roles: Sequence[str]) -> None:
    """Put stops behind the nodes returned under certain names, then return nothing but `roles`."""
    if not stops:
        return
    trunk.stops = nn.ModuleList(stop for _, stop in stops)
    for graph in {trunk.train_graph, trunk.eval_graph}:
        output = next(node for node in graph.nodes if node.op == "output")
        for index, (role, _) in enumerate(stops):
            node = output.args[0][role]
            with graph.inserting_after(node):
                stop = graph.create_node("call_module", f"stops.{index}", (node,))
            node.replace_all_uses_with(stop, delete_user_cb=lambda user, stop=stop: user is not stop)
        output.args = ({role: output.args[0][role] for role in roles},)
    trunk.recompile()


def _measure(trunk: nn.Module, found: Mapping[str, str], spec: BackboneSpec) -> dict[str, FeatureInfo]:
    picture = torch.zeros(1, 3, *PROBE_SIZE)
    fields = Fields(picture)
    try:
        outputs = dry_run(trunk, picture, fields)
    except Exception as error:  # a forward pass raises whatever it stumbles over
        raise UserError(one_size(spec.name)) from error
    features = {}
    for role, output in outputs.items():
        field = fields.of(output) if isinstance(output, Tensor) else None
        if field is None or not field.is_map(output):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"taps.{role}: '{found[role]}' of {spec.name} gives no feature map (N, C, H, W) but {shape}. "
                "Choose a layer before the pooling."
            )
        features[role] = FeatureInfo(found[role], output.shape[1], int(field.stride))
    return features
