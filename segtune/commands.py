"""The commands, from checked settings on."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from segtune import checkpoint, distributed
from segtune.build import BuiltModel, build_start, look_for_data, rebuild
from segtune.compute import Compute, choose_compute
from segtune.config import EvaluateSettings, Interrupted, PlanSettings, Settings, UserError
from segtune.console import banner, print_table, say, set_up_logging, shown
from segtune.data.pairs import Pair
from segtune.engine import fit
from segtune.evaluate import load_splits, read_groups, score, subject_of
from segtune.phases import plan_phases
from segtune.plan import Facts, brief, cost_of, cost_table, estimated, everything, facts, measured, tensor_lines
from segtune.records import claim, kept_command, read_rows, write_json
from segtune.report import Source


def train(settings: Settings, folder: Path, command: str = "") -> dict[str, Any]:
    """Train, or go on training, evaluate the best model on the validation pictures, and return the run's summary.

    `command` is the line that does this again; it is kept with the settings.

    Raises:
        UserError: Settings, data or weights cannot be used, or another process trains in the folder.
        Interrupted: The user stopped the run.
    """
    set_up_logging()
    if settings.train.batch_size < distributed.world():
        raise UserError(
            f"train.batch_size={settings.train.batch_size} is the batch of all {distributed.world()} processes "
            "together: each needs a picture of it. Give a larger one."
        )
    compute = choose_compute(settings.train)
    with distributed.together(compute.device):
        folder = distributed.on_first(lambda: folder)
        with claim(folder, resume=settings.resume is not None):
            last = folder / "checkpoints" / "last.pt"
            begun = distributed.on_first(lambda: settings.resume is not None and last.exists())
            resumed = checkpoint.load(last) if begun else None
            if resumed and not {"movers", "state"} <= resumed.keys():
                raise UserError(f"{last} holds no optimizer to go on with: it is not what this run wrote there last.")
            distributed.on_first(lambda: look_for_data(settings.data, settings.seed, settings.train.workers))
            torch.manual_seed(settings.seed)
            built = rebuild(resumed, settings) if resumed else _start(settings, folder)
            splits = load_splits(settings.data, settings.seed, settings.train)
            read_groups(settings.data, splits["val"])  # what is wrong with it should not be found at the end
            say(
                f"{settings.backbone.name} + {settings.decoder.name} on {compute}; {len(splits['train'])} pictures to "
                f"train, {len(splits['val'])} to validate; run folder {shown(folder)}"
            )
            try:
                summary = fit(replace(settings, resume=None), built, splits, folder, compute, resumed, command)
            except Interrupted as error:
                raise Interrupted(
                    f"Stopped; everything is saved. To go on: python -m segtune train resume={shown(folder)}"
                ) from error
            say(
                f"Best validation Dice {summary['val_dice']:.4f} in epoch {summary['best_epoch']}, "
                f"after {summary['seconds']:.0f} s."
            )
            try:
                _conclude(settings, folder, splits["val"], compute, summary)
            except KeyboardInterrupt as error:
                raise Interrupted(
                    f"The run is complete but for its report; for that: python -m segtune train resume={shown(folder)}"
                ) from error
    say(f"Everything is in {shown(folder)}; the model is checkpoints/best.pt, report.html shows what it learned.")
    return summary


def _conclude(
    settings: Settings, folder: Path, pairs: Sequence[Pair], compute: Compute, summary: dict[str, Any]
) -> None:
    """Evaluate the best model on the validation pictures, and report what the run has done."""
    best = folder / "checkpoints" / "best.pt"
    content = checkpoint.load(best)
    as_usual = EvaluateSettings(str(best), replace(settings.data, split="val"), settings.train)
    subject = subject_of(as_usual, str(best), content, compute)
    rows = distributed.on_first(lambda: read_rows(folder / "metrics.csv"))
    command = distributed.on_first(lambda: kept_command(folder))
    score(subject, pairs, folder, Source(command, asdict(settings), subject.model.features, summary, rows))


def _start(settings: Settings, folder: Path) -> BuiltModel:
    """Build the model a run begins with, and report what is restored from elsewhere."""
    built = build_start(settings)
    if len(set(distributed.gather(built.weights.source is None))) > 1:
        raise UserError("Some processes found pretrained weights, others none. Give a file that all can read.")
    if built.restored:
        for line in built.restored.lines():
            say(line)
        say(f"All names will be in {shown(folder / 'restore.json')}.")
    return built


def plan(settings: PlanSettings) -> list[Facts]:
    """Show what each phase trains, freezes and costs, without data and before any training.

    Raises:
        UserError: The settings cannot be used, or a phase cannot be trained.
    """
    set_up_logging()
    torch.manual_seed(settings.seed)
    compute = choose_compute(settings.train)
    built = build_start(settings)
    built.model.to(compute.device).to(memory_format=torch.channels_last)
    height, width = settings.data.size
    say(
        f"{settings.backbone.name} + {settings.decoder.name} on {compute}, "
        f"batches of {settings.train.batch_size} pictures of {height} x {width} pixels"
    )
    shown, wholes = [], dict[str, Facts]()
    for number, phase in enumerate(plan_phases(settings, built), start=1):
        of_phase = facts(built, phase, settings, compute)
        banner(f"phase {number}/{len(settings.freeze.phases)}: {phase.name}", brief(of_phase, phase.settings))
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
        write_json(Path(settings.output).expanduser(), {"phases": shown})
        say(f"Written to {settings.output}.")
    return shown
