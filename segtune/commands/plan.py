"""The command `plan`: show what each phase trains, freezes and costs, without data."""

import torch
from rich.table import Table

from segtune.config.command_settings import PlanSettings
from segtune.config.schema import RunSettings
from segtune.models.build import BuiltModel
from segtune.models.start import ASSUMED, build_start, check_pretrained
from segtune.runtime.console import print_table, say, set_up_logging
from segtune.runtime.device import Device, resolve_device
from segtune.runtime.files import write_json
from segtune.runtime.paths import expanded
from segtune.training.phase_summary import Facts, announce, cost_of, estimated, everything, facts, measured
from segtune.training.phases import Phase, plan_phases


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
    compute.place(built.model)
    height, width = settings.data.size
    say(
        f"{settings.backbone.name} + {settings.decoder.name} on {compute}, "
        f"batches of {settings.train.batch_size} images of {height} x {width} pixels"
    )
    shown, wholes = [], dict[str, Facts]()
    phases = plan_phases(settings, built)
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
        if settings.details:
            say("\n".join(tensor_lines(built, phase, settings, compute)))
        shown.append({"phase": phase.name} | of_phase)
    if settings.output:
        write_json(expanded(settings.output, "output"), {"phases": shown})
        say(f"Wrote {settings.output}.")
    return shown


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


def tensor_lines(built: BuiltModel, phase: Phase, settings: RunSettings, compute: Device) -> list[str]:
    """Return a line per parameter: whether it trains in a phase, and the bytes of its optimizer state."""
    owning = cost_of(built, phase, settings, compute).optimizer_tensors
    named = dict(built.model.named_parameters())
    wide = max(map(len, named))
    lines = []
    for name, parameter in named.items():
        shape = " x ".join(map(str, parameter.shape))
        state = f"trains, {owning[name]:,} B of optimizer state" if name in owning else "frozen"
        lines.append(f"{name:<{wide}}  {shape:>20}  {state}")
    return lines
