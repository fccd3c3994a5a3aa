"""The command `evaluate`: score a checkpoint on a split, or compare two; write numbers and a report."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from segtune.config.command_settings import EvaluateSettings, EvaluationDataSettings
from segtune.config.data_settings import LAYOUT, PORTRAITS_ROOT, DataSettings, of_earlier_run
from segtune.config.schema import Settings
from segtune.data.record import DataRecord
from segtune.data.sources.base import Pair
from segtune.data.splits import find_splits, load_splits, look_for_data
from segtune.errors import UserError, some
from segtune.evaluation.scoring import EvaluatedModel, evaluated_model, score
from segtune.evaluation.summary import Facts
from segtune.models.checkpoint import Checkpoint
from segtune.reporting.evaluation_report import Source, publish
from segtune.reporting.evaluation_tables import show
from segtune.runtime import distributed
from segtune.runtime.console import say, set_up_logging, shown
from segtune.runtime.device import resolve_device
from segtune.runtime.memory import memory_advice
from segtune.runtime.paths import expanded, find_data_folder, refuse_data_folder


def evaluate(settings: EvaluateSettings, folder: Path, command: str = "") -> Facts:
    """Score a checkpoint, or compare two, on a split.

    Writes `evaluation.json`, `per_image.csv` and `report.html`, and returns the content of the first.

    Raises:
        UserError: The checkpoint or the data cannot be used.
    """
    set_up_logging()
    given = settings.checkpoint
    names = [given] if isinstance(given, str) else list(given)
    if settings.data.root and settings.data.name != "portraits":
        find_data_folder(settings.data.root)  # before models are loaded
    checkpoints = [Checkpoint.load(name) for name in names]
    if not settings.data.named:
        settings = replace(settings, data=_data_of_training(settings.data, checkpoints))
    settings = replace(settings, data=_as_kept(settings.data, checkpoints[0]))
    data = settings.data.completed(checkpoints[0].settings.data)
    refuse_data_folder(folder, data.root)
    seed = checkpoints[0].settings.seed if settings.seed is None else settings.seed
    compute = resolve_device(settings.train)
    with distributed.process_group(compute.device):
        distributed.on_rank_zero(lambda: look_for_data(data, seed, settings.train.workers, whole=data.split == "all"))
        models = [evaluated_model(settings, checkpoint, compute) for checkpoint in checkpoints]
        first, *others = models
        _check_truths(models)
        if (folder / "config.yaml").exists() and (folder / "checkpoints").exists():
            raise UserError(
                f"run_dir={folder} is the folder of a training run, whose report would be overwritten. Set another."
            )
        splits = load_splits(first.data, seed, settings.train, whole=first.data.split == "all")
        pairs = splits[first.data.split]
        if not pairs:
            there = ", ".join(f"{name} {len(split)}" for name, split in splits.items())
            raise UserError(f"data.split={first.data.split} has no images. The splits: {there}.")
        for checkpoint in checkpoints:
            _warn_of_known(checkpoint, first.data, pairs)
        tune = splits.get("val", []) if settings.tune and first.data.split != "val" else []
        source = Source(command, asdict(checkpoints[0].settings), first.model.features, None, [])
        device = replace(settings.train, batch_size=first.options.batch_size)
        _say_tiles(models, given=settings.data.eval_tile is not None)
        tiles = first.data.eval_tile is not None
        with memory_advice(device, first.data.evaluation_size, compute, tiles=tiles):
            scored = score(first, pairs, tune=tune, other=others[0] if others else None)
        if scored is None:
            return {}
        publish(
            folder, scored.facts, scored.rows, source, lambda chosen: first.predict_samples([pairs[i] for i in chosen])
        )
        show(scored.facts)
        say(f"Wrote evaluation.json, per_image.csv and report.html to {shown(folder)}.")
        return scored.facts


def _say_tiles(models: Sequence[EvaluatedModel], *, given: bool) -> None:
    """Say which models see the images in tiles: those validated so, or with a `given` tile all."""
    for each in models:
        if each.data.tiles:
            origin = "" if given else ", as in its validation"
            say(f"{each.name} sees the images at their own size, {each.data.tiles}{origin}.")


def _data_of_training(given: EvaluationDataSettings, checkpoints: Sequence[Checkpoint]) -> EvaluationDataSettings:
    """Return the settings with the data set that the checkpoints were trained on.

    Raises:
        UserError: Its folder is not there, or the checkpoints were trained on different data.
    """
    if all(
        each.settings.data.name == "portraits" and each.settings.data.root == PORTRAITS_ROOT for each in checkpoints
    ):
        return replace(given, name="portraits", root=PORTRAITS_ROOT)  # drawn when missing
    roots = [_root_of(checkpoint) for checkpoint in checkpoints]
    if len({root.resolve() for root in roots}) > 1:
        places = " and ".join(f"{each.name} on {root}" for each, root in zip(checkpoints, roots, strict=True))
        raise UserError(f"The checkpoints were trained on different data: {places}. Set data.root to compare them.")
    if not os.path.isdir(roots[0]):
        raise UserError(
            f"{checkpoints[0].name} was trained on the data in {roots[0]}, which is not a folder here. "
            "Set data.root to the folder where these data are now, or to other data to evaluate on."
        )
    return replace(given, name="folder", root=str(roots[0]))


def _as_kept(given: EvaluationDataSettings, checkpoint: Checkpoint) -> EvaluationDataSettings:
    """Return the settings with how images and masks are kept, where the folder is that of the model's training."""
    if given.root is None or expanded(given.root).resolve() != _root_of(checkpoint).resolve():
        return given
    had = asdict(checkpoint.settings.data)
    if had["pairs"] and checkpoint.data:
        had["pairs"] = str(Path(DataRecord.parse(checkpoint.data, checkpoint.name).folder, expanded(had["pairs"])))
    return replace(given, **of_earlier_run(given, had, LAYOUT))


def _root_of(checkpoint: Checkpoint) -> Path:
    """Return the folder of the data that a model was trained on."""
    began = DataRecord.parse(checkpoint.data, checkpoint.name).folder if checkpoint.data else ""
    return Path(began, os.path.expanduser(checkpoint.settings.data.root)).absolute()


def _check_truths(models: Sequence[EvaluatedModel]) -> None:
    """Check that the models to compare have the same foreground and the same void.

    Raises:
        UserError: They were trained for different ones, and no setting chooses one.
    """
    truths = [
        f"data.foreground={model.data.foreground} data.invert={model.data.invert}"
        + (f" data.ignore={model.data.ignore}" if model.data.ignore else "")
        for model in models
    ]
    if len(set(truths)) > 1:
        raise UserError(
            f"The checkpoints were trained for different foregrounds: {' and '.join(truths)}. "
            "To compare them, set one of these."
        )


def _warn_of_known(checkpoint: Checkpoint, data: DataSettings, pairs: Sequence[Pair]) -> None:
    """Warn if a model was trained on some of the images, or chosen by its scores on them.

    Their contents decide, whatever their names and lists are now.
    """
    if checkpoint.data is None:
        known = {"train": _known_by_name(checkpoint.settings, data, pairs)}
    else:
        known = DataRecord.parse(checkpoint.data, checkpoint.name).known(pairs)
    for split, what in (("train", "was trained on"), ("val", "is the best epoch by its scores on")):
        if names := known.get(split):
            say(
                f"{checkpoint.name} {what} {len(names)} of these {len(pairs)} images ({some(names)}): "
                "its scores are optimistically biased."
            )


def _known_by_name(trained: Settings, data: DataSettings, pairs: Sequence[Pair]) -> list[str]:
    """Return the images that a model was trained on, for a checkpoint that does not record them."""
    roots = [expanded(each.root).resolve() for each in (data, trained.data)]
    if roots[0] != roots[1]:
        return []
    try:
        known = {pair.name for pair in find_splits(trained.data, trained.seed).splits["train"]}
    except UserError:
        return []  # the folder has changed since training
    return [pair.name for pair in pairs if pair.name in known]
