"""Tracing with torch.fx: the graph of a backbone, and which modules count as layers."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.models import get_notrace_functions, get_notrace_modules
from torch import fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from segtune.errors import UserError
from segtune.models.backbones.any_timm import similar_networks
from segtune.models.backbones.registry import spec_of
from segtune.models.backbones.spec import BackboneSpec


def trace(network: nn.Module, spec: BackboneSpec) -> tuple[fx.GraphModule, dict[fx.Node, str]]:
    """Return the graph of a backbone, traced in its current mode, and the names of its nodes as used by taps.

    Raises:
        UserError: The network cannot be traced.
    """
    tracer = NodePathTracer(**_with_defaults(tracer_options(network, spec)))
    graph = tracer.trace(network)
    return fx.GraphModule(network, graph), dict(tracer.node_to_qualname)


def tracer_options(network: nn.Module, spec: BackboneSpec, *, hint: bool = True) -> dict[str, Any]:
    """Return the options to trace a network with: which modules are leaves, and which functions are not traced.

    Leaves are subclasses of PyTorch's own layers, what timm declares to be leaves, and what cannot be traced. With
    `hint` the error names a similar network that can be traced.

    Raises:
        UserError: The network's own forward pass cannot be traced.
    """
    kinds = frozenset(type(module) for module in network.modules())
    if kinds in _OPTIONS:
        return _OPTIONS[kinds]
    # A traced drop path would lose its in-place division, whose result is not used.
    layers = {kind for kind in kinds if _refines_a_layer(kind)} | {DropPath}
    layers |= set(get_notrace_modules())  # type: ignore[no-untyped-call]
    while True:
        functions = get_notrace_functions()  # type: ignore[no-untyped-call]
        options = {"leaf_modules": list(layers), "autowrap_functions": list(functions)}
        tracer = _TryingTracer(**_with_defaults(options))
        try:
            tracer.trace(network)
        except Exception as error:  # a forward pass that depends on values can raise anything
            if tracer.failed is None:
                near = _nearest_traceable(spec.name) if hint else ""
                raise UserError(
                    f"{spec.name} cannot be traced, so its layers cannot be tapped: {str(error).splitlines()[0]}."
                    + (f" A similar network that can be traced: {near}." if near else "")
                ) from error
            layers.add(tracer.failed)
        else:
            return _OPTIONS.setdefault(kinds, options)


#: The options found so far, by the module classes of the network.
_OPTIONS: dict[frozenset[type[nn.Module]], dict[str, Any]] = {}


def _nearest_traceable(name: str) -> str:
    for other in similar_networks(name, 8):
        with suppress(Exception), torch.device("meta"):
            spec = spec_of(other)
            tracer_options(spec.build(), spec, hint=False)
            return other
    return ""


def _refines_a_layer(kind: type[nn.Module]) -> bool:
    own = [base for base in kind.__mro__ if base.__module__.startswith("torch.nn.") and base is not nn.Module]
    return bool(own) and not any(issubclass(base, nn.Sequential | nn.ModuleList | nn.ModuleDict) for base in own)


def _with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with torchvision's defaults, as its own functions add them."""
    return {**options, "autowrap_modules": (math,)}


class _TryingTracer(NodePathTracer):  # type: ignore[misc]
    """Records the innermost module class that cannot be traced."""

    failed: type[nn.Module] | None = None

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Trace a call of a module."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or type(m)
            raise
