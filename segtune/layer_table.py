"""How the command `taps` shows layers: as a table, as JSON or CSV, and what the cut saves."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby
from typing import Any

import torch
from rich.table import Table
from torch import nn

from segtune.backbones import spec_of
from segtune.compute import choose_compute
from segtune.config import Settings
from segtune.console import compact_table
from segtune.cost import measure
from segtune.dilation import set_output_stride
from segtune.layers import Anatomy, Layer
from segtune.recommend import field_of
from segtune.taps import cut

Saving = dict[str, tuple[float, float]]


def row(layer: Layer, anatomy: Anatomy, role: str) -> dict[str, Any]:
    """Give a layer's facts as plain values; shares are of the whole network, 0 to 1."""
    height, width = layer.receptive_field
    return {
        "layer": layer.name,
        "keras": layer.keras,
        "block": layer.block,
        "stride": layer.stride,
        "channels": layer.channels,
        "height": layer.height,
        "width": layer.width,
        "receptive_field_height": height,
        "receptive_field_width": width,
        "sees_all": layer.sees_all,
        "parameters": layer.parameters,
        "parameters_share": round(layer.parameters / anatomy.parameters, 6),
        "multiply_adds": layer.macs,
        "multiply_adds_share": round(layer.macs / anatomy.macs, 6),
        "tap": role,
    }


def layer_tables(anatomy: Anatomy, taps: Mapping[str, Layer], *, details: bool) -> Iterator[Table]:
    """Show layers in the order of computation: the ends of blocks and the taps, or all of them; the widest table first.

    A narrower one leaves out what follows from the rest, and the narrowest writes Keras's names under the others.
    """
    for table, headings in (
        (Table(), _WIDE),
        (compact_table(), _WIDE),
        (compact_table(), _NARROW),
        (compact_table(), _NARROWEST),
    ):
        if not anatomy.spec.aliases:
            headings = {title: fact for title, fact in headings.items() if fact != "keras"}
        for title, fact in headings.items():
            style = "bold magenta" if fact == "tap" else ""
            text = fact in _TEXTS
            table.add_column(title, justify="left" if text else "right", style=style, no_wrap=not text)
        for cells, style in _layer_rows(anatomy, taps, details=details):
            table.add_row(*(cells[fact] for fact in headings.values()), style=style)
        yield table


_TEXTS = ("block", "long_block", "layer", "keras", "both", "tap")
_WIDE = {
    "block": "long_block",
    "layer": "layer",
    "Keras name": "keras",
    "stride": "stride",
    "channels": "channels",
    "size": "size",
    "sees": "sees",
    "parameters": "parameters",
    "multiply-adds": "multiply-adds",
    "tap": "tap",
}
_NARROW = {
    "block": "block",
    "layer": "layer",
    "Keras name": "keras",
    "stride": "stride",
    "chan-\nnels": "channels",
    "sees": "sees",
    "para-\nmeters": "parameters",
    "mult.-\nadds": "multiply-adds",
    "tap": "tap",
}
_NARROWEST = {"block": "block", "layer": "both"} | {
    title: fact for title, fact in _NARROW.items() if fact not in ("block", "layer", "keras")
}


def _layer_rows(anatomy: Anatomy, taps: Mapping[str, Layer], *, details: bool) -> Iterator[tuple[dict[str, str], str]]:
    """Yield the cells of each layer that is shown, by name, and the row's style."""
    roles = {layer.name: role for role, layer in taps.items()}
    deepest = max(anatomy.layers.index(layer) for layer in taps.values())
    for block, members in groupby(anatomy.layers, key=lambda layer: layer.block):
        inside = list(members)
        shown = inside if details else [each for each in inside if each.name in roles or each is inside[-1]]
        for number, layer in enumerate(shown):
            heading = f"{block} ({len(inside)} layers)" if len(inside) > len(shown) else block
            cells = {
                "block": "" if number else block,
                "long_block": "" if number else heading,
                "layer": layer.name,
                "keras": layer.keras,
                "both": f"{layer.name}\n  {layer.keras}" if layer.keras else layer.name,
                "stride": str(layer.stride),
                "channels": str(layer.channels),
                "size": f"{layer.height} x {layer.width}",
                "sees": field_of(layer),
                "parameters": f"{layer.parameters / anatomy.parameters:.1%}",
                "multiply-adds": f"{layer.macs / anatomy.macs:.1%}",
                "tap": roles.get(layer.name, ""),
            }
            yield cells, "dim" if anatomy.layers.index(layer) > deepest else ""


def saving_table(saving: Saving) -> Table:
    """Show what is left of the network's costs behind the cut."""
    table = Table("", "cut backbone", "whole backbone", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, (here, there) in saving.items():
        unit, scale, digits = _UNITS[name]
        numbers = [f"{value / scale:,.{digits}f} {unit}" for value in (here, there)]
        table.add_row(name, *numbers, f"{here / there:.0%}" if there else "")
    return table


_UNITS = {
    "parameters": ("M", 1e6, 1),
    "multiply-adds": ("G", 1e9, 2),
    "time, measured": ("ms a picture", 1e-3, 1),
    "memory, measured": ("MB", 1e6, 0),
}


def measured_saving(settings: Settings, taps: Mapping[str, str]) -> Saving:
    """Measure time and memory of a forward pass of `train.batch_size` pictures, each in a process of its own."""
    here, there = (measure(partial(_job, settings, chosen)) for chosen in (taps, None))
    batch = settings.train.batch_size
    found: Saving = {"time, measured": (here.seconds / batch, there.seconds / batch)}
    if here.memory is not None and there.memory is not None:
        found["memory, measured"] = (here.memory, there.memory)
    return found


def _job(settings: Settings, taps: Mapping[str, str] | None) -> tuple[Callable[[], None], torch.device]:
    """Make a forward pass of the backbone, cut or whole, for `segtune.cost.measure`: it needs no weights."""
    compute, spec = choose_compute(settings.train), spec_of(settings.backbone.name)
    network: nn.Module = spec.build()
    if settings.backbone.output_stride:
        set_output_stride(network, settings.backbone.output_stride, spec.name)
    if taps:
        network = cut(network, taps, spec)[0]
    network = network.eval().to(compute.device).to(memory_format=torch.channels_last)
    images = torch.zeros(settings.train.batch_size, 3, *settings.data.size, device=compute.device)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.no_grad(), compute.autocast():
            network(images)

    return step, compute.device
