"""Draw a network's layers, and a probe's Dice against depth, with matplotlib."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from segtune.errors import UserError
from segtune.models.layer_info import BackboneSummary, LayerInfo
from segtune.runtime.files import replacing

_STRIDES = (1, 2, 4, 8, 16, 32, 64)


def colour_of(stride: int) -> Any:
    """Return the colour of a stride."""
    place = min(range(len(_STRIDES)), key=lambda index: abs(_STRIDES[index] - stride))
    return mpl.colormaps["viridis_r"](0.1 + 0.8 * place / (len(_STRIDES) - 1))


def draw_network(path: Path, anatomy: BackboneSummary, taps: Mapping[str, LayerInfo], size: tuple[int, int]) -> None:
    """Draw a network as a strip of blocks, with its strides, receptive fields and taps, to a PNG, SVG or PDF file.

    Raises:
        UserError: The file cannot be written, or has another ending.
    """
    place = {layer.name: index for index, layer in enumerate(anatomy.layers)}
    last = max(place[layer.name] for layer in taps.values())
    figure = Figure(figsize=(max(9.0, 0.85 * len(anatomy.spec.blocks)), 6.2), layout="constrained")
    strip, fields = figure.subplots(2, 1, sharex=True, height_ratios=(1.1, 1))
    for block, members in groupby(anatomy.layers, key=lambda layer: layer.block):
        inside = list(members)
        _draw_block(strip, block, inside, place, last)
    strip.set(yticks=[], ylim=(-1.05, 0.95), ylabel="blocks, the higher the finer")
    strip.set_title(f"{anatomy.spec.name} for pictures of {size[0]} x {size[1]} pixels", loc="left")
    indices = range(len(anatomy.layers))
    fields.step(indices, [max(layer.receptive_field) for layer in anatomy.layers], where="mid", color="#333333")
    fields.axhline(max(size), color="#999999", linestyle="--", linewidth=1)
    fields.annotate(
        "the picture's size", (0, max(size)), textcoords="offset points", xytext=(2, 3), color="#777777", fontsize=8
    )
    fields.set(yscale="log", ylabel="receptive field, pixels", xlabel="layers, in the order of computation")
    fields.axvspan(last + 0.5, len(anatomy.layers), color="#000000", alpha=0.06)
    for role, layer in taps.items():
        here = place[layer.name]
        for axes in (strip, fields):
            axes.axvline(here, color="#c2185b", linewidth=1.2)
        text = f"{role}: {layer.name}\nstride {layer.stride}, {layer.channels} channels"
        anchor = "right" if here > 0.6 * len(place) else "left"
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
    fields.set_xlim(-1, len(anatomy.layers))
    save_figure(figure, path)


def _draw_block(axes: Any, block: str, layers: Sequence[LayerInfo], place: Mapping[str, int], last: int) -> None:
    begin, end = place[layers[0].name] - 0.5, place[layers[-1].name] + 0.5
    for stride, members in groupby(layers, key=lambda layer: layer.stride):
        inside = list(members)
        left, right = place[inside[0].name] - 0.5, place[inside[-1].name] + 0.5
        height = 0.5 - 0.075 * (stride.bit_length() - 1)
        kept = place[inside[0].name] <= last
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
    narrow = end - begin < 0.05 * len(place)
    text = block if narrow else f"{block}\nstride {layers[-1].stride}\n{layers[-1].channels} channels"
    axes.text((begin + end) / 2, -0.54, text, ha="center", va="top", fontsize=7, rotation=90 if narrow else 0)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically, as its path's extension says.

    Raises:
        UserError: The extension is of another kind, or the disk refuses.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise UserError(f"{path}: a picture is drawn as .png, .svg or .pdf.")
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=150)
