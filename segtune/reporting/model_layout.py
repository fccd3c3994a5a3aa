"""Where the boxes of a model's picture stand: the backbone downwards, the decoder upwards beside it, in inches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from segtune.models.model_graph import Node, shape_text

#: Sizes of letters, in points.
SIZE, SMALL = 9.0, 8.0
#: The margin around a picture and between its parts, the width of a phase, and the distance of parallel lines.
MARGIN, GAP, CELL, LINES = 0.3, 0.2, 0.36, 0.14
_ROW, _LOW_ROW, _BETWEEN = 0.72, 0.54, 0.26


@dataclass(frozen=True)
class Box:
    """A rectangle around `x`, `y`, in a row from `top` to `bottom`; y grows downwards. `lane` as in `lanes`."""

    x: float
    y: float
    width: float
    height: float
    top: float
    bottom: float
    lane: int = 0

    @property
    def left(self) -> float:
        """Its left side."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """Its right side."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Layout:
    """The box of each node, where the phases' columns begin beside the backbone and the decoder, and the whole size."""

    boxes: Mapping[int, Box]
    phases: tuple[float, float]
    width: float
    height: float


def text_lines(nodes: Sequence[Node], counts: Mapping[str, int], n: int) -> list[str]:
    """Return what stands in a node's box; the first line is its name."""
    node = nodes[n]
    shape = shape_text(node.shape)
    match node.kind:
        case "operation":
            return [f"{node.name}  {shape}"]
        case "tap":
            return [f"{node.name}: {node.label}", shape]
        case "logits" if node.inputs and (before := nodes[node.inputs[0]].shape) != node.shape:
            return ["logits", f"{shape}, resized from {shape_text(before)}"]
    parameters = sum(counts[name] for name in node.parameters)
    name = node.name.removeprefix("decoder.") + (f": {node.label}" if node.label else "")
    return [name, f"{shape}, {parameters:,} parameters" if parameters else shape]


@cache
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a line of text."""
    return float(TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight)).get_extents().width) / 72


def lay_out(nodes: Sequence[Node], counts: Mapping[str, int], phases: int, top: float) -> Layout:
    """Return where all nodes stand, below `top`, with columns for some phases at both sides."""
    sizes = {}
    for n in range(len(nodes)):
        first, *others = text_lines(nodes, counts, n)
        wide = max(text_width(first, SIZE, "bold"), *(text_width(line, SMALL) for line in others), 0.0)
        sizes[n] = wide + GAP
    trunk = [n for n, node in enumerate(nodes) if node.kind in ("image", "block")]
    taps = [n for n, node in enumerate(nodes) if node.kind == "tap"]
    rows = decoder_rows(nodes)
    of_block = {n: [tap for tap in taps if n in nodes[tap].inputs] for n in trunk}
    heights = [_ROW * max(1, len(of_block[n])) for n in trunk]
    low = [_LOW_ROW if nodes[n].kind == "operation" else _ROW for n in rows]
    total = max(sum(heights), sum(low))
    # From left to right: phases, backbone, taps, a gutter for the taps' lines, decoder, phases.
    boxes: dict[int, Box] = {}
    x = MARGIN + phases * CELL + GAP + LINES * len(skips(nodes, trunk))
    wide = max(sizes[n] for n in trunk)
    for n, (begin, end) in zip(trunk, spread(heights, top, total), strict=True):
        height = (end - begin if len(of_block[n]) > 1 else _ROW) - _BETWEEN
        boxes[n] = Box(x + wide / 2, (begin + end) / 2, wide, height, begin, end)
        ends = spread([1.0] * len(of_block[n]), begin, end - begin)
        for tap, (above, below) in zip(of_block[n], ends, strict=True):
            boxes[tap] = Box(0, (above + below) / 2, 0, _ROW - _BETWEEN, above, below)
    x += wide + 2 * GAP
    wide = max(sizes[n] for n in taps)
    boxes |= {n: replace(boxes[n], x=x + wide / 2, width=wide) for n in taps}
    x += wide + GAP + LINES * len(taps) + GAP
    columns = lanes(nodes, rows)
    wide = max(sizes[n] for n in rows)
    pitch = wide / 2 + GAP  # so that a line along a column passes beside the boxes of the others
    spine = x + wide / 2 + pitch * max(columns.values())
    spans = spread(low[::-1], top, total)[::-1]
    for n, (begin, end) in zip(rows, spans, strict=True):
        width = sizes[n] if nodes[n].kind == "operation" else wide
        height = (_LOW_ROW if nodes[n].kind == "operation" else _ROW) - _BETWEEN
        boxes[n] = Box(spine - pitch * columns[n], (begin + end) / 2, width, height, begin, end, columns[n])
    right = spine + wide / 2 + GAP
    return Layout(boxes, (MARGIN, right), right + phases * CELL + MARGIN, top + total)


def skips(nodes: Sequence[Node], trunk: Sequence[int]) -> list[tuple[int, int]]:
    """Return the edges between blocks of the backbone that are not neighbours."""
    follows = dict(zip(trunk[1:], trunk, strict=False))
    return [(m, n) for n in trunk for m in nodes[n].inputs if follows.get(n) != m]


def decoder_rows(nodes: Sequence[Node]) -> list[int]:
    """Return the decoder's nodes and the logits from bottom to top, each above all that it reads.

    Coarse maps come first, then what reads the one below, then what reads deeper taps.
    """
    left = {n for n, node in enumerate(nodes) if node.kind in ("module", "operation", "logits")}
    rows: list[int] = []
    while left:
        below = set(rows[-1:])
        ready = {n: nodes[n].inputs for n in sorted(left) if not left & set(nodes[n].inputs)}
        order = {
            n: (prod(nodes[n].shape[1:]), not below & set(reads), -max(reads, default=0)) for n, reads in ready.items()
        }
        rows.append(min(order, key=order.__getitem__))
        left.remove(rows[-1])
    return rows


def lanes(nodes: Sequence[Node], rows: Sequence[int]) -> dict[int, int]:
    """Return the column of each row's node, from 0 to the left.

    A node keeps its column until its last reader stands above it: a line from it up to there passes no other box.
    """
    readers = {n: {m for m in rows if n in nodes[m].inputs} for n in rows}
    lane: dict[int, int] = {}
    held: dict[int, int] = {}  # columns, and the node that keeps each
    for place, n in enumerate(rows):
        done = [column for column, holder in held.items() if readers[holder] <= set(rows[: place + 1])]
        held = {column: holder for column, holder in held.items() if column not in done}
        lane[n] = min(done) if done else next(column for column in range(len(rows)) if column not in held)
        held[lane[n]] = n
    return lane


def spread(heights: Sequence[float], begin: float, total: float) -> list[tuple[float, float]]:
    """Return the spans that divide a length in proportion to some heights, in order."""

    def spans() -> Iterator[tuple[float, float]]:
        at = begin
        for height in heights:
            yield at, (at := at + height * total / sum(heights))

    return list(spans())
