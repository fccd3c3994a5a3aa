"""The commands, from checked settings on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.table import Table

from segtune import checkpoint, distributed
from segtune.build import BuiltModel, build_loss, build_splits, build_start, rebuild
from segtune.compute import choose_compute
from segtune.config import (
    OF_THE_CHECKPOINT,
    DataSettings,
    EvaluateSettings,
    Interrupted,
    PlanSettings,
    Settings,
    TrainSettings,
    UserError,
    known,
    parse,
)
from segtune.console import banner, console, counting, say, set_up_logging
from segtune.data.pairs import Pair
from segtune.engine import fit
from segtune.evaluation import Evaluator
from segtune.metrics import per_image
from segtune.phases import plan_phases
from segtune.plan import Facts, brief, cost_of, cost_table, estimated, everything, facts, measured, tensor_lines
from segtune.records import claim, write_csv, write_json


def train(settings: Settings, folder: Path) -> dict[str, Any]:
    """Train, or go on training, and return the run's summary.

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
    torch.manual_seed(settings.seed)
    compute = choose_compute(settings.train)
    with distributed.together(compute.device):
        folder = distributed.on_first(lambda: folder)
        with claim(folder, resume=settings.resume is not None):
            last = folder / "checkpoints" / "last.pt"
            begun = distributed.on_first(lambda: settings.resume is not None and last.exists())
            resumed = checkpoint.load(last) if begun else None
            if resumed and not {"movers", "state"} <= resumed.keys():
                raise UserError(f"{last} holds no optimizer to go on with: it is not what this run wrote there last.")
            built = rebuild(resumed, settings) if resumed else _start(settings, folder)
            splits = _splits(settings.data, settings.seed, settings.train)
            say(
                f"{settings.backbone.name} + {settings.decoder.name} on {compute}; {len(splits['train'])} pictures to "
                f"train, {len(splits['val'])} to validate; run folder {_shown(folder)}"
            )
            try:
                summary = fit(replace(settings, resume=None), built, splits, folder, compute, resumed)
            except Interrupted as error:
                raise Interrupted(
                    f"Stopped; everything is saved. To go on: python -m segtune train resume={_shown(folder)}"
                ) from error
    say(
        f"Best validation Dice {summary['val_dice']:.4f} in epoch {summary['best_epoch']}, "
        f"after {summary['seconds']:.0f} s. "
        f"Everything is in {_shown(folder)}; the model is checkpoints/best.pt, pictures are in samples/."
    )
    return summary


def _splits(data: DataSettings, seed: int, train: TrainSettings, *, whole: bool = False) -> dict[str, list[Pair]]:
    """Find and check the data, once for all processes."""

    def find() -> dict[str, list[Pair]]:
        with counting("preparing the data") as progress:
            return build_splits(data, seed, train.workers, progress, whole=whole)

    return distributed.on_first(find)


def _start(settings: Settings, folder: Path) -> BuiltModel:
    """Build the model a run begins with, and report what is restored from elsewhere."""
    built = build_start(settings)
    if len(set(distributed.gather(built.weights.source is None))) > 1:
        raise UserError("Some processes found pretrained weights, others none. Give a file that all can read.")
    if built.restored:
        for line in built.restored.lines():
            say(line)
        say(f"All names will be in {_shown(folder / 'restore.json')}.")
    return built


def evaluate(settings: EvaluateSettings, folder: Path) -> dict[str, Any]:
    """Measure a checkpoint on a split; write `evaluation.json` and `per_image.csv` and return the former.

    Raises:
        UserError: The checkpoint or the data cannot be used.
    """
    set_up_logging()
    content = checkpoint.load(Path(settings.checkpoint).expanduser())
    trained = parse(Settings, content["settings"])
    compute = choose_compute(settings.train)
    seen = replace(trained.data, image_size=trained.data.eval_size or trained.data.image_size)
    data = _filled(settings.data, seen, OF_THE_CHECKPOINT["data"])
    options = _filled(settings.train, trained.train, OF_THE_CHECKPOINT["train"])
    seed = trained.seed if settings.seed is None else settings.seed
    with distributed.together(compute.device):
        splits = _splits(data, seed, settings.train, whole=data.split == "all")
        pairs = splits[data.split]
        if not pairs:
            there = ", ".join(f"{name} {len(split)}" for name, split in splits.items())
            raise UserError(f"data.split={data.split}: there are no pictures in it. There are: {there}.")
        model = rebuild(content, trained).model.to(compute.device).to(memory_format=torch.channels_last)
        result = Evaluator(pairs, data, options, build_loss(trained.loss), compute)(model)
    assert result is not None  # nobody asked it to stop
    scores = asdict(result.scores)
    report = scores | {
        "loss": result.loss,
        "split": data.split,
        "checkpoint": str(settings.checkpoint),
        "data": data.root,
        "image_size": list(data.evaluation_size),
        "threshold": options.threshold,
        "empty": options.empty,
    }
    each = per_image(result.counts, known(options.empty))
    rows = [
        {"name": pair.name}
        | {name: round(values[i].item(), 6) for name, values in each.items()}
        | dict(zip(("tp", "fp", "fn", "tn"), result.counts[i].tolist(), strict=True))
        for i, pair in enumerate(pairs)
    ]
    if distributed.rank() == 0:
        write_json(folder / "evaluation.json", report)
        write_csv(folder / "per_image.csv", rows)
    _show(scores, data.split)
    say(
        f"Threshold {options.threshold:g}; a picture without foreground counts by the rule '{options.empty}'. "
        f"evaluation.json and per_image.csv are in {_shown(folder)}."
    )
    return report


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
        console.print(cost_table(of_phase))
        if settings.details:
            say("\n".join(tensor_lines(built, phase, settings, compute)))
        shown.append({"phase": phase.name} | of_phase)
    if settings.output:
        write_json(Path(settings.output).expanduser(), {"phases": shown})
        say(f"Written to {settings.output}.")
    return shown


T = TypeVar("T", DataSettings, TrainSettings)


def _filled(given: T, trained: T, names: Sequence[str]) -> T:
    """Take the settings of the training where none are given."""
    taken = {name: getattr(trained, name) for name in names if getattr(given, name) is None}
    return parse(type(given), asdict(given) | taken)


def _show(scores: Mapping[str, Any], split: str) -> None:
    table = Table(
        title=f"{split}: {scores['images']} pictures, {scores['empty_images']} without foreground", title_justify="left"
    )
    for heading in ("", "Dice", "IoU", "precision", "recall"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("mean over pictures", f"{scores['dice_mean']:.4f}", f"{scores['iou_mean']:.4f}", "", "")
    pooled = (scores[name] for name in ("dice_pooled", "iou_pooled", "precision", "recall"))
    table.add_row("all pixels pooled", *(f"{value:.4f}" for value in pooled))
    console.print(table)


def _shown(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
