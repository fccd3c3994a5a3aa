"""The tables of a whole model: its layers, its totals, its tensors."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from segtune.models.model_graph import shape_text
from segtune.models.model_text import Layer
from segtune.runtime.console import compact_table


@dataclass(frozen=True)
class PhaseColumn:
    """A phase of training: the names of the parameters that train, and the layer at which gradients stop."""

    name: str
    trains: Collection[str]
    stop: str | None = None


def layer_facts(
    layers: Sequence[Layer], counts: Mapping[str, int], phases: Sequence[PhaseColumn], *, details: bool
) -> list[dict[str, Any]]:
    """Return the layers with parameters, or all that return a tensor with `details`, as plain values.

    `shape` is that of the output for one image, None for modules that are not called; `trains` holds the share of the
    parameters that trains, by phase. `counts` holds the number of values of each parameter.
    """
    found = []
    for layer in layers:
        own = {name: counts[name] for name in layer.parameters if name in counts}  # shared ones count once
        if not own and (not details or not isinstance(layer.returns, tuple) or layer.kind in _NO_LAYERS):
            continue
        total = sum(own.values())
        trains = {phase.name: sum(own[n] for n in own if n in phase.trains) / total for phase in phases} if own else {}
        shape = list(layer.returns) if isinstance(layer.returns, tuple) else None
        kind = "Parameter" if layer.kind == "Module" else layer.kind  # a module that tracing has left as a container
        found.append({"layer": layer.path, "type": kind, "shape": shape, "parameters": total, "trains": trains})
    return found


#: Modules that pass on what they get.
_NO_LAYERS = ("Identity", "StopGradient")


def layer_tables(layers: Sequence[Mapping[str, Any]], phases: Sequence[str]) -> Iterator[Table]:
    """Yield tables of the facts of layers, the widest first: with a column per phase, or one of the phases' numbers."""
    for table in (Table(), compact_table()):
        _add_columns(table, "layer", "type", "output shape", "parameters", *phases)
        for layer in layers:
            trains = [_WORDS.get(layer["trains"].get(phase), "in part") for phase in phases]
            table.add_row(layer["layer"], layer["type"], *_numbers(layer), *trains)
        yield table
    for headings in (("layer", "type"), ("layer\n  type",)):
        table = compact_table()
        _add_columns(table, *headings, "output\nshape", "para-\nmeters", "trains\nin phase")
        for layer in layers:
            inside = [layer["layer"].removeprefix("backbone."), layer["type"]]
            names = inside if len(headings) > 1 else ["\n  ".join(inside)]
            numbers = [number for number, phase in enumerate(phases, 1) if layer["trains"].get(phase)]
            table.add_row(*names, *_numbers(layer), ranges(numbers) if layer["parameters"] else "")
        yield table


_WORDS = {None: "", 0.0: "-", 1.0: "yes"}


def _add_columns(table: Table, *headings: str) -> None:
    for heading in headings:
        number = heading.startswith("para") or "shape" in heading
        table.add_column(heading, justify="right" if number else "left", no_wrap=number)


def _numbers(layer: Mapping[str, Any]) -> tuple[str, str]:
    return shape_text(layer["shape"] or ()), f"{layer['parameters']:,}" if layer["parameters"] else ""


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers with neighbours joined: `1, 3-5`; `-` for none."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans) or "-"


def totals_table(totals: Mapping[str, Mapping[str, int]]) -> Table:
    """Return a table of numbers of values, and their size."""
    table = Table("", "values", "MB")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, total in totals.items():
        table.add_row(name, f"{total['values']:,}", f"{total['bytes'] / 1e6:,.1f}")
    return table


def tensor_tables(tensors: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Yield tables of the facts of a phase's parameters and buffers, the widest first."""
    for table, headings, between in (
        (Table(), ("tensor", "shape", "in this phase", "optimizer state"), " x "),
        (compact_table(), ("tensor", "shape", "in this\nphase", "optimizer\nstate"), "x"),
    ):
        for heading in headings:
            right = heading.startswith(("shape", "opt"))
            table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "tensor")
        for tensor in tensors:
            size = f"{tensor['optimizer_bytes']:,} B" if tensor.get("optimizer_bytes") else ""
            table.add_row(tensor["name"], between.join(map(str, tensor["shape"])), tensor["state"], size)
        yield table
