"""How the command `taps` shows layers: as a table, as JSON or CSV, and what the cut saves."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.table import Table

from segtune.forward_cost import Saving
from segtune.layers import Anatomy, Layer
from segtune.recommend import field_of


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


def layer_table(anatomy: Anatomy, taps: Mapping[str, Layer], *, details: bool) -> Table:
    """Show layers in the order of computation: the ends of blocks and the taps, or all of them."""
    roles = {layer.name: role for role, layer in taps.items()}
    table = Table(caption_justify="left")
    table.add_column("block")
    table.add_column("layer", no_wrap=True)
    if anatomy.spec.aliases:
        table.add_column("Keras name", no_wrap=True)
    for heading in ("stride", "channels", "size", "sees", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("tap", style="bold magenta", no_wrap=True)
    deepest = max(anatomy.layers.index(layer) for layer in taps.values())
    for block, members in groupby(anatomy.layers, key=lambda layer: layer.block):
        inside = list(members)
        shown = inside if details else [each for each in inside if each.name in roles or each is inside[-1]]
        for number, layer in enumerate(shown):
            names = [layer.name, layer.keras] if anatomy.spec.aliases else [layer.name]
            heading = f"{block} ({len(inside)} layers)" if len(inside) > len(shown) else block
            table.add_row(
                "" if number else heading,
                *names,
                str(layer.stride),
                str(layer.channels),
                f"{layer.height} x {layer.width}",
                field_of(layer),
                f"{layer.parameters / anatomy.parameters:.1%}",
                f"{layer.macs / anatomy.macs:.1%}",
                roles.get(layer.name, ""),
                style="dim" if anatomy.layers.index(layer) > deepest else "",
            )
    return table


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
