"""The command `train`: train, evaluate the best model, and report."""

import gc
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from segtune.config.data_settings import FOUND, of_earlier_run
from segtune.config.schema import Settings
from segtune.config.training_settings import TrainSettings
from segtune.data.record import DataRecord
from segtune.data.sources.base import Pair
from segtune.data.splits import load_splits, look_for_data
from segtune.errors import Interrupted, StoppedError, UserError, WriteError
from segtune.evaluation.scoring import EvaluatedModel, read_groups, score
from segtune.evaluation.selection import predicted_kind, score_of
from segtune.models.build import BuiltModel
from segtune.models.checkpoint import Checkpoint
from segtune.models.start import build_start, check_pretrained
from segtune.reporting.evaluation_tables import show
from segtune.reporting.wording import number
from segtune.runtime import distributed
from segtune.runtime.allocator import kept_memory
from segtune.runtime.console import say, set_up_logging, shown
from segtune.runtime.cores import worker_count
from segtune.runtime.device import Device, resolve_device
from segtune.runtime.files import read_rows
from segtune.runtime.memory import memory_advice
from segtune.runtime.paths import expanded, refuse_data_folder
from segtune.runtime.sweep_files import remove_failure
from segtune.runtime.versions import environment
from segtune.training.batch_size import AUTO, with_batch_size
from segtune.training.loop import fit
from segtune.training.phase_summary import announce, facts, own_scale_lines
from segtune.training.phases import Phase, plan_phases
from segtune.training.repeated import differences, outcome
from segtune.training.resume_rules import check_data, check_settings
from segtune.training.run_folder import EVALUATED, TRAINED, check_run_folder, lock_run_folder, read_command
from segtune.training.tracking import check_trackers

log = logging.getLogger(__name__)


def train(settings: Settings, folder: Path, command: str = "", *, unless_finished: bool = False) -> dict[str, Any]:
    """Train or resume a run, evaluate its best model on the validation images, and return the run's summary.

    `command` is the command line that repeats the run; it is saved with the settings. With `unless_finished` a run that
    is complete stays as it is.

    Raises:
        UserError: Settings, data or weights cannot be used, or another process trains in the folder.
        Interrupted: The user stopped the run.
    """
    set_up_logging()
    gc.collect()  # the network of an earlier job in this process refers to itself and would keep the GPU's memory
    _check_train(settings.train)
    compute = resolve_device(settings.train)
    with kept_memory(enabled=compute.device.type == "cpu"), distributed.process_group(compute.device):
        folder = distributed.on_rank_zero(lambda: folder)
        if settings.resume is None:
            refuse_data_folder(folder, settings.data.root)
        if settings.cache.folder:
            refuse_data_folder(expanded(settings.cache.folder, "cache.folder"), settings.data.root, "cache.folder")
        with lock_run_folder(folder, resume=settings.resume is not None), _stop_told(folder):
            resumed = _last_of(folder) if settings.resume is not None else None
            if resumed:
                settings = _as_before(settings, resumed, folder)
            if unless_finished and resumed and (done := _finished(settings, folder, resumed)):
                say(f"The run in {shown(folder)} is finished; there is nothing to do. {_best(done)}")
                remove_failure(folder)
                return done
            settings = _with_data(settings, resumed)
            torch.manual_seed(settings.seed)
            built = resumed.rebuild(settings) if resumed else _start(settings, folder)
            splits = load_splits(settings.data, settings.seed, settings.train)
            if resumed:
                _check_same_data(resumed, splits, settings.data.root)
            read_groups(settings.data, splits["val"])  # finds its errors before training
            phases = plan_phases(settings, built)
            of_epoch = len(splits["train"]) * settings.augment.crops_per_image
            settings = with_batch_size(settings, built, phases, compute, of_epoch)
            say("\n".join([_first_line(settings, compute, splits, folder), *own_scale_lines(settings)]))
            try:
                with memory_advice(settings.train, settings.data.size, compute, "fewer blocks that train (plan)"):
                    summary = _fit(settings, built, phases, splits, folder, compute, resumed, command)
            except Interrupted as error:
                raise Interrupted(
                    f"{str(error) or 'Stopped; everything is saved.'} "
                    f"To resume: python -m segtune train resume={shown(folder)}"
                ) from error
            except (StoppedError, WriteError) as error:
                raise type(error)(f"{error}\n{_saved(folder)}") from error
            say(_best(summary))
            try:
                _conclude(settings, folder, splits["val"], compute, summary)
            except KeyboardInterrupt as error:
                raise Interrupted(
                    f"The run is complete except for its report: python -m segtune train resume={shown(folder)}"
                ) from error
    if distributed.rank() == 0:
        remove_failure(folder)  # of an attempt before this one
    say(f"The run is in {shown(folder)}: the model is checkpoints/best.pt, its report is report.html.")
    return summary


def _check_train(settings: TrainSettings) -> None:
    """Check that every process gets an image of each batch, with `auto` it does, and what trackers need.

    Raises:
        UserError: One gets none, or a tracker is not installed.
    """
    check_trackers(settings.trackers)
    batch_size = settings.batch_size
    if isinstance(batch_size, int) and batch_size < distributed.world():
        raise UserError(
            f"train.batch_size={batch_size} is shared by {distributed.world()} processes, "
            f"and each needs an image; expected {distributed.world()} or more."
        )


def _first_line(settings: Settings, compute: Device, splits: Mapping[str, Sequence[Pair]], folder: Path) -> str:
    """Return the line on what a run trains, with what, on what, and where."""
    workers = worker_count(settings.train.workers, compute.device)
    return (
        f"{settings.backbone.name} + {settings.decoder.name} on {compute}, {workers} "
        f"worker{'' if workers == 1 else 's'}; {len(splits['train'])} training images, "
        f"{len(splits['val'])} validation images; run folder {shown(folder)}"
    )


def _as_before(settings: Settings, resumed: Checkpoint, folder: Path) -> Settings:
    """Return the settings of a resumed run, with what it has found where they say nothing: batch size, data layout.

    Raises:
        UserError: They have changed.
    """
    if settings.train.batch_size == AUTO:
        settings = replace(settings, train=replace(settings.train, batch_size=resumed.settings.train.batch_size))
    found = of_earlier_run(settings.data, asdict(resumed.settings.data), FOUND)
    settings = replace(settings, data=replace(settings.data, **found))
    check_settings(asdict(resumed.settings), asdict(settings), str(folder / "config.yaml"))
    return settings


def _last_of(folder: Path) -> Checkpoint | None:
    """Return the checkpoint from which a run resumes; None if the run ended before it wrote the first one.

    Raises:
        UserError: It cannot be used, or `best.pt`, which the run needs at its end, is gone.
    """
    last, best = (folder / "checkpoints" / name for name in ("last.pt", "best.pt"))
    there = distributed.on_rank_zero(lambda: [path.exists() for path in (last, best)])
    if there == [False, True]:
        raise UserError(
            f"{last} is missing, so the run cannot be resumed. A new run can begin with the weights of its best epoch: "
            f"restore.checkpoint={best}."
        )
    if not there[0]:
        return None
    resumed = Checkpoint.load(last)
    if resumed.state is None or resumed.optimizer is None:
        raise UserError(f"{last} has no optimizer state, so the run cannot be resumed: this run did not write it.")
    if resumed.state.best_epoch:
        if not there[1]:
            raise UserError(
                f"{best} is missing: it holds epoch {resumed.state.best_epoch}, the best so far, and the run ends "
                f"with its evaluation. Put it back, or begin a new run with the weights of the last epoch: "
                f"restore.checkpoint={last}."
            )
        Checkpoint.load(best)  # so that damage is noticed now, and not after hours of training
    return resumed


def _with_data(settings: Settings, resumed: Checkpoint | None) -> Settings:
    """Return the settings completed by how the data are kept, which is said; a resumed run keeps its own."""
    data = distributed.on_rank_zero(lambda: look_for_data(settings.data, settings.seed, settings.train.workers))
    return settings if resumed else replace(settings, data=data)


def _check_same_data(resumed: Checkpoint, splits: Mapping[str, Sequence[Pair]], root: str) -> None:
    """Check that a run resumes with the data that it began with.

    Raises:
        UserError: They have changed.
    """
    if resumed.data is None:  # of an earlier version
        say(f"{resumed.name} has no record of its data, so it is not checked that they are the same.")
        return
    check_data(DataRecord.parse(resumed.data, resumed.name).splits, DataRecord.of(splits).splits, root)


def _fit(
    settings: Settings,
    built: BuiltModel,
    phases: Sequence[Phase],
    splits: Mapping[str, Sequence[Pair]],
    folder: Path,
    compute: Device,
    resumed: Checkpoint | None,
    command: str,
) -> dict[str, Any]:
    """Describe each phase, and train; of a run that repeats another, say what differs."""
    compute.place(built.model)
    repeats = Path(settings.repeat) if settings.repeat and distributed.rank() == 0 else None
    if repeats and not resumed:
        for line in differences(repeats, splits, environment(compute)):
            log.warning("%s", line)
    summary = fit(
        replace(settings, resume=None, repeat=None),
        built,
        phases,
        lambda phase: facts(built, phase, settings, compute),
        splits,
        folder,
        compute,
        resumed,
        command,
        partial(announce, phases),
    )
    if repeats:
        say(outcome(repeats, folder))
    return summary


def _conclude(
    settings: Settings, folder: Path, pairs: Sequence[Pair], compute: Device, summary: dict[str, Any]
) -> None:
    """Evaluate the best model on the validation images, and write the run's report.

    Raises:
        FailedError: The run's folder has been deleted.
    """
    from segtune.reporting.evaluation_report import Source, publish  # its charts take matplotlib, needed here only

    check_run_folder(folder, TRAINED)
    best = folder / "checkpoints" / "best.pt"
    data = replace(settings.data, split="val")
    with memory_advice(settings.train, data.evaluation_size, compute, tiles=data.eval_tile is not None):
        model = compute.place(Checkpoint.load(best).rebuild().model)
        evaluated = EvaluatedModel(str(best), model, data, settings.train, settings.loss, compute)
        rows = distributed.on_rank_zero(lambda: read_rows(folder / "metrics.csv"))
        command = distributed.on_rank_zero(lambda: read_command(folder))
        scored = score(evaluated, pairs)
    if scored is None:
        return
    source = Source(command, asdict(settings), model.features, summary, rows)
    publish(
        folder, scored.facts, scored.rows, source, lambda chosen: evaluated.predict_samples([pairs[i] for i in chosen])
    )
    check_run_folder(folder, (*TRAINED, *EVALUATED))
    show(scored.facts)
    say(f"Wrote evaluation.json, per_image.csv and report.html to {shown(folder)}.")


@contextmanager
def _stop_told(folder: Path) -> Iterator[None]:
    """Say what is left of a run that is stopped outside its steps, where it cannot be saved."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as error:
        resume = f"python -m segtune train resume={shown(folder)}"
        if (folder / "checkpoints" / "last.pt").exists():
            raise Interrupted(f"Stopped. Everything after the last save is lost. To resume: {resume}") from error
        begin = resume if (folder / "config.yaml").exists() else "the same command"
        raise Interrupted(f"Stopped before the first step, so there is nothing to save. To begin: {begin}") from error


def _finished(settings: Settings, folder: Path, last: Checkpoint) -> dict[str, Any] | None:
    """Return the summary of a run if it is complete with these settings, otherwise None."""

    def read() -> dict[str, Any] | None:
        if last.state is None or last.state.step or last.settings.freeze != settings.freeze:
            return None
        if not all((folder / name).is_file() for name in (*TRAINED, *EVALUATED)):
            return None
        try:
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            same = len(last.state.rows) == summary["epochs"] and list(summary["phases"]) == list(settings.freeze.phases)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
        return summary if same else None

    return distributed.on_rank_zero(read)


def _saved(folder: Path) -> str:
    """Return the sentence on what is left of a run that has failed."""
    if not (folder / "checkpoints" / "last.pt").is_file():
        return "Nothing is saved yet."
    return f"The last save is good. To go on from it: python -m segtune train resume={shown(folder)}"


def _best(summary: Mapping[str, Any]) -> str:
    """Return the sentence on the best epoch."""
    score, epoch, seconds = score_of(summary), summary["best_epoch"], f"after {summary['seconds']:.0f} s"
    if math.isnan(score):
        return f"No validation image has an object, so no epoch is the best: best.pt is the last, {epoch}, {seconds}."
    if kind := predicted_kind(summary.get("val_predicted"), score):
        return f"No epoch is any good: in the best one, {epoch}, {kind} is predicted ({seconds})."
    others = f" over the images with an object ({number(summary['val_dice'])} over all)"
    others = "" if score == summary["val_dice"] else others
    return f"Best validation Dice {score:.4f}{others} in epoch {epoch}, {seconds}."


def _start(settings: Settings, folder: Path) -> BuiltModel:
    """Return the initial model of a run, and report what was restored from another checkpoint."""
    built = build_start(settings)
    if len(set(distributed.gather(built.weights.source is None))) > 1:
        raise UserError(
            "Only some processes found pretrained weights. Set backbone.weights to a file that all can read."
        )
    for line in built.restored.lines() if built.restored else ():
        say(line)
    check_pretrained(built, settings)
    if built.restored:
        say(f"{shown(folder / 'restore.json')} will list all names.")
    return built
