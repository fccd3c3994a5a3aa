"""The command `evaluate`: measure a checkpoint on a split, or compare two; write numbers and a report."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from segtune.config.command_settings import EvaluateSettings
from segtune.config.schema import DataSettings, Settings
from segtune.data.sources.base import Pair
from segtune.data.sources.folder import find_pairs
from segtune.data.splits import find_splits, load_splits
from segtune.errors import UserError, some
from segtune.evaluation.scoring import EvaluatedModel, evaluated_model, score
from segtune.evaluation.summary import Facts
from segtune.models.checkpoint import Checkpoint
from segtune.reporting.evaluation_report import Source, publish
from segtune.reporting.evaluation_tables import show
from segtune.runtime import distributed
from segtune.runtime.console import say, set_up_logging, shown
from segtune.runtime.device import resolve_device


def evaluate(settings: EvaluateSettings, folder: Path, command: str = "") -> Facts:
    """Measure a checkpoint, or compare two, on a split.

    Writes `evaluation.json`, `per_image.csv` and `report.html`, and returns the first.

    Raises:
        UserError: The checkpoint or the data cannot be used.
    """
    set_up_logging()
    given = settings.checkpoint
    names = [given] if isinstance(given, str) else list(given)
    if settings.data.name == "folder":
        find_pairs(Path(settings.data.root).expanduser())  # before anything is loaded
    checkpoints = [Checkpoint.load(name) for name in names]
    compute = resolve_device(settings.train)
    with distributed.process_group(compute.device):
        subjects = [evaluated_model(settings, checkpoint, compute) for checkpoint in checkpoints]
        first, *others = subjects
        _check_truths(subjects)
        if (folder / "config.yaml").exists() and (folder / "checkpoints").exists():
            raise UserError(f"run_dir={folder} is a run: its own report would be lost. Give another folder.")
        seed = checkpoints[0].settings.seed if settings.seed is None else settings.seed
        splits = load_splits(first.data, seed, settings.train, whole=first.data.split == "all")
        pairs = splits[first.data.split]
        if not pairs:
            there = ", ".join(f"{name} {len(split)}" for name, split in splits.items())
            raise UserError(f"data.split={first.data.split}: there are no pictures in it. There are: {there}.")
        for checkpoint in checkpoints:
            _warn_of_known(checkpoint.name, checkpoint.settings, first.data, pairs)
        tune = splits.get("val", []) if settings.tune and first.data.split != "val" else []
        source = Source(command, asdict(checkpoints[0].settings), first.model.features, None, [])
        scored = score(first, pairs, tune=tune, other=others[0] if others else None)
        if scored is None:
            return {}
        publish(
            folder, scored.facts, scored.rows, source, lambda chosen: first.predict_samples([pairs[i] for i in chosen])
        )
        show(scored.facts)
        say(f"evaluation.json, per_image.csv and report.html are in {shown(folder)}.")
        return scored.facts


def _check_truths(subjects: Sequence[EvaluatedModel]) -> None:
    """Refuse to compare models that were trained for different objects.

    Raises:
        UserError: They were, and no setting says which is meant.
    """
    truths = [f"data.foreground={subject.data.foreground} data.invert={subject.data.invert}" for subject in subjects]
    if len(set(truths)) > 1:
        raise UserError(
            f"The checkpoints were trained for different objects: {' and '.join(truths)}. To compare them all "
            "the same, "
            "say which is meant."
        )


def _warn_of_known(name: str, trained: Settings, data: DataSettings, pairs: Sequence[Pair]) -> None:
    """Say so if a model was trained on some of the pictures: without lists each seed splits a folder otherwise."""
    if data.name != trained.data.name or Path(data.root).resolve() != Path(trained.data.root).resolve():
        return
    try:
        seen = {pair.name for pair in find_splits(trained.data, trained.seed)[0]["train"]}
    except UserError:
        return  # the folder has changed since
    if known_ones := [pair.name for pair in pairs if pair.name in seen]:
        say(
            f"{name} was trained on {len(known_ones)} of these {len(pairs)} pictures ({some(known_ones)}): "
            "its scores are too good to be expected of others."
        )
