"""The tables of a model, by hand."""

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from segtune.models.model_text import Layer
from segtune.reporting.model_tables import (
    PhaseColumn,
    layer_facts,
    layer_tables,
    ranges,
    tensor_tables,
    totals_table,
)

LAYERS = [
    Layer("backbone.conv", "Conv2d", (8, 32, 16), ("backbone.conv.weight", "backbone.conv.bias")),
    Layer("backbone.act", "ReLU", (8, 32, 16), ()),
    Layer("backbone.drop", "Identity", (8, 32, 16), ()),
    Layer("scale", "TapScale", "dict", ()),
    Layer("decoder.gamma", "Module", None, ("decoder.gamma.scale",)),
]
COUNTS = {"backbone.conv.weight": 6000, "backbone.conv.bias": 2000, "decoder.gamma.scale": 1}
PHASES = [
    PhaseColumn("head", {"decoder.gamma.scale"}),
    PhaseColumn("bias", {"decoder.gamma.scale", "backbone.conv.bias"}),
    PhaseColumn("all", set(COUNTS)),
]


def cells(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_facts_of_layers() -> None:
    facts = layer_facts(LAYERS, COUNTS, PHASES, details=False)
    assert [layer["layer"] for layer in facts] == ["backbone.conv", "decoder.gamma"]
    assert facts[0] == {
        "layer": "backbone.conv",
        "type": "Conv2d",
        "shape": [8, 32, 16],
        "parameters": 8000,
        "trains": {"head": 0, "bias": 0.25, "all": 1},
    }
    assert layer_facts(LAYERS, COUNTS, PHASES, details=True)[1]["trains"] == {}


def test_layers_with_a_column_per_phase_or_with_their_numbers() -> None:
    facts = layer_facts(LAYERS, COUNTS, PHASES, details=True)
    wide, compact, numbers, narrow = layer_tables(facts, ["head", "bias", "all"])
    assert [column.header for column in wide.columns][4:] == ["head", "bias", "all"]
    assert cells(wide) == [
        ["backbone.conv", "Conv2d", "8 x 32 x 16", "8,000", "-", "in part", "yes"],
        ["backbone.act", "ReLU", "8 x 32 x 16", "", "", "", ""],
        ["decoder.gamma", "Parameter", "", "1", "yes", "yes", "yes"],
    ]
    assert cells(compact) == cells(wide)
    assert cells(numbers)[0] == ["conv", "Conv2d", "8 x 32 x 16", "8,000", "2-3"]
    assert [row[-1] for row in cells(narrow)] == ["2-3", "", "1-3"]
    assert cells(narrow)[2][0] == "decoder.gamma\n  Parameter"
    console = Console(file=StringIO(), width=10_000)
    widths = [console.measure(table).maximum for table in (wide, compact, numbers, narrow)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("numbers", "text"), [([], "-"), ([2], "2"), ([1, 2], "1-2"), ([1, 3, 4, 5, 9], "1, 3-5, 9")])
def test_neighbouring_numbers_are_joined(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


def test_totals_are_in_megabytes() -> None:
    assert cells(totals_table({"parameters": {"values": 12_345_678, "bytes": 49_382_712}})) == [
        ["parameters", "12,345,678", "49.4"]
    ]


def test_tensors() -> None:
    tensors = [
        {"name": "conv.weight", "shape": [8, 3, 3, 3], "state": "trains", "optimizer_bytes": 1728},
        {"name": "conv.bias", "shape": [8], "state": "frozen", "optimizer_bytes": 0},
        {"name": "bn.running_mean", "shape": [8], "state": "changes"},
        {"name": "bn.num_batches_tracked", "shape": [], "state": "frozen"},
    ]
    wide, compact = tensor_tables(tensors)
    assert cells(wide) == [
        ["conv.weight", "8 x 3 x 3 x 3", "trains", "1,728 B"],
        ["conv.bias", "8", "frozen", ""],
        ["bn.running_mean", "8", "changes", ""],
        ["bn.num_batches_tracked", "", "frozen", ""],
    ]
    assert cells(compact)[0][1] == "8x3x3x3"
