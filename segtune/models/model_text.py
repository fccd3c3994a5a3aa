"""A model as text: its layers with the shapes they return and their parameters."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from segtune.models.layer_info import without_values
from segtune.models.receptive_field import dry_run


def layer_table(model: nn.Module, size: tuple[int, int]) -> str:
    """Return a table of a model's layers in Markdown, in the order of computation, and its number of parameters.

    A layer is a module with parameters of its own, or without modules inside. It is listed once, with what it last
    returned for an image of `size` (height, width). Modules whose parameters others use come last. Nothing is computed:
    a copy of the model runs without values.
    """
    twin = without_values(model)
    returned: dict[str, Any] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: returned.update({name: output})

    for name, module in twin.named_modules():
        if _own(module) or not any(True for _ in module.children()):
            module.register_forward_hook(note(name))
    dry_run(twin, torch.empty(1, 3, *size, dtype=torch.uint8, device="meta"), nullcontext())
    shapes = {name: _shape(output) for name, output in returned.items()}
    shapes |= {name: "is not called" for name, module in twin.named_modules() if _own(module) and name not in shapes}
    rows = [
        f"| {f'`{name}`' if name else 'the model itself'} | {type(layer).__name__} | {shape} | {_own(layer):,} |"
        for name, layer, shape in ((name, twin.get_submodule(name), shape) for name, shape in shapes.items())
    ]
    total = sum(parameter.numel() for parameter in model.parameters())
    head = ["| layer | kind | returns (N, C, H, W) | parameters |", "|---|---|---|---:|"]
    return "\n".join([f"{total:,} parameters; input {_shape(torch.empty(1, 3, *size))}", "", *head, *rows])


def _own(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def _shape(value: Any) -> str:
    return "N, " + ", ".join(map(str, value.shape[1:])) if isinstance(value, Tensor) else type(value).__name__
