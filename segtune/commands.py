"""The commands, from checked settings on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.table import Table

from segtune import checkpoint
from segtune.backbones import LoadedWeights
from segtune.build import BuiltModel, build_loss, build_model, build_splits, model_from_checkpoint
from segtune.compute import choose_compute
from segtune.config import (
    OF_THE_CHECKPOINT,
    DataSettings,
    EvaluateSettings,
    Interrupted,
    Settings,
    TrainSettings,
    UserError,
    known,
    parse,
)
from segtune.console import console, counting, say, set_up_logging
from segtune.engine import fit
from segtune.evaluation import Evaluator
from segtune.metrics import per_image
from segtune.records import start_run_folder, write_csv, write_json


def train(settings: Settings, folder: Path) -> dict[str, Any]:
    """Train, or go on training, and return the run's summary.

    Raises:
        UserError: Settings, data or weights cannot be used.
        Interrupted: The user stopped the run.
    """
    set_up_logging()
    torch.manual_seed(settings.seed)
    compute = choose_compute(settings.train)
    resumed = checkpoint.load(folder / "checkpoints" / "last.pt") if settings.resume else None
    with counting("preparing the data") as progress:
        splits = build_splits(settings.data, settings.seed, settings.train.workers, progress)
    built = (
        _resumed_model(settings, resumed)
        if resumed
        else build_model(settings.backbone, settings.taps, settings.decoder)
    )
    if not resumed:
        start_run_folder(folder, asdict(settings))
    say(
        f"{settings.backbone.name} + {settings.decoder.name} on {compute}; "
        f"{len(splits['train'])} pictures to train, {len(splits['val'])} to validate; run folder {_shown(folder)}"
    )
    try:
        summary = fit(settings, built, splits, folder, compute, resumed)
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
    with counting("preparing the data") as progress:
        splits = build_splits(data, seed, settings.train.workers, progress, whole=data.split == "all")
    pairs = splits[data.split]
    if not pairs:
        raise UserError(
            f"data.split={data.split}: there are no pictures in it. There are: "
            + ", ".join(f"{k} {len(v)}" for k, v in splits.items())
            + "."
        )
    model = model_from_checkpoint(content, trained).to(compute.device).to(memory_format=torch.channels_last)
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
    write_json(folder / "evaluation.json", report)
    write_csv(folder / "per_image.csv", rows)
    _show(scores, data.split)
    say(
        f"Threshold {options.threshold:g}; a picture without foreground counts by the rule '{options.empty}'. "
        f"evaluation.json and per_image.csv are in {_shown(folder)}."
    )
    return report


T = TypeVar("T", DataSettings, TrainSettings)


def _filled(given: T, trained: T, names: Sequence[str]) -> T:
    """Take the settings of the training where none are given."""
    return replace(given, **{name: getattr(trained, name) for name in names if getattr(given, name) is None})


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


def _resumed_model(settings: Settings, content: Mapping[str, Any]) -> BuiltModel:
    fresh = build_model(replace(settings.backbone, weights="none"), settings.taps, settings.decoder)
    fresh.model.load_state_dict(content["model"])
    weights = LoadedWeights(content["weights"]["source"])
    return BuiltModel(fresh.model, fresh.blocks, weights, tuple(content["weights"]["new"]))


def _shown(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
