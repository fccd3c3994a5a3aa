"""Taps: from layer names to features.

A backbone is traced with torch.fx (torchvision's `feature_extraction`), so any node can be a tap, and layers behind the
deepest tap are dropped.
"""

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import DualGraphModule, create_feature_extractor, get_graph_node_names

from segtune.errors import UserError, close_matches
from segtune.models.backbones.registry import BACKBONES
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.module_paths import within
from segtune.models.receptive_field import PROBE_SIZE, Fields, dry_run, one_size
from segtune.models.tracing import tracer_options

NO_STOPS: Mapping[str, "StopGradient"] = {}

#: Operators that write into their first argument, and their out-of-place counterparts.
_OUT_OF_PLACE = {getattr(operator, f"i{name}"): getattr(operator, name) for name in ("add", "sub", "mul", "truediv")}


@dataclass(frozen=True)
class FeatureInfo:
    """A tapped layer: its node in the backbone, its channels, and its stride in input pixels."""

    node: str
    channels: int
    stride: int


class StopGradient(nn.Module):
    """Passes values unchanged and, while `active`, stops gradients. `passed` tells whether it was ever called."""

    def __init__(self) -> None:
        super().__init__()
        self.active = self.passed = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the same values, shape (...) to (...)."""
        self.passed = True
        return x.detach() if self.active else x


class _Thinning(nn.Conv2d):
    """A strided 1 x 1 convolution that drops pixels first; its values are the same.

    On some CPUs oneDNN's gradient of such a convolution of channels-last RGB corrupts the heap (oneDNN issue 6035).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, 3, H, W)."""
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight, self.bias)


class _Padded(nn.Conv2d):
    """A convolution that keeps the size, also of maps so small that some of its weights only meet padding.

    In bfloat16 on CPUs oneDNN leaves the gradient of these weights uninitialised, instead of setting it to 0: they are
    whatever lies in memory, up to infinity.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        size = x.shape[-2:]
        if torch.compiler.is_exporting() or min(size) > max(self.kernel_size) // 2:
            return super().forward(x)
        rows, columns = (
            (torch.arange(kernel, device=x.device) - kernel // 2).abs() < side
            for kernel, side in zip(self.kernel_size, size, strict=True)
        )
        weight: Tensor = self.weight.where(rows[:, None] & columns, 0)  # its gradient is 0 elsewhere, whatever comes
        convolved: Tensor = self._conv_forward(x, weight, self.bias)
        return convolved

    @staticmethod
    def fits(layer: nn.Module) -> bool:
        """Return whether a layer may be of this class."""
        if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros":
            return False
        half = tuple(kernel // 2 for kernel in layer.kernel_size)
        plain = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
        return plain and max(half) > 1 and layer.padding == half and all(kernel % 2 for kernel in layer.kernel_size)


def resolve(name: str, nodes: list[str], spec: BackboneSpec) -> str:
    """Return the node of the traced backbone that a tap names.

    Args:
        name: A module path (`layer3.5.act2`), a block name (`layer3`) or a Keras name (`conv4_block6_2_relu`).
        nodes: Node names in the order of computation.
        spec: The backbone's spec, with its aliases and blocks.

    Raises:
        UserError: No layer has that name, or more than one; the message lists the nearest names.
    """
    nodes = nodes[1:]  # the first is the input image
    for each in (name, common_form(name)):
        if message := ambiguity(each, spec):
            raise UserError(message)
        path = spec.aliases.get(each, each)
        for paths in ([path], spec.blocks.get(each, ()), [spec.others.get(each, each)]):
            if inside := [node for node in nodes if within(node, paths)]:
                return inside[-1]
    near = close_matches(name, [*spec.blocks, *spec.aliases, *nodes], 5, cutoff=0.5) or list(spec.blocks)
    other = [each.name for each in BACKBONES.values() if {*each.aliases, *each.others} & {name}]
    hint = f" It is a layer of {' and '.join(other)}." if other else ""
    raise UserError(f"{spec.name} has no layer '{name}'.{hint} The nearest names: {', '.join(near)}.")


def ambiguity(name: str, spec: BackboneSpec) -> str:
    """Return the message that a name may mean several layers, or "" if it does not."""
    if not (meanings := spec.ambiguous.get(name)):
        return ""
    return (
        f"'{name}' of {spec.name} may mean {' or '.join(meanings)}: Keras numbers layers that have no name "
        f"from 0 or, in old versions, from 1, which gives {meanings[0]}. Use the layer's PyTorch name."
    )


def common_form(name: str) -> str:
    """Return a layer's name without what other programs write around it: `model.`, `vgg_16/conv3/`, `features[15]`."""
    name = re.sub(r"\[(\d+)\]", r".\1", name)
    name = re.sub(r"^(module\.|model\.|backbone\.|encoder\.|net\.)+", "", name)
    name = re.sub(r"^(vgg_16|resnet_v1_50)/", "", name).removesuffix(":0").removesuffix("/Relu")
    return re.sub(r"^conv\d/(conv\d_\d)$", r"\1", name)


def cut(
    network: nn.Module,
    taps: Mapping[str, str],
    spec: BackboneSpec,
    stops: Mapping[str, StopGradient] = NO_STOPS,
    found: Mapping[str, str] | None = None,
) -> tuple[nn.Module, dict[str, FeatureInfo]]:
    """Return a backbone cut behind its deepest tap, and its features.

    In-place activations are switched off first, so that no tap is overwritten by the layer behind it. Some convolutions
    are computed differently, with the same values: 1 x 1 ones of the input image, and wide ones of small maps.

    Args:
        network: The whole backbone; its modules are taken over.
        taps: Role to tap name, in order of depth.
        spec: The backbone's spec.
        stops: Gradient stops to insert behind layers, by the layer's name.
        found: Role to node, if the names of `taps` are resolved already.

    Returns:
        A module from normalised RGB (N, 3, H, W) to `{role: (N, C, h, w)}`, and the features by role.

    Raises:
        UserError: A name is unknown, two roles name the same layer, the roles are not in order of depth, or a stop lies
            behind the deepest tap.
    """
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
        if type(module) is nn.Conv2d and module.in_channels == 3 and module.kernel_size == (1, 1):
            module.__class__ = _Thinning
        elif _Padded.fits(module):
            module.__class__ = _Padded
    options = tracer_options(network, spec)
    nodes = get_graph_node_names(network, options, suppress_diff_warning=True)[0]
    if found is None:
        found = {role: resolve(name, nodes, spec) for role, name in taps.items()}
    order = [nodes.index(node) for node in found.values()]
    if order != sorted(set(order)):
        named = ", ".join(f"taps.{role}={taps[role]} (layer {nodes.index(node)})" for role, node in found.items())
        raise UserError(
            f"The taps of {spec.name} must be different layers, from shallow to deep in the order {', '.join(taps)}. "
            f"Got {named}, of {len(nodes) - 1} layers."
        )
    stopped = {name: resolve(name, nodes, spec) for name in stops}
    for name, node in stopped.items():
        if nodes.index(node) > order[-1]:
            raise UserError(
                f"stop_gradient={name}: this layer of {spec.name} lies behind the deepest tap, "
                f"{list(taps.values())[-1]}, so it is not part of the model."
            )
    # A node has one role: a stop behind a tapped layer uses the tap's.
    roles = {node: f"stop {node}" for node in stopped.values()} | {node: role for role, node in found.items()}
    trunk = create_feature_extractor(network, roles, tracer_kwargs=options, suppress_diff_warning=True)
    trunk = _without_checks(trunk)
    _write_nothing_in_place(trunk)
    _insert(trunk, [(roles[node], stops[name]) for name, node in stopped.items()], list(taps))
    return trunk, _measure(trunk, found, spec)


def _write_nothing_in_place(trunk: Any) -> None:
    """Replace in-place operations of the traced network, for their inputs may be tapped."""
    for graph in {trunk.train_graph, trunk.eval_graph}:
        for node in graph.nodes:
            if node.kwargs.get("inplace"):
                node.update_kwarg("inplace", False)
            if not node.users:
                continue  # called only for its side effect
            if node.op == "call_function":
                node.target = _OUT_OF_PLACE.get(node.target, node.target)
            elif node.op == "call_method" and node.target.endswith("_") and hasattr(Tensor, node.target[:-1]):
                node.target = node.target[:-1]
    trunk.recompile()


def _without_checks(trunk: Any) -> Any:
    """Return a trunk without assertions, and without layers behind the deepest tap that only they kept alive."""
    graphs = (trunk.train_graph, trunk.eval_graph)
    for graph in graphs:
        for node in graph.find_nodes(op="call_function", target=torch._assert):
            graph.erase_node(node)
        graph.eliminate_dead_code()
    return DualGraphModule(trunk, *graphs).train(trunk.training)


def _insert(trunk: Any, stops: Sequence[tuple[str, StopGradient]], roles: Sequence[str]) -> None:
    """Insert stops behind the nodes that the trunk returns under given names, and let it return `roles` only."""
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
    image = torch.zeros(1, 3, *PROBE_SIZE)
    fields = Fields(image)
    try:
        outputs = dry_run(trunk, image, fields)
    except Exception as error:  # a forward pass can raise anything
        raise UserError(one_size(spec.name)) from error
    features = {}
    for role, output in outputs.items():
        field = fields.of(output) if isinstance(output, Tensor) else None
        if field is None or not field.is_map(output):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"taps.{role}: '{found[role]}' of {spec.name}: got {shape}; expected a feature map (N, C, H, W). "
                "Choose a layer before the pooling."
            )
        features[role] = FeatureInfo(found[role], output.shape[1], int(field.stride))
    return features
