"""The drawing of a backbone holds its blocks, strides and taps, in the file's format."""

import re
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from torch import nn

from segtune.errors import UserError
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.layer_info import BackboneSummary, LayerInfo
from segtune.reporting import network_plot
from segtune.reporting.network_plot import colour_of, draw_network, save_figure

BLOCKS = ("stem", "deep")


def layer(name: str, block: str, stride: int, field: int, macs: int = 0) -> LayerInfo:
    return LayerInfo(
        name, "", block, 8 * stride, stride, 64 // stride, 64 // stride, (field, field), False, 0, macs, True
    )


def summary() -> BackboneSummary:
    layers = (
        layer("conv1", "stem", 2, 3),
        layer("act1", "stem", 2, 3),
        layer("conv2", "deep", 4, 7),
        layer("act2", "deep", 4, 7),
    )
    spec = BackboneSpec("tiny", nn.Identity, "tiny", (0.5,) * 3, (0.5,) * 3, dict.fromkeys(BLOCKS, ()))
    names = tuple(layer.name for layer in layers)
    return BackboneSummary(spec, layers, 0, 4, names, np.ones(4, np.int64), np.tri(4, dtype=np.int64))


def test_colours_darken_with_the_stride() -> None:
    brightness = [sum(colour_of(stride)[:3]) for stride in (1, 2, 4, 8, 16, 32, 64)]
    assert all(finer > coarser for finer, coarser in pairwise(brightness))
    assert colour_of(3) == colour_of(2)  # the nearest one
    assert colour_of(1000) == colour_of(64)


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    figures = []
    monkeypatch.setattr(network_plot, "save_figure", lambda figure, _: figures.append(figure))
    found = summary()
    draw_network(tmp_path / "net.svg", found, {"low": found.layers[1], "high": found.layers[2]}, (48, 64))
    return figures[0]


def test_blocks_and_taps_are_named(drawn: Figure) -> None:
    strip, field_axes = drawn.axes
    assert strip.get_title(loc="left") == "tiny for images of 48 x 64 pixels"
    assert [text.get_text() for text in strip.texts] == [
        "stem\nstride 2\n16 channels",
        "deep\nstride 4\n32 channels",
        "low: act1\nstride 2, 16 channels",
        "high: conv2\nstride 4, 32 channels",
    ]
    assert [text.get_text() for text in field_axes.texts] == ["image size"]


def test_receptive_fields_are_plotted_against_the_image_size(drawn: Figure) -> None:
    fields, size, *taps = drawn.axes[1].lines
    assert list(fields.get_xdata()) == [0, 1, 2, 3]
    assert list(fields.get_ydata()) == [3, 3, 7, 7]
    assert set(size.get_ydata()) == {64}  # the longer side
    assert [line.get_xdata()[0] for line in taps] == [1, 2]


def test_blocks_shrink_with_the_stride_and_fade_behind_the_last_tap(tmp_path: Path, drawn: Figure) -> None:
    stem, deep = drawn.axes[0].patches
    assert (stem.get_x(), stem.get_width(), deep.get_x(), deep.get_width()) == (-0.5, 2, 1.5, 2)
    assert stem.get_height() > deep.get_height()
    assert (stem.get_alpha(), deep.get_alpha()) == (1, 1)
    found, figures = summary(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_plot, "save_figure", lambda figure, _: figures.append(figure))
        draw_network(tmp_path / "net.svg", found, {"low": found.layers[1]}, (64, 64))
    assert [bar.get_alpha() for bar in figures[0].axes[0].patches] == [1, 0.25]


@pytest.mark.parametrize(("name", "begin"), [("a.png", b"\x89PNG\r"), ("a.SVG", b"<?xml"), ("a.pdf", b"%PDF-")])
def test_the_extension_is_the_format(tmp_path: Path, name: str, begin: bytes) -> None:
    save_figure(Figure(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begin)
    assert [path.name for path in tmp_path.iterdir()] == [name]  # no temporary file


def test_another_extension_is_refused(tmp_path: Path) -> None:
    expected = re.escape(f"{tmp_path / 'net.gif'}: expected a file name that ends in .png, .svg or .pdf.")
    with pytest.raises(UserError, match=f"^{expected}$"):
        save_figure(Figure(), tmp_path / "net.gif")
    assert not list(tmp_path.iterdir())


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    found = summary()
    draw_network(tmp_path / "net.png", found, {"high": found.layers[3]}, (64, 64))
    assert dict(mpl.rcParams) == before
