"""Taps: from layer names to features.

A backbone is traced with torch.fx (torchvision's `feature_extraction`), so any node of it can be a tap, and what lies
behind the deepest tap is not kept.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from segtune.backbones import BackboneSpec
from segtune.config import UserError

NO_STOPS: Mapping[str, "GradientStop"] = {}

#: Side of the square input on which strides are measured, in pixels; a multiple of every stride in use.
_PROBE_SIZE = 128


@dataclass(frozen=True)
class Feature:
    """A tapped layer: its node in the backbone, its channels, and how many input pixels one of its pixels spans."""

    node: str
    channels: int
    stride: int


class GradientStop(nn.Module):
    """Lets values through as they are and, while `active`, no gradient. `passed` says whether values ever came."""

    def __init__(self) -> None:
        super().__init__()
        self.active = self.passed = False

    def forward(self, x: Tensor) -> Tensor:
        """Give a tensor of any shape back."""
        self.passed = True
        return x.detach() if self.active else x


def resolve(name: str, nodes: list[str], spec: BackboneSpec) -> str:
    """Turn a tap name into the name of a node of the traced backbone.

    Args:
        name: A module path (`layer3.5.act2`), a block name (`layer3`) or a Keras name (`conv4_block6_2_relu`).
        nodes: Node names in the order of computation.
        spec: The backbone's spec, for its aliases and blocks.

    Raises:
        UserError: No layer has that name; the message lists the nearest names.
    """
    path = spec.aliases.get(name, name)
    nodes = nodes[1:]  # the first is the picture itself
    matches = [node for node in nodes if node == path or node.startswith(f"{path}.")]
    if not matches and name in spec.blocks:
        matches = [node for node in nodes if any(node == m or node.startswith(f"{m}.") for m in spec.blocks[name])]
    if matches:
        return matches[-1]
    known = [*spec.blocks, *spec.aliases, *nodes]
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or list(spec.blocks)
    raise UserError(f"{spec.name} has no layer '{name}'. The nearest names: {', '.join(near)}.")


def cut(
    network: nn.Module, taps: Mapping[str, str], spec: BackboneSpec, stops: Mapping[str, GradientStop] = NO_STOPS
) -> tuple[nn.Module, dict[str, Feature]]:
    """Cut a backbone behind its deepest tap.

    In-place activations are switched off first, so that no tap is overwritten by the layer behind it.

    Args:
        network: The whole backbone; its modules are taken over.
        taps: Role to tap name, in the order of depth.
        spec: The backbone's spec.
        stops: Gradient stops to put behind layers, by the layer's name.

    Returns:
        A module from normalised RGB (N, 3, H, W) to `{role: (N, C, h, w)}`, and the features' facts by role.

    Raises:
        UserError: A name is unknown, two roles name one layer, the roles are not in the order of depth, or a stop lies
            behind the deepest tap.
    """
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    nodes = get_graph_node_names(network, suppress_diff_warning=True)[0]
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
                f"cut={name}: this layer of {spec.name} lies behind the deepest tap, {list(taps.values())[-1]}, "
                "so it is not part of the model."
            )
    # A node has one role: a stop behind a tapped layer shares the tap's.
    roles = {node: f"stop {node}" for node in stopped.values()} | {node: role for role, node in found.items()}
    trunk = create_feature_extractor(network, return_nodes=roles, suppress_diff_warning=True)
    _insert(trunk, [(roles[node], stops[name]) for name, node in stopped.items()], list(taps))
    return trunk, _measure(trunk, found, spec)


def _insert(trunk: Any, stops: Sequence[tuple[str, GradientStop]], roles: Sequence[str]) -> None:
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


def _measure(trunk: nn.Module, found: Mapping[str, str], spec: BackboneSpec) -> dict[str, Feature]:
    features = {}
    for role, output in _dry_run(trunk).items():
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[-1] < 2:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"taps.{role}: '{found[role]}' of {spec.name} gives no feature map (N, C, H, W) but {shape}. "
                "Choose a layer before the pooling."
            )
        features[role] = Feature(found[role], output.shape[1], _PROBE_SIZE // output.shape[-1])
    return features


def _dry_run(network: nn.Module) -> dict[str, Tensor]:
    was_training = network.training
    network.eval()
    with torch.no_grad():
        result: dict[str, Tensor] = network(torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE))
    network.train(was_training)
    return result


class DilatedMaxPool2d(nn.Module):
    """A max-pooling without stride, padded so that its windows lie where the strided pooling's do.

    PyTorch's own allows padding of half the kernel only, however dilated, and none on the far sides alone.
    """

    def __init__(self, pool: nn.MaxPool2d, dilation: int) -> None:
        super().__init__()
        # One number each: the poolings of all backbones here are square.
        self.kernel_size, self.dilation = cast(int, pool.kernel_size), dilation
        near = cast(int, pool.padding) * dilation
        far = dilation * (self.kernel_size - 1) - near
        self.padding = (near, far, near, far)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, H, W) to the same size."""
        x = F.pad(x, self.padding, value=float("-inf"))
        return F.max_pool2d(x, self.kernel_size, stride=1, dilation=self.dilation)


def set_output_stride(network: nn.Module, output_stride: int) -> None:
    """Turn strides beyond `output_stride` into dilation, in place (Chen et al. 2017, "Rethinking Atrous Convolution").

    Convolutions and max-poolings are treated alike: one that would make the map coarser than wanted keeps its size, and
    all behind it reach as many times further as strides were taken away. On input aligned with the strides the network
    then computes, at every n-th pixel, what the strided one does.

    Args:
        network: An uncut backbone that takes (N, 3, H, W).
        output_stride: 8, 16 or 32 input pixels for one pixel of the deepest map.
    """
    seen: list[tuple[str, nn.Module, int, int]] = []
    hooks = [
        module.register_forward_hook(
            lambda m, args, out, name=name: seen.append(
                (name, m, _PROBE_SIZE // args[0].shape[-1], _PROBE_SIZE // max(1, out.shape[-1]))
            )
        )
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.MaxPool2d)
    ]
    _dry_run(network)
    for hook in hooks:
        hook.remove()
    for name, module, stride_in, stride_out in seen:
        if stride_out > output_stride:
            _dilate(network, name, module, max(1, stride_in // output_stride))


def _dilate(network: nn.Module, name: str, module: nn.Module, factor: int) -> None:
    if isinstance(module, nn.Conv2d):
        module.stride = (1, 1)
        module.dilation = tuple(d * factor for d in module.dilation)
        module.padding = tuple(int(p) * factor for p in module.padding)
    elif isinstance(module, nn.MaxPool2d):
        network.set_submodule(name, DilatedMaxPool2d(module, factor))
