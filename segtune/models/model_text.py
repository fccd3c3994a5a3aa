"""The layers of a model as they compute, with the shapes they return and their parameters."""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segtune.models.layer_info import without_values
from segtune.models.receptive_field import dry_run


@dataclass(frozen=True)
class Layer:
    """A module with parameters of its own, or without modules inside.

    `returns` is the shape of what it last returned for one image, a type's name if that is no tensor, or None if it is
    never called; `parameters` are the names of its own parameters.
    """

    path: str
    kind: str
    returns: tuple[int, ...] | str | None
    parameters: tuple[str, ...]


def list_layers(model: nn.Module, size: tuple[int, int]) -> list[Layer]:
    """Return the layers of a model for images of `size` (height, width), each once, in the order of computation.

    Modules that are not called, but whose parameters others use, stand behind the last layer inside them or come last.
    Nothing is computed: a copy of the model runs without values.
    """
    twin = without_values(model)
    returned: dict[str, tuple[int, ...] | str] = {}

    def note(path: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        returned[path] = tuple(output.shape[1:]) if isinstance(output, Tensor) else type(output).__name__

    named = {
        path: tuple(f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False))
        for path, module in twin.named_modules()
    }
    for path, module in twin.named_modules():
        if named[path] or not list(module.children()):
            module.register_forward_hook(partial(note, path))
    dry_run(twin, torch.empty(1, 3, *size, dtype=torch.uint8, device="meta"), nullcontext())
    order = list(returned)
    for path in [path for path, own in named.items() if own and path not in returned]:
        inside = [place for place, other in enumerate(order, 1) if other.startswith(f"{path}.")]
        order.insert(max(inside, default=len(order)), path)
    kinds = {path: type(twin.get_submodule(path)).__name__ for path in order}
    return [Layer(path, kinds[path], returned.get(path), named[path]) for path in order]


def layer_table(model: nn.Module, size: tuple[int, int]) -> str:
    """Return a table of a model's layers for images of `size` in Markdown, and its number of parameters."""
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    rows = []
    for layer in list_layers(model, size):
        shape = layer.returns or "is not called"
        own = sum(counts.get(name, 0) for name in layer.parameters)
        text = shape if isinstance(shape, str) else ", ".join(map(str, ("N", *shape)))
        rows.append(f"| {f'`{layer.path}`' if layer.path else 'the model itself'} | {layer.kind} | {text} | {own:,} |")
    head = ["| layer | kind | returns (N, C, H, W) | parameters |", "|---|---|---|---:|"]
    return "\n".join([f"{sum(counts.values()):,} parameters; input N, 3, {size[0]}, {size[1]}", "", *head, *rows])
