"""What the charts plot, by hand; that they are well-formed drawings in the page's colour."""

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from segtune.metrics.curves import THRESHOLDS
from segtune.reporting import charts

CURVES: dict[str, Any] = {
    "dice": [0.5] * len(THRESHOLDS),
    "precision": [0.9, 0.8, 0.4],
    "recall": [0.1, 0.6, 1.0],
    "average_precision": 0.75,
    "calibration": {
        "error": 0.125,
        "pixels": [10, 0, 30],
        "probability": [0.1, None, 0.9],
        "share": [0.2, None, 0.7],
    },
}
FACTS: dict[str, Any] = {
    "curves": CURVES,
    "threshold": 0.5,
    "recall": 0.6,
    "precision": 0.8,
    "tuned": {"chosen_on": "val", "threshold": 0.43},
}
HISTORY = [
    {"epoch": epoch, "phase": phase, "val_dice": dice, "train_loss": 1 - dice, "val_loss": 1.2 - dice}
    for epoch, phase, dice in [(1, "head", 0.2), (2, "head", 0.5), (3, "all", 0.4)]
]
GROUPS = [
    {"group": "small", "images": 9, "dice_mean": 0.5, "interval": [0.4, 0.6]},
    {"group": "large", "images": 2, "dice_mean": None, "interval": [None, None]},
]


@pytest.fixture
def axes_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that calls a chart and returns the axes it has drawn on instead of SVG."""

    def plot(draw: Callable[[Any], None], *_: object, title: str = "") -> Any:
        axes = Figure().subplots()
        axes.set_title(title)
        draw(axes)
        return axes

    def call(chart: Callable[..., Any], *arguments: object) -> Any:
        monkeypatch.setattr(charts, "svg", plot)
        return chart(*arguments)

    return call


def lines(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    """Return the points of each line by its label."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_training_shows_each_column_of_the_metrics(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(charts.training_chart, HISTORY, 2)
    found = lines(axes)
    assert found["validation Dice"] == ([1, 2, 3], [0.2, 0.5, 0.4])
    assert found["training loss"][1] == pytest.approx([0.8, 0.5, 0.6])
    assert found["validation loss"][1] == pytest.approx([1.0, 0.7, 0.8])
    assert [2, 2] in [list(line.get_xdata()) for line in axes.lines]  # the best epoch
    assert [(shade.get_x(), shade.get_width()) for shade in axes.patches] == [(0.5, 2), (2.5, 1)]  # the phases
    assert [text.get_text() for text in axes.texts] == ["head", "all"]


def test_thresholds_in_use_and_chosen_are_marked(axes_of: Callable[..., Any]) -> None:
    curves = CURVES | {"dice": [None, *([0.5] * (len(THRESHOLDS) - 1))]}
    found = lines(axes_of(charts.threshold_chart, FACTS | {"curves": curves}))
    assert found["in use: 0.5"][0] == [0.5, 0.5]
    assert found["best on val: 0.43"][0] == [0.43, 0.43]
    (plotted,) = [ys for xs, ys in found.values() if len(xs) == len(THRESHOLDS)]
    assert np.isnan(plotted).tolist() == [True] + [False] * (len(THRESHOLDS) - 1)
    assert len(lines(axes_of(charts.threshold_chart, FACTS | {"tuned": None}))) == 2


def test_precision_by_recall_has_the_point_of_the_threshold(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(charts.precision_recall_chart, FACTS)
    assert lines(axes)["threshold 0.5"] == ([0.6], [0.8])
    assert axes.get_title() == "Precision by recall, average precision 0.750"
    assert axes.get_ylim()[0] == 0.4  # the lowest precision is in sight
    without = FACTS | {"precision": None, "curves": CURVES | {"average_precision": None}}
    axes = axes_of(charts.precision_recall_chart, without)
    assert len(axes.lines) == 1
    assert axes.get_title() == "Precision by recall"


def test_calibration_leaves_empty_ranges_out(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(charts.calibration_chart, FACTS)
    assert [list(line.get_xdata()) for line in axes.lines] == [[0, 1], [0.1, 0.9]]
    assert [list(line.get_ydata()) for line in axes.lines] == [[0, 1], [0.2, 0.7]]
    assert axes.get_title() == "Calibration, expected error 0.125"


def test_the_histogram_counts_every_image_once(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(charts.dice_chart, [0.0, 0.01, 0.52, 0.97, 1.0])
    heights = {round(bar.get_x(), 2): bar.get_height() for bar in axes.patches if bar.get_height()}
    assert heights == {0.0: 2, 0.5: 1, 0.95: 2}


def test_groups_without_scores_have_a_name_and_no_point(axes_of: Callable[..., Any]) -> None:
    axes = axes_of(charts.group_chart, "object size", GROUPS)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["small (9)", "large (2)"]
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.4, 0.6], [0.5]]
    assert axes.yaxis_inverted()


@pytest.mark.parametrize(
    ("chart", "arguments", "words"),
    [
        (charts.training_chart, (HISTORY, 2), {"epoch", "validation Dice", "head", "all"}),
        (charts.threshold_chart, (FACTS,), {"Dice by threshold", "best on val: 0.43"}),
        (charts.precision_recall_chart, (FACTS,), {"recall", "precision"}),
        (charts.calibration_chart, (FACTS,), {"predicted probability", "fraction of foreground pixels"}),
        (charts.dice_chart, ([0.5, 0.7],), {"images"}),
        (charts.group_chart, ("<$x$>", GROUPS), {"By <$x$>", "small (9)"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_drawings_are_svg_with_words_in_the_pages_colour(
    chart: Callable[..., str], arguments: tuple[Any, ...], words: set[str]
) -> None:
    svg = chart(*arguments)
    root = ElementTree.fromstring(svg)  # well-formed, with names escaped
    found = {"".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert words <= found
    assert "currentColor" in svg
    assert charts._INK not in svg
    assert svg == chart(*arguments)  # no date and no random names
