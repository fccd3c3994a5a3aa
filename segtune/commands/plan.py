"""The command `plan`: show what each phase trains, freezes and costs, without data."""

from collections.abc import Collection, Sequence

import torch
from rich.table import Table
from torch import Tensor

from segtune.config.command_settings import PlanSettings
from segtune.models.build import BuiltModel
from segtune.models.model_graph import trace_model
from segtune.models.model_text import list_layers
from segtune.models.start import ASSUMED, build_start, check_pretrained
from segtune.reporting.model_plot import draw_model
from segtune.reporting.model_tables import PhaseColumn, layer_facts, layer_tables, tensor_tables, totals_table
from segtune.runtime.console import print_table, say, set_up_logging
from segtune.runtime.device import resolve_device
from segtune.runtime.files import write_json
from segtune.runtime.paths import expanded
from segtune.training.batch_size import with_batch_size
from segtune.training.feature_plan import feature_facts, feature_line
from segtune.training.phase_summary import (
    Facts,
    announce,
    cost_of,
    estimated,
    everything,
    facts,
    measured,
    own_scale_lines,
)
from segtune.training.phases import Phase, plan_phases
from segtune.training.tensor_facts import tensor_facts, trained


def plan(settings: PlanSettings) -> list[Facts]:
    """Show what each phase trains, freezes and costs, and return these facts.

    Raises:
        UserError: The settings cannot be used, or a phase cannot be trained.
    """
    set_up_logging()
    torch.manual_seed(settings.seed)
    compute = resolve_device(settings.train)
    built = build_start(settings, assume_pretrained=True)
    for line in built.restored.lines() if built.restored else ():
        say(line)
    check_pretrained(built, settings)
    if built.weights.source == ASSUMED:
        say(f"Pretrained weights are assumed (backbone.weights={settings.backbone.weights}): no value is needed here.")
    phases = plan_phases(settings, built)
    settings = with_batch_size(settings, built, phases, compute, None)
    compute.place(built.model)
    height, width = settings.data.size
    say(
        f"{settings.backbone.name} + {settings.decoder.name} on {compute}, "
        f"batches of {settings.train.images_per_batch} images of {height} x {width} pixels"
    )
    for line in own_scale_lines(settings):
        say(line)
    shown, wholes = [], dict[str, Facts]()
    whole_model = show_model(settings, built, phases)
    for number, phase in enumerate(phases, start=1):
        of_phase = facts(built, phase, settings, compute)
        announce(phases, number, of_phase)
        optimizer, whole = of_phase["optimizer"], everything(phase)
        if optimizer not in wholes:  # the same for all phases with this optimizer
            wholes[optimizer] = estimated(cost_of(built, whole, settings, compute))
            if settings.measure:
                say("measuring a step that trains everything …")
                wholes[optimizer] |= measured(whole, settings)
        if settings.measure:
            say(f"measuring a step of {phase.name} …")
            of_phase |= measured(phase, settings)
        of_phase["everything"] = wholes[optimizer]
        print_table(cost_table(of_phase))
        of_phase["features"] = feature_facts(built, phase, settings, compute)
        say(feature_line(of_phase["features"], phase, settings, of_phase["step_flops"]))
        if settings.details:
            of_phase["tensors"] = tensor_facts(built, phase, settings, compute)
            print_table(*tensor_tables(of_phase["tensors"]))
        shown.append({"phase": phase.name} | of_phase)
    if settings.output:
        write_json(expanded(settings.output, "output"), {"phases": shown} | whole_model)
        say(f"Wrote {settings.output}.")
    return shown


def show_model(settings: PlanSettings, built: BuiltModel, phases: Sequence[Phase]) -> Facts:
    """List the layers of the whole model, draw it, if the settings ask for it, and return what is listed."""
    found: Facts = {}
    columns = [PhaseColumn(phase.name, trained(built, phase), phase.settings.stop_gradient) for phase in phases]
    if settings.summary:
        counts = {name: parameter.numel() for name, parameter in built.model.named_parameters()}
        layers = list_layers(built.model, settings.data.size)
        found["layers"] = layer_facts(layers, counts, columns, details=settings.details)
        found["totals"] = totals(built, columns)
        print_table(*layer_tables(found["layers"], [phase.name for phase in phases]))
        print_table(totals_table(found["totals"]))
        if not settings.details:
            say("Shapes are for one image. details=true also lists layers without parameters, and every tensor.")
    if settings.picture:
        height, width = settings.data.size
        title = f"{settings.backbone.name} + {settings.decoder.name} for images of {height} x {width} pixels"
        graph = trace_model(built, settings.data.size)
        draw_model(expanded(settings.picture, "picture"), title, graph, columns)
        say(f"Wrote {settings.picture}.")
    return found


def totals(built: BuiltModel, phases: Sequence[PhaseColumn]) -> dict[str, dict[str, int]]:
    """Return the number of values and the bytes of all parameters and buffers, and of what trains in each phase."""

    def of(tensors: Collection[Tensor]) -> dict[str, int]:
        return {"values": sum(t.numel() for t in tensors), "bytes": sum(t.nbytes for t in tensors)}

    named = dict(built.model.named_parameters())
    found = {"parameters": of(named.values()), "buffers": of(list(built.model.buffers()))}
    for phase in phases:
        found[f"trainable in {phase.name}"] = of([p for name, p in named.items() if name in phase.trains])
        found[f"non-trainable in {phase.name}"] = of([p for name, p in named.items() if name not in phase.trains])
    return found


def cost_table(of_phase: Facts) -> Table:
    """Return a table of the costs of a step, beside those of a step that trains everything."""
    table = Table("a step", "this phase", "everything", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, key, unit, scale in (
        ("computation, estimated", "step_flops", "GFLOP", 1e9),
        ("memory, estimated", "step_bytes", "MB", 1e6),
        ("time, measured", "measured_seconds", "s", 1),
        ("memory, measured", "measured_bytes", "MB", 1e6),
    ):
        here, there = of_phase.get(key), of_phase["everything"].get(key)
        if here is not None and there:
            digits = ".2f" if unit == "s" else ",.0f"
            numbers = [f"{value / scale:{digits}} {unit}" for value in (here, there)]
            table.add_row(name, *numbers, f"{here / there:.0%}")
    return table
