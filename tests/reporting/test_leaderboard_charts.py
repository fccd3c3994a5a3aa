"""What the charts of a leaderboard plot; that they are well-formed drawings in the page's colour."""

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from segtune.reporting import charts, leaderboard_charts
from segtune.reporting.effects import Effect, Level
from segtune.reporting.leaderboard_charts import CostPoint, cost_chart, curves_chart, effect_chart, logarithmic

NAMED = Effect(
    "a & b", (Level("<x>", 1, 0.5, None), Level("", 2, 0.7, None)), (("<x>", 0.5), ("", 0.6), ("", 0.8)), None
)
RATES = Effect(
    "lr", tuple(Level(f"{r:g}", 1, 0.5 + r, (r, r)) for r in (0.001, 0.01, 0.1)), (("0.001", 0.4), ("0.1", 0.6)), None
)
RANGES = Effect(
    "p", (Level("0 to 0.2", 2, 0.5, (0.0, 0.2)), Level("0.3 to 0.4", 2, 0.6, (0.3, 0.4))), (("0.1", 0.4),), None
)
POINTS = [CostPoint(1, 9.0, 0.9, True), CostPoint(2, 5.0, 0.8, True), CostPoint(3, 7.0, 0.7, False)]


@pytest.fixture
def axes_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that calls a chart and returns the axes it has drawn on instead of SVG."""

    def plot(draw: Callable[[Any], None], *_: object) -> Any:
        axes = Figure(layout="constrained").subplots()
        draw(axes)
        return axes

    def call(chart: Callable[..., Any], *arguments: object) -> Any:
        monkeypatch.setattr(leaderboard_charts, "svg", plot)
        return chart(*arguments)

    return call


def points(axes: Any) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_seeds_have_one_colour_and_one_name(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(curves_chart, [("1: a", [[0.1, 0.2], [0.3]]), ("2: b", [[0.4, 0.5]])], [[0.05]])
    assert points(axes) == [([1], [0.05]), ([1, 2], [0.1, 0.2]), ([1], [0.3]), ([1, 2], [0.4, 0.5])]
    colours = [line.get_color() for line in axes.lines]
    assert colours[0] == charts.GREY
    assert colours[1] == colours[2] != colours[3]
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == ["1: a", "2: b"]


def test_one_epoch_is_a_point_one_can_see(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(curves_chart, [("a", [[0.5]])], [])
    (line,) = axes.lines
    assert line.get_marker() == "o"
    assert axes.get_xlim() == (0.5, 1.5)


def test_the_front_is_joined_and_numbered(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(cost_chart, POINTS, "minutes")
    assert points(axes) == [([7.0], [0.7]), ([5.0, 9.0], [0.8, 0.9]), ([5.0, 9.0], [0.8, 0.9])]
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("2", (5.0, 0.8)), ("1", (9.0, 0.9))]
    assert axes.get_xlabel() == "minutes"


def test_names_stand_with_their_number_of_runs_the_best_first(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(effect_chart, NAMED, (0.4, 0.9))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["default (2)", "<x> (1)"]
    assert points(axes) == [([0.6, 0.8], [0, 0]), ([0.7], [0]), ([0.5], [1]), ([0.5], [1])]
    assert axes.get_xlim() == (0.4, 0.9)
    many = Effect("a", tuple(Level(str(i), 1, i / 100, None) for i in range(40)), (), None)
    assert [label.get_text() for label in axes_of(effect_chart, many, (0, 1)).get_yticklabels()][:2] == [
        "39 (1)",
        "38 (1)",
    ]
    assert len(axes_of(effect_chart, many, (0, 1)).get_yticklabels()) == 12


def test_numbers_stand_at_their_values(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(effect_chart, RATES, (0.3, 0.7))
    runs, line, *levels = points(axes)
    assert runs == ([0.001, 0.1], [0.4, 0.6])
    assert line[0] == pytest.approx([0.001, 0.01, 0.1])
    assert [level[1][0] for level in levels] == pytest.approx([0.501, 0.51, 0.6])
    assert axes.get_ylim() == (0.3, 0.7)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]


def test_ranges_are_as_wide_as_they_are(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(effect_chart, RANGES, (0.3, 0.7))
    assert points(axes)[2:] == [([0.0, 0.2], [0.5, 0.5]), ([0.3, 0.4], [0.6, 0.6])]
    assert points(axes)[1][0] == pytest.approx([0.1, 0.35])
    assert axes.get_xscale() == "linear"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        *(([1e-4, 1e-3, 1e-2], True), ([1e-5, 3e-5, 1e-2], True), ([1, 2, 3], False), ([0, 1e-3, 1e-2], False)),
        *(([0.01, 0.12, 0.23, 0.35, 0.5], False), ([5, 5], False), ([-1, 1], False)),
    ],
)
def test_when_an_axis_is_logarithmic(values: list[float], expected: bool) -> None:
    assert logarithmic(values) is expected


@pytest.mark.parametrize(
    ("chart", "arguments", "words"),
    [
        (curves_chart, ([("$a_1$ & b", [[0.1, 0.3]])], []), {"$a_1$ & b", "epoch"}),
        (cost_chart, (POINTS, "minutes"), {"minutes", "1", "2"}),
        (effect_chart, (NAMED, (0, 1)), {"a & b", "<x> (1)"}),
        (effect_chart, (RATES, (0, 1)), {"lr", "0.001", "0.1"}),
    ],
)
def test_drawings_are_svg_with_words_in_the_pages_colour(
    chart: Callable[..., str], arguments: tuple[Any, ...], words: set[str]
) -> None:
    drawn = chart(*arguments)
    root = ElementTree.fromstring(drawn)
    found = {"".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert words <= found
    assert "currentColor" in drawn
    assert drawn == chart(*arguments)  # no date and no random names
