"""The picture of a model: no text is cut or covers another, and colours say what trains."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Annotation, Text

from segtune.errors import UserError
from segtune.models.model_graph import ModelGraph, Node
from segtune.reporting.model_plot import draw_model, model_figure
from segtune.reporting.model_tables import PhaseColumn
from tests.conftest import slow
from tests.reporting.test_model_layout import random_graph

COUNTS = {"stem.weight": 864, "deep.weight": 200_000, "deep.bias": 600, "score.weight": 65}
NODES = [
    Node("image", "image", "", (3, 64, 64)),
    Node("block", "stem", "", (32, 32, 32), ("stem.weight",), [0]),
    Node("block", "deep", "", (64, 8, 8), ("deep.weight", "deep.bias"), [1, 0]),
    Node("tap", "low", "stem.conv.with.a.rather.long.name", (32, 32, 32), (), [1]),
    Node("tap", "mid", "deep.conv", (64, 8, 8), (), [2]),
    Node("tap", "high", "deep.act", (64, 8, 8), (), [2]),
    Node("module", "decoder.score", "Conv2d", (1, 8, 8), ("score.weight",), [5, 4]),
    Node("operation", "resize", "", (1, 32, 32), (), [6]),
    Node("operation", "concat", "", (33, 32, 32), (), [7, 3]),
    Node("logits", "logits", "", (1, 64, 64), (), [8]),
]
GRAPH = ModelGraph(NODES, COUNTS, {"deep.conv": 2, "decoder.score": 6})
PHASES = [
    PhaseColumn("head", {"score.weight"}, "deep.conv"),
    PhaseColumn("a_phase_with_a_long_name", {"deep.bias", "score.weight"}, "decoder.score"),
    PhaseColumn("all", set(COUNTS)),
]


def texts(figure: Figure) -> dict[Text, mpl.transforms.Bbox]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = [text for text in figure.axes[0].texts if text.get_text() and not isinstance(text, Annotation)]
    return {text: text.get_window_extent(canvas.get_renderer()) for text in shown}


def patches(figure: Figure, kind: type) -> list:
    return [patch for patch in figure.axes[0].patches if type(patch) is kind]


def covers(one: mpl.transforms.Bbox, other: mpl.transforms.Bbox) -> bool:
    return one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1


def check(figure: Figure) -> None:
    found = texts(figure)
    edge = figure.bbox
    for text, box in found.items():
        assert edge.x0 < box.x0 < box.x1 < edge.x1, text
        assert edge.y0 < box.y0 < box.y1 < edge.y1, text
    for (one, here), (other, there) in combinations(found.items(), 2):
        assert not covers(here, there), (one, other)
    boxes = [patch.get_window_extent() for patch in patches(figure, FancyBboxPatch)]
    for text, here in found.items():
        for box in boxes:  # text is inside a box or outside, not across its edge
            inside = box.x0 < here.x0 and here.x1 < box.x1 and box.y0 < here.y0 and here.y1 < box.y1
            assert inside or not covers(box, here), text


def test_nothing_is_cut_or_covered() -> None:
    check(model_figure("backbone + decoder for images of 64 x 64 pixels", GRAPH, PHASES))


@pytest.mark.parametrize("seed", [0, slow(1), slow(2), slow(3)])
def test_nothing_is_cut_or_covered_in_other_models(seed: int) -> None:
    graph = ModelGraph(random_graph(seed), {"weight": 10}, {})
    check(
        model_figure("a title " * (1 + 10 * seed), graph, [PhaseColumn(f"phase{n}", ()) for n in range(1 + 5 * seed)])
    )


def columns(figure: Figure, phases: int) -> tuple[list[list[str]], list[list[str]]]:
    """Return the colours of each phase's cells from top to bottom, beside the backbone and beside the decoder."""
    cells = sorted((round(p.get_x(), 3), p.get_y(), to_hex(p.get_facecolor())) for p in patches(figure, Rectangle)[:-3])
    places = sorted({x for x, _, _ in cells})
    assert len(places) == 2 * phases
    colours = [[colour for x, _, colour in cells if x == place] for place in places]
    return colours[:phases], colours[phases:]


def test_colours_say_what_trains() -> None:
    figure = model_figure("a model", GRAPH, PHASES)
    trains, partly, frozen = (to_hex(patch.get_facecolor()) for patch in patches(figure, Rectangle)[-3:])
    assert len({trains, partly, frozen}) == 3
    backbone, decoder = columns(figure, 3)
    assert backbone == [[frozen, frozen], [frozen, partly], [trains, trains]]
    assert decoder == [[trains], [trains], [trains]]
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert "<1%" in shown  # 600 of 200,600
    assert "head: 65 of 201,529 parameters train; gradients stop at deep.conv" in shown
    assert "all: 201,529 of 201,529 parameters train" in shown


def test_any_name_of_a_phase_is_drawn() -> None:
    long = "phase_" * 20
    usual, figure = (model_figure("a model", GRAPH, [PhaseColumn(name, set(COUNTS))]) for name in ("a" * 24, long))
    assert figure.get_figheight() < usual.get_figheight() + 1
    shown = [text.get_text() for text in texts(figure)]
    assert shown.count("phase_phase_phase_phase…") == 2
    assert any(text.startswith(f"{long}: ") for text in shown)
    texts(model_figure("a model", GRAPH, [PhaseColumn(r"costs $\frac$", set(COUNTS))]))


def grey(colour: str) -> float:
    red, green, blue = mpl.colors.to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_what_trains_is_darker_in_grey() -> None:
    trains, partly, frozen = (
        to_hex(p.get_facecolor()) for p in patches(model_figure("a model", GRAPH, PHASES), Rectangle)[-3:]
    )
    assert grey(trains) + 0.3 < grey(partly) < grey(frozen)


def marks(figure: Figure) -> list[tuple[float, float]]:
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "X"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def test_gradient_stops_are_marked_in_their_cells() -> None:
    figure = model_figure("a model", GRAPH, PHASES)
    cells = patches(figure, Rectangle)[:-3]
    *stops, legend = marks(figure)
    within = [
        [i for i, p in enumerate(cells) if 0 < x - p.get_x() < p.get_width() and 0 < y - p.get_y() < p.get_height()]
        for x, y in stops
    ]
    # Cells are drawn phase by phase: stem, deep, score.
    assert within == [[1], [5]]
    assert legend[1] > max(y for _, y in stops)
    assert marks(model_figure("a model", GRAPH, PHASES[2:])) == []
    assert "gradients stop in it" not in [
        t.get_text() for t in model_figure("a model", GRAPH, PHASES[2:]).axes[0].texts
    ]


def ends(figure: Figure) -> Sequence[tuple[float, float]]:
    return [text.xy for text in figure.axes[0].texts if isinstance(text, Annotation)]


def test_there_is_an_arrow_for_each_edge() -> None:
    assert len(ends(model_figure("a model", GRAPH, PHASES))) == sum(len(node.inputs) for node in NODES)


@pytest.mark.parametrize(("name", "begin"), [("a.png", b"\x89PNG\r"), slow("a.svg", b"<?xml"), slow("a.pdf", b"%PDF-")])
def test_the_extension_is_the_format(tmp_path: Path, name: str, begin: bytes) -> None:
    draw_model(tmp_path / name, "a model", GRAPH, PHASES)
    assert (tmp_path / name).read_bytes().startswith(begin)
    with pytest.raises(UserError, match=r"model.gif: expected a file name that ends in .png, .svg or .pdf"):
        draw_model(tmp_path / "model.gif", "a model", GRAPH, PHASES)
