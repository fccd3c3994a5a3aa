"""The training loop over phases and epochs."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from segtune.config.schema import Settings
from segtune.data.dataset import build_dataset
from segtune.data.loader import EpochBatches, make_loader
from segtune.data.record import DataRecord
from segtune.data.sources.base import Pair
from segtune.errors import Interrupted, Pruned
from segtune.evaluation.evaluator import Evaluation, Evaluator
from segtune.evaluation.selection import degenerate, score_of, warnings_of
from segtune.losses import build_loss
from segtune.models.build import BuiltModel
from segtune.models.checkpoint import Checkpoint
from segtune.models.model_text import layer_table
from segtune.models.progress import State
from segtune.runtime import distributed
from segtune.runtime.console import say
from segtune.runtime.cores import worker_count
from segtune.runtime.device import Device
from segtune.runtime.files import Row, write_json
from segtune.runtime.measure import peak_of, reset_peak
from segtune.runtime.versions import environment
from segtune.training.compiled import compile_network, uncompile
from segtune.training.epoch import check_steps, new_scaler, save_and_stop, train_epoch
from segtune.training.epoch_log import EpochRecorder, dice_text
from segtune.training.feature_cache import feature_source
from segtune.training.freezing import audit, train_mode
from segtune.training.invariants import check_members, check_unchanged, fingerprint
from segtune.training.optim import build_optimizer
from segtune.training.phases import Phase, enter
from segtune.training.photo_cache import reduced_photos
from segtune.training.run_folder import check_run_folder, write_settings
from segtune.training.schedules import build_schedule, check_schedule
from segtune.training.signals import stop_signals
from segtune.training.state import OnPhase, OptimState, Run, check_place, is_better, since_best
from segtune.training.step_log import StepLog
from segtune.training.tracker import Start, Status
from segtune.training.tracking import Tracking
from segtune.training.trial import Trial
from segtune.training.waiting import Waiting
from segtune.version import __version__

log = logging.getLogger(__name__)


def fit(
    settings: Settings,
    built: BuiltModel,
    phases: Sequence[Phase],
    facts: Callable[[Phase], dict[str, Any]],
    splits: Mapping[str, Sequence[Pair]],
    folder: Path,
    compute: Device,
    resumed: Checkpoint | None = None,
    command: str = "",
    on_phase: OnPhase = lambda *_: None,
) -> dict[str, Any]:
    """Train through all phases and write the run's folder.

    Args:
        settings: The run's settings.
        built: The model on its device, with pretrained or resumed weights.
        phases: The phases that `plan_phases` returned.
        facts: Returns the facts to record of a phase that is about to begin; `trainable` at least.
        splits: Pairs of `train` and `val`.
        folder: The run's folder, which exists.
        compute: Device and precision.
        resumed: The checkpoint to resume from, `last.pt`.
        command: The command line of the run, to be recorded with its settings.
        on_phase: Called with a phase's number, from 1, and its facts, when it begins or resumes.

    Returns:
        The content of `summary.json`.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; the run is saved.
        DivergedError: The loss is not finite; the last checkpoint is good.
        Pruned: The run is a trial of a search, which has ended it; it is saved.
        UserError: The run cannot resume with these settings, or an invariant check failed.
    """
    state = replace(resumed.state) if resumed and resumed.state else State()
    optim_states = resumed.optimizer if resumed and resumed.optimizer else {}
    train, data = settings.train, settings.data
    reset_peak(compute.device)
    photos, of_training = reduced_photos(settings, splits["train"])
    val_photos, of_validation = reduced_photos(settings, splits["val"], validation=True)
    for line in filter(None, (of_training, of_validation)):
        say(line)
    drawn = list(splits["train"]) * settings.augment.crops_per_image
    dataset = build_dataset(drawn, data, settings.augment, settings.seed, photos=photos)
    batches = EpochBatches(
        len(dataset), train.images_per_batch, settings.seed, rank=distributed.rank(), world=distributed.world()
    )
    workers = worker_count(train.workers, compute.device)
    loader = make_loader(dataset, batches, workers, compute.device.type == "cuda")
    loss = build_loss(settings.loss)
    evaluator = Evaluator(splits["val"], data, train, loss, compute, samples=train.samples, photos=val_photos)
    if resumed:
        check_place(state, settings, resumed.settings, batches.whole, optim_states["schedule"]["last_epoch"])
    with stop_signals() as stopped:
        waiting = Waiting(train.workers, workers)
        places = folder, compute, state, loader, batches, evaluator
        run = Run(settings, built, *places, None, phases, facts, on_phase, stopped, waiting)
        _begin(run, splits, command)
        return _fit_phases(run, optim_states)


def _fit_phases(run: Run, resumed: Mapping[str, Any]) -> dict[str, Any]:
    """Train the phases that are left, the first with the `resumed` state of its optimizer, if there is one.

    The summary is returned; the trackers are told how the run ends, however that is.
    """
    status: Status = "failed"
    summary: dict[str, Any] = {}
    try:
        for index in range(run.state.phase, len(run.phases)):
            fit_phase(run, index, resumed)
            resumed = {}
        summary = _summary(run)
        if run.recorder:  # only the first of several processes has one
            write_json(run.folder / "summary.json", summary)
        status = "finished"
    except (KeyboardInterrupt, Pruned):
        status = "killed"
        raise
    finally:
        if run.recorder:
            run.recorder.tracking.end(status, summary)
    return summary


def _begin(run: Run, splits: Mapping[str, Sequence[Pair]], command: str) -> None:
    """Check the schedules of the phases to come, and write the first files of the run.

    Raises:
        UserError: A warm-up is longer than its phase.
    """
    for phase in run.phases[run.state.phase :]:
        settings = run.settings.optimizer.of_phase(phase.settings)
        check_schedule(phase.name, settings, run.span(phase).steps, run.steps_of_epoch)
    run.data = DataRecord.of(splits).plain()
    if distributed.rank() == 0:  # all settings are checked: from here on the run writes its files
        write_settings(run.folder, asdict(run.settings), command)
        write_json(run.folder / "data.json", run.data)
        if not run.step:
            write_json(run.folder / "environment.json", environment(run.compute))
        if run.built.restored:
            write_json(run.folder / "restore.json", asdict(run.built.restored))
        run.recorder, run.step_log = _logs(run)
        run.trial = Trial.of_job()


def _logs(run: Run) -> tuple[EpochRecorder, StepLog]:
    """Return the logs of epochs and steps, which both tell the trackers."""

    def layers() -> str:
        return layer_table(run.model, run.settings.data.size)

    start = Start(run.folder, asdict(run.settings), layers, len(run.state.rows), run.step)
    tracking = Tracking(start, run.settings.train.trackers)
    return EpochRecorder(run.folder, run.state.rows, tracking), StepLog(run.settings.train, tracking)


def fit_phase(run: Run, index: int, resumed: Mapping[str, Any]) -> None:
    """Train one phase, from `run.state` on, with a fresh optimizer or the `resumed` one.

    Raises:
        Pruned: The run is a trial of a search, and others were better at this epoch; it is saved.
        UserError: An invariant check failed: something trains or is frozen against the phase's settings.
    """
    phase, state, settings = run.phases[index], run.state, run.settings
    run.features = run.built.model.split = None  # what the phase before has kept in memory is free again
    uncompile(run.model)
    facts = state.phases[phase.name] if resumed else run.facts(phase)
    enter(run.built, phase)
    network = distributed.wrap(run.model, run.compute.device, settings.train.sync_batchnorm)
    run.features = feature_source(run, phase)  # it splits the model, with the layers that wrapping may have replaced
    optimizer = build_optimizer(settings.optimizer, run.model, phase.settings, run.built.blocks)
    check_members(run.model, optimizer, phase.name)
    optim_state = OptimState(
        optimizer,
        build_schedule(settings.optimizer, optimizer, phase.settings, run.span(phase).steps, run.steps_of_epoch),
        new_scaler(run.compute),
    )
    optim_state.load_state_dict(resumed)
    if not resumed:
        state.phase, state.epoch, state.frozen, state.skipped_in_a_row = index, 0, fingerprint(run.model), 0
        state.phases[phase.name] = facts
        run.save("last.pt", optimizer=optim_state.state_dict())
    if not _over(run, phase):
        run.on_phase(index + 1, facts)
        if run.features:
            say(run.features.text)
        compile_network(run, phase)
    while not _over(run, phase):
        began = time.perf_counter()
        train_mode(run.model, phase.scope)
        train_epoch(run, network, optim_state, phase)
        distributed.broadcast_buffers(run.model)
        result = run.evaluator(run.model, run.stopped, run.features.validation if run.features else None)
        state.seconds += time.perf_counter() - began
        if result is None:
            save_and_stop(run, optim_state)
        else:
            _finish_epoch(run, optim_state, phase, result)
        ended = index + 1 == len(run.phases) and _over(run, phase)
        stops = run.asked_to_stop() and not ended
        if run.trial:
            run.trial.epoch(len(state.rows), score_of(state.rows[-1]), may_end=not (ended or stops))
        if stops:
            raise Interrupted
    check_steps(run, optim_state, phase)
    check_unchanged(run.model, state.frozen, phase.name)


def _over(run: Run, phase: Phase) -> bool:
    """Return whether a phase has run its epochs, or has converged: `patience` epochs without a better one."""
    done = run.state.epoch
    if done >= run.span(phase).epochs:
        return True
    return phase.settings.until == "plateau" and since_best(run.state) >= phase.settings.patience


def _finish_epoch(run: Run, optim_state: OptimState, phase: Phase, result: Evaluation) -> None:
    state = run.state
    row = _row(run, phase.name, result)
    if run.recorder:
        check_run_folder(run.folder)
        run.recorder.epoch(row, run.step, result.samples)
    else:
        state.rows.append(row)
    known = any(map(degenerate, state.rows[len(state.rows) - 1 - state.epoch : -1]))
    better = is_better(row, state)
    if better:
        state.best_dice, state.best_epoch = row["val_dice"], row["epoch"]
    state.epoch, state.step, state.loss_sum, state.images, state.skipped = state.epoch + 1, 0, 0.0, 0, 0
    if better:
        run.save("best.pt")
    run.save("last.pt", optimizer=optim_state.state_dict())
    skipped = f"  steps skipped, overflow in fp16: {row['skipped_steps']}" if row["skipped_steps"] else ""
    say(
        f"{phase.name:>10}  epoch {row['epoch']}/{run.epochs}  loss {row['train_loss']:.4f}  "
        f"validation: loss {row['val_loss']:.4f}  {dice_text(row, result.scores, better=better)}{skipped}"
    )
    for warning in warnings_of(result.scores) if not known and not result.scores.all_empty else ():
        log.warning("%s", warning)
    if _over(run, phase) and state.epoch < run.span(phase).epochs:
        say(
            f"{phase.name:>10}  has converged: no better validation Dice for {phase.settings.patience} epochs, "
            f"after {state.epoch} of at most {run.span(phase).epochs}"
        )


def _row(run: Run, phase: str, result: Evaluation) -> Row:
    scores = result.scores
    return {
        "epoch": len(run.state.rows) + 1,
        "phase": phase,
        "train_loss": run.state.loss_sum / run.state.images,
        "val_loss": result.loss,
        "val_dice": scores.dice_mean,
        "val_dice_pooled": scores.dice_pooled,
        "val_iou": scores.iou_mean,
        "val_precision": scores.precision,
        "val_recall": scores.recall,
        "lr": run.state.lr,
        "skipped_steps": run.state.skipped,
        "val_dice_object": scores.dice_object,
        "val_predicted": scores.predicted,
    }


def _summary(run: Run) -> dict[str, Any]:
    state, counted = run.state, audit(run.model, run.built.blocks)
    best, (rate, rate_with_start) = state.rows[state.best_epoch - 1], state.rates()
    return {
        "val_dice": state.best_dice,
        "val_dice_object": best.get("val_dice_object", state.best_dice),
        "val_predicted": best.get("val_predicted"),
        "best_epoch": state.best_epoch,
        "epochs": len(state.rows),
        "skipped_steps": sum(row.get("skipped_steps") or 0 for row in state.rows),
        "seconds": round(state.seconds, 1),
        "cache_seconds": round(state.cache_seconds, 1),
        "wait_seconds": round(state.wait_seconds, 1),
        "images_per_second": round(rate, 2),
        "images_per_second_with_start": round(rate_with_start, 2),
        "peak_memory_bytes": peak_of(run.compute.device),
        "parameters": counted.total,
        "trainable_parameters": {name: each["trainable"] for name, each in state.phases.items()},
        "phases": state.phases,
        "weights": run.built.weights.source or "random",
        "taps": {role: feature.node for role, feature in run.built.model.features.items()},
        "device": str(run.compute.device),
        "processes": distributed.world(),
        "precision": run.compute.precision,
        "versions": {"segtune": __version__, "torch": torch.__version__},
    }
