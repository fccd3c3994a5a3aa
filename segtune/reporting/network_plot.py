"""Draw the layers of a backbone with matplotlib."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from segtune.config.types import PICTURES
from segtune.errors import UserError
from segtune.models.layer_info import BackboneSummary, LayerInfo
from segtune.runtime.files import replacing

_STRIDES = (1, 2, 4, 8, 16, 32, 64)


def colour_of(stride: int) -> Any:
    """Return the colour of a stride."""
    nearest = min(range(len(_STRIDES)), key=lambda index: abs(_STRIDES[index] - stride))
    return mpl.colormaps["viridis_r"](0.1 + 0.8 * nearest / (len(_STRIDES) - 1))


def draw_network(path: Path, summary: BackboneSummary, taps: Mapping[str, LayerInfo], size: tuple[int, int]) -> None:
    """Draw a backbone as a strip of blocks, with its strides, receptive fields and taps, to a PNG, SVG or PDF file.

    Raises:
        UserError: The file cannot be written, or has another extension.
    """
    position = {layer.name: index for index, layer in enumerate(summary.layers)}
    last = max(position[layer.name] for layer in taps.values())
    figure = Figure(figsize=(max(9.0, 0.85 * len(summary.spec.blocks)), 6.2), layout="constrained")
    strip, field_axes = figure.subplots(2, 1, sharex=True, height_ratios=(1.1, 1))
    for block, members in groupby(summary.layers, key=lambda layer: layer.block):
        inside = list(members)
        _draw_block(strip, block, inside, position, last)
    strip.set(yticks=[], ylim=(-1.05, 0.95), ylabel="blocks, taller at finer strides")
    strip.set_title(f"{summary.spec.name} for images of {size[0]} x {size[1]} pixels", loc="left")
    indices = range(len(summary.layers))
    field_axes.step(indices, [max(layer.receptive_field) for layer in summary.layers], where="mid", color="#333333")
    field_axes.axhline(max(size), color="#999999", linestyle="--", linewidth=1)
    field_axes.annotate(
        "image size", (0, max(size)), textcoords="offset points", xytext=(2, 3), color="#777777", fontsize=8
    )
    field_axes.set(yscale="log", ylabel="receptive field, pixels", xlabel="layers, in forward order")
    field_axes.axvspan(last + 0.5, len(summary.layers), color="#000000", alpha=0.06)
    for role, layer in taps.items():
        here = position[layer.name]
        for axes in (strip, field_axes):
            axes.axvline(here, color="#c2185b", linewidth=1.2)
        text = f"{role}: {layer.name}\nstride {layer.stride}, {layer.channels} channels"
        anchor = "right" if here > 0.6 * len(position) else "left"
        shift = (-4 if anchor == "right" else 4, -26 * list(taps).index(role))
        strip.annotate(
            text,
            (here, 0.92),
            textcoords="offset points",
            xytext=shift,
            ha=anchor,
            va="top",
            color="#c2185b",
            fontsize=8,
        )
    field_axes.set_xlim(-1, len(summary.layers))
    save_figure(figure, path)


def _draw_block(axes: Any, block: str, layers: Sequence[LayerInfo], position: Mapping[str, int], last: int) -> None:
    begin, end = position[layers[0].name] - 0.5, position[layers[-1].name] + 0.5
    for stride, members in groupby(layers, key=lambda layer: layer.stride):
        inside = list(members)
        left, right = position[inside[0].name] - 0.5, position[inside[-1].name] + 0.5
        height = 0.5 - 0.075 * (stride.bit_length() - 1)
        kept = position[inside[0].name] <= last
        axes.bar(
            (left + right) / 2,
            2 * height,
            right - left,
            bottom=-height,
            color=colour_of(stride),
            alpha=1 if kept else 0.25,
            linewidth=0,
        )
    axes.plot((end, end), (-0.5, 0.5), color="white", linewidth=1.5)
    narrow = end - begin < 0.05 * len(position)
    text = block if narrow else f"{block}\nstride {layers[-1].stride}\n{layers[-1].channels} channels"
    axes.text((begin + end) / 2, -0.54, text, ha="center", va="top", fontsize=7, rotation=90 if narrow else 0)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically, in the format of its path's extension.

    Raises:
        UserError: The format is not supported, or the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in PICTURES:
        raise UserError(f"{path}: expected a file name that ends in .png, .svg or .pdf.")
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=150)
