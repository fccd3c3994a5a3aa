"""Tracing with torch.fx: the graph of a backbone, and what of it is taken as a layer."""

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
    """Trace a backbone in its current mode: its graph, and the names of its nodes as taps know them.

    Raises:
        UserError: The network cannot be traced.
    """
    tracer = NodePathTracer(**_with_defaults(tracer_options(network, spec)))
    graph = tracer.trace(network)
    return fx.GraphModule(network, graph), dict(tracer.node_to_qualname)


def tracer_options(network: nn.Module, spec: BackboneSpec, *, hint: bool = True) -> dict[str, Any]:
    """Say how a network is traced: which modules are layers as they are, and which functions are not looked into.

    A layer is what refines one of PyTorch's own, what timm declares to be one, and what cannot be traced. With `hint`
    the error names a network that can.

    Raises:
        UserError: The network's own forward pass cannot be traced.
    """
    kinds = frozenset(type(module) for module in network.modules())
    if kinds in _OPTIONS:
        return _OPTIONS[kinds]
    # Traced, drop path would lose the division it does in place, whose result nobody reads.
    layers = {kind for kind in kinds if _refines_a_layer(kind)} | {DropPath}
    layers |= set(get_notrace_modules())  # type: ignore[no-untyped-call]
    while True:
        functions = get_notrace_functions()  # type: ignore[no-untyped-call]
        options = {"leaf_modules": list(layers), "autowrap_functions": list(functions)}
        tracer = _TryingTracer(**_with_defaults(options))
        try:
            tracer.trace(network)
        except Exception as error:  # a forward pass that looks at values raises whatever it stumbles over
            if tracer.failed is None:
                near = _nearest_traceable(spec.name) if hint else ""
                raise UserError(
                    f"{spec.name} cannot be traced, so its layers cannot be tapped: {str(error).splitlines()[0]}."
                    + (f" The nearest network that can: {near}." if near else "")
                ) from error
            layers.add(tracer.failed)
        else:
            return _OPTIONS.setdefault(kinds, options)


#: What was found out about networks so far, by the kinds of modules they are made of.
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
    """Add torchvision's own options, as its functions do by themselves."""
    return {**options, "autowrap_modules": (math,)}


class _TryingTracer(NodePathTracer):  # type: ignore[misc]
    """Notes the innermost kind of module that cannot be traced."""

    failed: type[nn.Module] | None = None

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Trace a call of a module."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or type(m)
            raise
