"""Draw a probe's Dice against depth with matplotlib."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from segtune.models.layer_info import BackboneSummary
from segtune.reporting.network_plot import colour_of, save_figure


def draw_probe(
    path: Path,
    summary: BackboneSummary,
    alone: Mapping[str, float],
    together: Mapping[str, float],
    chosen: Sequence[str],
    title: str,
) -> None:
    """Draw Dice against depth, with a marker for each layer that grows with the multiply-adds up to it.

    Args:
        path: A PNG, SVG or PDF file.
        summary: The backbone.
        alone: Dice of each candidate alone.
        together: Dice of each candidate together with the layers chosen before it.
        chosen: The recommended taps.
        title: The figure's title.

    Raises:
        UserError: The file cannot be written.
    """
    layers = [layer for layer in summary.layers if layer.name in alone]
    depth = {layer.name: index for index, layer in enumerate(layers)}
    figure = Figure(figsize=(max(8.0, 0.27 * len(layers) + 2), 5.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(list(depth.values()), [alone[name] for name in depth], color="#bbbbbb", linewidth=1, zorder=1)
    for stride, members in groupby(sorted(layers, key=lambda layer: layer.stride), key=lambda layer: layer.stride):
        inside = list(members)
        axes.scatter(
            [depth[layer.name] for layer in inside],
            [alone[layer.name] for layer in inside],
            s=[30 + 300 * layer.macs / summary.macs for layer in inside],
            color=colour_of(stride),
            edgecolor="white",
            label=f"alone, stride {stride}",
            zorder=2,
        )
    if together:
        shown = [name for name in depth if name in together]
        others = ", ".join(name for name in chosen if name not in together) or "the layers chosen before"
        axes.plot(
            [depth[name] for name in shown],
            [together[name] for name in shown],
            "D",
            markersize=4,
            color="#c2185b",
            label=f"together with {others}",
        )
    for name in chosen:
        axes.axvline(depth[name], color="#c2185b", linewidth=1, linestyle=":", zorder=0)
    axes.set_xticks(list(depth.values()), list(depth), rotation=90, fontsize=7)
    axes.set(ylabel="mean Dice of a linear classifier", title=title)
    axes.grid(axis="y", color="#eeeeee")
    legend = axes.legend(fontsize=8, loc="best", title="marker size: multiply-adds up to the layer", title_fontsize=8)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([60])
    save_figure(figure, path)
