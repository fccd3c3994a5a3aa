"""Draw a whole model with matplotlib: backbone, taps, decoder, and what trains in each phase."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from segtune.models.model_graph import ModelGraph, Node
from segtune.reporting.model_layout import (
    CELL,
    GAP,
    LINES,
    MARGIN,
    SIZE,
    SMALL,
    Box,
    Layout,
    lay_out,
    skips,
    text_lines,
    text_width,
)
from segtune.reporting.model_tables import PhaseColumn
from segtune.reporting.network_plot import save_figure

# By Okabe and Ito, distinct for the colour-blind; what trains is also darker than what is frozen.
_TRAINS, _PARTLY, _FROZEN = "#0072B2", "#A6D5F2", "#E4E4E4"
_TAP, _LINE = "#D55E00", "#333333"
_FILL = {"block": "#F2F2F2", "tap": "#FDEEE3", "module": "#E0F2EB"}
_EDGE = {"tap": _TAP, "module": "#00805C"}
_STOP: dict[str, Any] = {"marker": "X", "markersize": 8, "color": "black", "markeredgecolor": "white", "zorder": 5}
_LEGEND_ROW = 0.24
#: The most letters of a phase's name above its column.
_LONGEST = 24


def draw_model(path: Path, title: str, graph: ModelGraph, phases: Sequence[PhaseColumn]) -> None:
    """Draw a model and what trains in each phase to a PNG, SVG or PDF file.

    Raises:
        UserError: The file cannot be written, or has another extension.
    """
    save_figure(model_figure(title, graph, phases), path)


@mpl.rc_context({"text.parse_math": False})  # names may hold dollars
def model_figure(title: str, graph: ModelGraph, phases: Sequence[PhaseColumn]) -> Figure:
    """Return the drawing of a model and of what trains in each phase."""
    names = max(text_width(_short(phase.name), SMALL) for phase in phases)
    top = MARGIN + 0.4 + names
    layout = lay_out(graph.nodes, graph.counts, len(phases), top)
    legend = _legend(graph, phases)
    width = max(layout.width, *(2 * MARGIN + text_width(line, SIZE, "bold") for line in (title, *legend)), 6.5)
    height = layout.height + MARGIN + _LEGEND_ROW * (1 + len(legend)) + MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(MARGIN, MARGIN, title, fontsize=SIZE + 2, weight="bold", va="center")
    _draw_captions(axes, graph.nodes, layout, top)
    _draw_backbone_edges(axes, graph.nodes, layout)
    _draw_decoder_edges(axes, graph.nodes, layout)
    for n, box in layout.boxes.items():
        _draw_box(axes, graph.nodes[n], box, text_lines(graph.nodes, graph.counts, n))
    for number, phase in enumerate(phases):
        _draw_phase(axes, graph, layout, phase, number, top)
    _draw_legend(axes, legend, layout.height + MARGIN, stops=any(phase.stop for phase in phases))
    return figure


def _draw_box(axes: Axes, node: Node, box: Box, lines: Sequence[str]) -> None:
    rounding = 0.12 if node.kind in ("tap", "operation") else 0.04
    shape = FancyBboxPatch(
        (box.left, box.y - box.height / 2),
        box.width,
        box.height,
        boxstyle=f"round,pad=0,rounding_size={rounding}",
        facecolor=_FILL.get(node.kind, "white"),
        edgecolor=_EDGE.get(node.kind, _LINE),
        linewidth=1.2,
        zorder=3,
    )
    axes.add_patch(shape)
    for index, line in enumerate(lines):
        y = box.y + 0.17 * (index - (len(lines) - 1) / 2)
        bold = "bold" if index == 0 and len(lines) > 1 else "normal"
        size = SMALL if index or len(lines) == 1 else SIZE
        axes.text(box.x, y, line, fontsize=size, weight=bold, ha="center", va="center_baseline", zorder=4)


def _draw_captions(axes: Axes, nodes: Sequence[Node], layout: Layout, top: float) -> None:
    for kind, caption in (("image", "backbone"), ("tap", "taps"), ("logits", "decoder")):
        x = next(layout.boxes[n].x for n, node in enumerate(nodes) if node.kind == kind)
        axes.text(x, top - 0.12, caption, fontsize=SIZE, style="italic", ha="center", va="center")


def _arrow(axes: Axes, points: Sequence[tuple[float, float]], colour: str = _LINE) -> None:
    """Draw a line along points, with a head at its end."""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, zorder=1, solid_joinstyle="round")
    head = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    axes.annotate("", points[-1], points[-2], arrowprops=head, zorder=2)


def _draw_backbone_edges(axes: Axes, nodes: Sequence[Node], layout: Layout) -> None:
    boxes = layout.boxes
    trunk = [n for n, node in enumerate(nodes) if node.kind in ("image", "block")]
    around = skips(nodes, trunk)
    for n in trunk:
        for m in nodes[n].inputs:
            here, there = boxes[m], boxes[n]
            if (m, n) in around:
                x = here.left - LINES * (1 + around.index((m, n)))
                low, high = here.y + here.height / 4, there.y - there.height / 4
                _arrow(axes, [(here.left, low), (x, low), (x, high), (there.left, high)])
            else:
                _arrow(axes, [(here.x, here.y + here.height / 2), (there.x, there.y - there.height / 2)])
    for tap, node in enumerate(nodes):
        if node.kind == "tap":
            here, there = boxes[node.inputs[0]], boxes[tap]
            _arrow(axes, [(here.right, there.y), (there.left, there.y)], _TAP)


def _draw_decoder_edges(axes: Axes, nodes: Sequence[Node], layout: Layout) -> None:
    """Draw lines from taps by way of a gutter, and those from box to box along the column of the first."""
    boxes = layout.boxes
    taps = [n for n, node in enumerate(nodes) if node.kind == "tap"]
    for n, there in boxes.items():
        if nodes[n].kind not in ("module", "operation", "logits"):
            continue
        below = [m for m in nodes[n].inputs if nodes[m].kind != "tap" and boxes[m].lane == there.lane]
        beside = sorted((m for m in nodes[n].inputs if m not in below), key=lambda m: boxes[m].y)
        for m in below:
            _arrow(axes, [(there.x, boxes[m].y - boxes[m].height / 2), (there.x, there.y + there.height / 2)])
        for index, m in enumerate(beside):
            here = boxes[m]
            y = there.y + there.height * ((index + 1) / (len(beside) + 1) - 0.5)
            if len(beside) == 1 and abs(here.y - there.y) < there.height / 3:
                y = here.y  # a straight line
            if nodes[m].kind == "tap":
                x = here.right + GAP + LINES * (len(taps) - 1 - taps.index(m))
                _arrow(axes, [(here.right, here.y), (x, here.y), (x, y), (there.left, y)], _TAP)
            else:
                side = there.left if here.x < there.x else there.right
                _arrow(axes, [(here.x, here.y - here.height / 2), (here.x, y), (side, y)])


def _draw_phase(axes: Axes, graph: ModelGraph, layout: Layout, phase: PhaseColumn, number: int, top: float) -> None:
    """Draw the column of a phase beside the backbone and beside the decoder."""
    for begin in layout.phases:
        x = begin + CELL * (number + 0.5)
        axes.text(x, top - 0.08, _short(phase.name), fontsize=SMALL, rotation=90, ha="center", va="bottom")
    for n, node in enumerate(graph.nodes):
        if node.kind == "tap":
            continue
        box, down = layout.boxes[n], node.kind in ("image", "block")
        x = layout.phases[0 if down else 1] + CELL * number
        total = sum(graph.counts[name] for name in node.parameters)
        if total:
            training = sum(graph.counts[name] for name in node.parameters if name in phase.trains)
            colour = _TRAINS if training == total else _PARTLY if training else _FROZEN
            corner, height = (x + 0.02, box.top + 0.02), box.bottom - box.top - 0.04
            axes.add_patch(Rectangle(corner, CELL - 0.04, height, facecolor=colour, linewidth=0))
            if 0 < training < total:
                text = _percent(training / total)
                axes.text(x + CELL / 2, box.y, text, fontsize=SMALL - 1, ha="center", va="center")
        if phase.stop is not None and graph.stops.get(phase.stop) == n:
            axes.plot([x + CELL / 2], [box.bottom - 0.13 if down else box.top + 0.13], **_STOP)


def _short(name: str) -> str:
    """Return a phase's name as its column shows it; the legend has it whole."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else ">99%" if share > 0.99 else f"{share:.0%}"


def _legend(graph: ModelGraph, phases: Sequence[PhaseColumn]) -> list[str]:
    """Return a line per phase."""
    total = sum(graph.counts.values())
    lines = []
    for phase in phases:
        trains = sum(graph.counts[name] for name in phase.trains)
        stop = f"; gradients stop at {phase.stop}" if phase.stop else ""
        lines.append(f"{phase.name}: {trains:,} of {total:,} parameters train{stop}")
    return lines


def _draw_legend(axes: Axes, lines: Sequence[str], y: float, *, stops: bool) -> None:
    x = MARGIN
    entries = [(_TRAINS, "trains"), (_PARTLY, "part of it trains"), (_FROZEN, "frozen")]
    for colour, text in [*entries, ("", "gradients stop in it")][: 4 if stops else 3]:
        if colour:
            axes.add_patch(Rectangle((x, y - 0.07), 0.22, 0.14, facecolor=colour, linewidth=0))
        else:
            axes.plot([x + 0.11], [y], **_STOP)
        axes.text(x + 0.3, y, text, fontsize=SMALL, va="center_baseline")
        x += 0.3 + text_width(text, SMALL) + 1.5 * GAP
    for index, line in enumerate(lines, start=1):
        axes.text(MARGIN, y + index * _LEGEND_ROW, line, fontsize=SMALL, va="center_baseline")
