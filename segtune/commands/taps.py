"""The command `taps`: show the layers of a backbone, the tap map, and what cutting the backbone saves."""

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import torch
from rich.table import Table

from segtune.config.command_settings import TapsSettings
from segtune.models.forward_cost import Saving, measured_saving, saving
from segtune.models.layer_info import BackboneSummary, LayerInfo
from segtune.models.tapped import TappedBackbone, build_tapped
from segtune.probing.tap_search import field_of
from segtune.reporting.network_plot import draw_network
from segtune.runtime.console import compact_table, print_table, say, set_up_logging
from segtune.runtime.files import csv_text
from segtune.runtime.paths import expanded


def row(layer: LayerInfo, summary: BackboneSummary, role: str) -> dict[str, Any]:
    """Return a layer's facts as plain values; shares are fractions of the whole backbone."""
    height, width = layer.receptive_field
    return {
        "layer": layer.name,
        "keras": layer.keras,
        "keras_index": layer.index,
        "block": layer.block,
        "stride": layer.stride,
        "channels": layer.channels,
        "height": layer.height,
        "width": layer.width,
        "receptive_field_height": height,
        "receptive_field_width": width,
        "sees_all": layer.sees_all,
        "parameters": layer.parameters,
        "parameters_share": round(layer.parameters / summary.parameters, 6),
        "multiply_adds": layer.macs,
        "multiply_adds_share": round(layer.macs / summary.macs, 6),
        "tap": role,
    }


def layer_tables(summary: BackboneSummary, taps: Mapping[str, LayerInfo], *, details: bool) -> Iterator[Table]:
    """Yield tables of the layers in the order of computation, the widest first: block ends and taps, or all layers.

    The narrower ones omit columns that follow from others; the narrowest puts Keras names below the layer names.
    """
    for table, headings in (
        (Table(), _WIDE),
        (compact_table(), _WIDE),
        (compact_table(), _NARROW),
        (compact_table(), _NARROWEST),
    ):
        absent = {"keras"} if not summary.spec.aliases else set()
        absent |= {"index"} if not (details and summary.spec.layers) else set()
        headings = {title: fact for title, fact in headings.items() if fact not in absent}
        for title, fact in headings.items():
            style = "bold magenta" if fact == "tap" else ""
            text = fact in _TEXTS
            table.add_column(title, justify="left" if text else "right", style=style, no_wrap=not text)
        for cells, style in _layer_rows(summary, taps, details=details):
            table.add_row(*(cells[fact] for fact in headings.values()), style=style)
        yield table


_TEXTS = ("block", "long_block", "layer", "keras", "both", "tap")
_WIDE = {
    "block": "long_block",
    "layer": "layer",
    "Keras name": "keras",
    "Keras\nindex": "index",
    "stride": "stride",
    "channels": "channels",
    "size": "size",
    "receptive\nfield": "field",
    "parameters": "parameters",
    "multiply-adds": "multiply-adds",
    "tap": "tap",
}
_NARROW = {
    "block": "block",
    "layer": "layer",
    "Keras name": "keras",
    "in-\ndex": "index",
    "stride": "stride",
    "chan-\nnels": "channels",
    "rec.\nfield": "field",
    "para-\nmeters": "parameters",
    "mult.-\nadds": "multiply-adds",
    "tap": "tap",
}
_NARROWEST = {"block": "block", "layer": "both"} | {
    title: fact for title, fact in _NARROW.items() if fact not in ("block", "layer", "keras")
}


def _layer_rows(
    summary: BackboneSummary, taps: Mapping[str, LayerInfo], *, details: bool
) -> Iterator[tuple[dict[str, str], str]]:
    """Yield the cells of each layer to show, by name, and the style of its row."""
    roles = {layer.name: role for role, layer in taps.items()}
    deepest = max(summary.layers.index(layer) for layer in taps.values())
    for block, members in groupby(summary.layers, key=lambda layer: layer.block):
        inside = list(members)
        shown = inside if details else [each for each in inside if each.name in roles or each is inside[-1]]
        for number, layer in enumerate(shown):
            heading = f"{block} ({len(inside)} layers)" if len(inside) > len(shown) else block
            cells = {
                "block": "" if number else block,
                "long_block": "" if number else heading,
                "layer": layer.name,
                "keras": layer.keras,
                "index": "" if layer.index is None else str(layer.index),
                "both": f"{layer.name}\n  {layer.keras}" if layer.keras else layer.name,
                "stride": str(layer.stride),
                "channels": str(layer.channels),
                "size": f"{layer.height} x {layer.width}",
                "field": field_of(layer),
                "parameters": f"{layer.parameters / summary.parameters:.1%}",
                "multiply-adds": f"{layer.macs / summary.macs:.1%}",
                "tap": roles.get(layer.name, ""),
            }
            yield cells, "dim" if summary.layers.index(layer) > deepest else ""


def saving_table(saving: Saving) -> Table:
    """Return a table of the costs of the cut backbone beside those of the whole one."""
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
    "time, measured": ("ms per image", 1e-3, 1),
    "memory, measured": ("MB", 1e6, 0),
}


def taps(settings: TapsSettings) -> list[dict[str, Any]]:
    """Show the layers of a backbone, the tap map, and what the cut saves; return the layers as plain values.

    Raises:
        UserError: The backbone cannot be traced, the taps cannot be used, or the images are too small for them.
    """
    set_up_logging()
    with torch.device("meta"):
        tapped = build_tapped(settings, settings.data.size)
    tapped.check_size(settings.data.size)
    summary, chosen = tapped.summary, tapped.layers
    roles = {layer.name: role for role, layer in chosen.items()}
    rows = [row(layer, summary, roles.get(layer.name, "")) for layer in summary.layers]
    if settings.picture:
        draw_network(expanded(settings.picture, "picture"), summary, chosen, settings.data.size)
    if settings.format == "json":
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    elif settings.format == "csv":
        sys.stdout.write(csv_text(rows))
    else:
        _show_layers(settings, tapped)
    return rows


def _show_layers(settings: TapsSettings, tapped: TappedBackbone) -> None:
    summary, chosen = tapped.summary, tapped.layers
    height, width = settings.data.size
    say(f"{summary.spec.name} + {settings.decoder.name}, for images of {height} x {width} pixels (data.image_size)")
    print_table(*layer_tables(summary, chosen, details=settings.details))
    say(
        "Receptive field: side in input pixels, + where global pooling adds the whole image. Parameters and "
        "multiply-adds: up to this layer, of the whole backbone without its classifier. Dim: cut off."
    )
    costs = saving(tapped, settings.decoder)
    if settings.measure:
        say(f"measuring a forward pass of {settings.train.images_per_batch} images …")
        costs |= measured_saving(settings, tapped.nodes)
    print_table(saving_table(costs))
    overrides = " ".join(f"taps.{role}={node}" for role, node in tapped.nodes.items())
    say(f"The tap map as settings: {overrides}")
    if settings.details and summary.spec.layers:
        say(
            f"Keras index: the layer's place in keras.applications' model.layers, of {len(summary.spec.layers)}; a "
            "phase's backbone and freeze take ranges of it, such as '100:' or ':100'."
        )
    if not settings.details:
        say("details=true shows every layer; each can be a tap. `python -m segtune probe` scores them on your masks.")
    if settings.picture:
        say(f"Wrote {settings.picture}.")
