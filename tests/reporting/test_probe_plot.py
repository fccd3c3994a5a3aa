"""The drawing of a probe: Dice by depth, alone and together."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from torch import nn

from segtune.models.backbones.spec import BackboneSpec
from segtune.models.layer_info import BackboneSummary, LayerInfo
from segtune.reporting import probe_plot
from segtune.reporting.probe_plot import draw_probe

#: Stride and multiply-adds of each layer, in the order of computation.
LAYERS = {"a": (2, 10), "b": (4, 20), "c": (4, 40), "d": (8, 80), "head": (8, 100)}
ALONE = {"d": 0.4, "a": 0.2, "c": 0.5, "b": 0.3}  # in any order; head is no candidate


def summary() -> BackboneSummary:
    layers = tuple(
        LayerInfo(name, "", "all", 1, stride, 8, 8, (1, 1), False, 0, macs, True)
        for name, (stride, macs) in LAYERS.items()
    )
    spec = BackboneSpec("tiny", nn.Identity, "tiny", (0.5,) * 3, (0.5,) * 3, {})
    count = len(layers)
    return BackboneSummary(spec, layers, 0, 100, tuple(LAYERS), np.ones(count, np.int64), np.eye(count, dtype=np.int64))


def drawn(monkeypatch: pytest.MonkeyPatch, together: dict[str, float], chosen: tuple[str, ...]) -> Axes:
    figures = []
    monkeypatch.setattr(probe_plot, "save_figure", lambda figure, _: figures.append(figure))
    draw_probe(Path("probe.png"), summary(), ALONE, together, chosen, "title")
    return figures[0].axes[0]


def test_candidates_stand_in_the_order_of_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, {}, ("c",))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c", "d"]
    assert list(axes.lines[0].get_ydata()) == [0.2, 0.3, 0.5, 0.4]
    assert axes.get_title() == "title"


def test_markers_have_the_colour_of_the_stride_and_grow_with_the_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, {}, ("c",))
    found = {str(group.get_label()): group for group in axes.collections}
    assert list(found) == ["alone, stride 2", "alone, stride 4", "alone, stride 8"]
    assert found["alone, stride 4"].get_offsets().tolist() == [[1, 0.3], [2, 0.5]]
    assert found["alone, stride 4"].get_sizes().tolist() == [30 + 300 * 0.2, 30 + 300 * 0.4]
    for stride, group in zip((2, 4, 8), found.values(), strict=True):
        np.testing.assert_allclose(group.get_facecolor()[0], probe_plot.colour_of(stride))


def test_the_search_for_a_second_tap_is_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, {"a": 0.6, "b": 0.55}, ("a", "c"))
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith("together")]
    assert line.get_label() == "together with c"
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 1], [0.6, 0.55])
    dotted = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert dotted == [0, 2]  # the recommended taps


def test_a_figure_is_written(tmp_path: Path) -> None:
    draw_probe(tmp_path / "probe.svg", summary(), ALONE, {"a": 0.6}, ("a", "c"), "a $ in a title")
    assert (tmp_path / "probe.svg").read_bytes().startswith(b"<?xml")
