"""Training: plain loops over phases, epochs and batches."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

import segtune
from segtune import checkpoint
from segtune.build import BuiltModel, build_dataset, build_loss, build_optimizer, build_schedule, walk_phases
from segtune.compute import Compute
from segtune.config import DivergedError, Interrupted, PhaseSettings, Settings
from segtune.console import banner, bar, say
from segtune.data.dataset import EpochBatches, make_loader
from segtune.data.pairs import Pair
from segtune.evaluation import Evaluation, Evaluator
from segtune.freezing import audit, freeze, train_mode, trainable_modules
from segtune.records import EpochRecorder, Row, write_json


@dataclass
class State:
    """How far a run has come, in plain values: the place where a resume goes on.

    `phase` counts the finished phases, `epoch` the finished epochs of the running phase, `step` the finished batches
    of the running epoch.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    best_dice: float = -1.0
    best_epoch: int = 0
    trained_images: int = 0
    train_seconds: float = 0.0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    trainable: dict[str, int] = field(default_factory=dict)


@dataclass
class Movers:
    """What moves the weights in a phase; made anew for each."""

    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    scaler: torch.amp.GradScaler

    def state_dict(self) -> dict[str, Any]:
        """Give the three states by name."""
        return {name: getattr(self, name).state_dict() for name in self.__dataclass_fields__}

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name, state in states.items():
            getattr(self, name).load_state_dict(state)


@dataclass
class Run:
    """What the loops share: the model on its device, its data, and the state."""

    settings: Settings
    built: BuiltModel
    folder: Path
    compute: Compute
    state: State
    loader: DataLoader[dict[str, Any]]
    batches: EpochBatches
    evaluator: Evaluator
    recorder: EpochRecorder
    phases: list[tuple[str, PhaseSettings]]
    stopped: Callable[[], bool]

    @property
    def model(self) -> nn.Module:
        """The model that trains."""
        return self.built.model

    @property
    def epochs(self) -> int:
        """Epochs of all phases."""
        return sum(phase.epochs for _, phase in self.phases)

    def save(self, name: str, **more: Any) -> None:
        """Write a checkpoint that is complete in itself."""
        content = {
            "settings": asdict(self.settings),
            "taps": {role: feature.node for role, feature in self.built.model.features.items()},
            "weights": {"source": self.built.weights.source, "new": list(self.built.new)},
            "model": self.model.state_dict(),
            "state": asdict(self.state),
        }
        checkpoint.save(self.folder / "checkpoints" / name, content | more)


def fit(
    settings: Settings,
    built: BuiltModel,
    splits: Mapping[str, Sequence[Pair]],
    folder: Path,
    compute: Compute,
    resumed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train through all phases and write the run's folder.

    Args:
        settings: The run's settings.
        built: The model, with pretrained or resumed weights.
        splits: Pairs of `train` and `val`.
        folder: The run's folder, which exists.
        compute: Device and precision.
        resumed: What `last.pt` holds, to go on from there.

    Returns:
        What is written to `summary.json`.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the run is saved.
        DivergedError: The loss is not finite; the last checkpoint is good.
    """
    state = State(**resumed["state"]) if resumed else State()
    built.model.to(compute.device).to(memory_format=torch.channels_last)
    train, data = settings.train, settings.data
    dataset = build_dataset(splits["train"], data, settings.augment, settings.seed)
    batches = EpochBatches(len(dataset), train.batch_size, settings.seed)
    loader = make_loader(dataset, batches, train.workers, compute.device.type == "cuda")
    evaluator = Evaluator(splits["val"], data, train, build_loss(settings.loss), compute, samples=train.samples)
    recorder = EpochRecorder(folder, state.rows)
    phases = list(walk_phases(settings, built.weights))
    with _signals() as stopped:
        run = Run(settings, built, folder, compute, state, loader, batches, evaluator, recorder, phases, stopped)
        for index in range(state.phase, len(phases)):
            fit_phase(run, index, resumed["movers"] if resumed else {})
            resumed = None
    recorder.close()
    summary = _summary(run)
    write_json(folder / "summary.json", summary)
    return summary


def fit_phase(run: Run, index: int, resumed: Mapping[str, Any]) -> None:
    """Train one phase, from `run.state` on, with a fresh optimizer or the `resumed` one."""
    name, phase = run.phases[index]
    state, settings = run.state, run.settings
    modules = trainable_modules(run.model, phase, run.built.blocks, run.built.new)
    freeze(run.model, modules)
    steps = -(-len(run.batches) // settings.train.accumulate) * phase.epochs
    optimizer = build_optimizer(settings.optimizer, run.model, phase)
    movers = Movers(
        optimizer,
        build_schedule(settings.optimizer, optimizer, steps),
        torch.amp.GradScaler(run.compute.device.type, enabled=run.compute.dtype == torch.float16),
    )
    movers.load_state_dict(resumed)
    state.trainable[name] = _announce(run, index)
    while state.phase == index:
        began = time.perf_counter()
        train_mode(run.model, modules)
        train_epoch(run, movers, name)
        result = run.evaluator(run.model, run.stopped)
        state.seconds += time.perf_counter() - began
        if result is None:
            _stop(run, movers)
        else:
            _finish_epoch(run, movers, index, result)
    if run.stopped() and state.phase < len(run.phases):
        _stop(run, None)


def train_epoch(run: Run, movers: Movers, phase: str) -> None:
    """Train the batches of the running epoch that are left; the sums for its mean loss are in `run.state`.

    Raises:
        Interrupted: A signal came; the run is saved after the step.
        DivergedError: Loss or gradient is not finite.
    """
    state, settings = run.state, run.settings
    number, accumulate = len(state.rows) + 1, settings.train.accumulate
    loss_fn = build_loss(settings.loss)
    run.batches.epoch, run.batches.start = number, state.step
    left = len(run.batches)
    total = state.step + left
    began, trained = time.perf_counter(), 0
    saved = began
    with bar(f"{phase} {number}/{run.epochs}", total, state.step) as progress:
        for batch in run.loader:
            first_of_step = state.step // accumulate * accumulate
            share = min(accumulate, total - first_of_step)
            # Dropout draws from the global generator: seeded by the step, it does not depend on what ran before.
            torch.manual_seed(int(np.random.SeedSequence([settings.seed, number, state.step]).generate_state(1)[0]))
            images, masks = (batch[key].to(run.compute.device, non_blocking=True) for key in ("image", "mask"))
            with run.compute.autocast():
                logits = run.model(images)
            loss = loss_fn(logits, masks)
            movers.scaler.scale(loss / share).backward()  # type: ignore[no-untyped-call]
            value = loss.item()
            if not np.isfinite(value):
                raise _diverged(run, phase, f"the loss is {value}")
            state.step += 1
            whole = state.step % accumulate == 0 or state.step == total
            if whole:
                _step(run, movers, phase)
            state.loss_sum += value * len(images)
            state.images += len(images)
            trained += len(images)
            now = time.perf_counter()
            progress(state.step, f"loss {state.loss_sum / state.images:.4f}  {trained / (now - began):.1f} images/s")
            if whole and run.stopped():
                state.seconds += now - began
                _stop(run, movers)
            if whole and now - saved > 60 * settings.checkpoint.minutes:
                run.save("last.pt", movers=movers.state_dict())
                saved = now
    state.trained_images += trained
    state.train_seconds += time.perf_counter() - began
    run.batches.start = 0


def _step(run: Run, movers: Movers, phase: str) -> None:
    clip, parameters = run.settings.train.clip, [p for g in movers.optimizer.param_groups for p in g["params"]]
    movers.scaler.unscale_(movers.optimizer)
    norm = nn.utils.clip_grad_norm_(parameters, clip or float("inf"))
    # The scaler skips steps that overflow in fp16 and lowers its scale; elsewhere such a step would ruin the weights.
    if not movers.scaler.is_enabled() and not torch.isfinite(norm):
        raise _diverged(run, phase, f"the gradient's norm is {norm.item()}")
    movers.scaler.step(movers.optimizer)
    movers.scaler.update()
    movers.optimizer.zero_grad(set_to_none=True)
    movers.schedule.step()


def _diverged(run: Run, phase: str, what: str) -> DivergedError:
    last = run.folder / "checkpoints" / "last.pt"
    kept = f"The last good checkpoint is {last}." if last.exists() else "There is no earlier checkpoint."
    return DivergedError(
        f"Training stopped in phase {phase}, epoch {len(run.state.rows) + 1}, step {run.state.step + 1}: {what}.\n"
        f"{kept} A lower rate (freeze.phases.{phase}.lr=…) or train.precision=fp32 is what helps most often."
    )


def _stop(run: Run, movers: Movers | None) -> None:
    run.save("last.pt", movers=movers.state_dict() if movers else {})
    raise Interrupted


def _finish_epoch(run: Run, movers: Movers, index: int, result: Evaluation) -> None:
    state, (name, phase) = run.state, run.phases[index]
    row = _row(run, name, movers, result)
    run.recorder.epoch(row, result.samples)
    better = row["val_dice"] > state.best_dice
    if better:
        state.best_dice, state.best_epoch = row["val_dice"], row["epoch"]
    state.epoch, state.step, state.loss_sum, state.images = state.epoch + 1, 0, 0.0, 0
    if better:
        run.save("best.pt")
    done = state.epoch == phase.epochs
    if done:
        state.phase, state.epoch = index + 1, 0
    run.save("last.pt", movers={} if done else movers.state_dict())
    say(
        f"{name:>10}  epoch {row['epoch']}/{run.epochs}  loss {row['train_loss']:.4f}  "
        f"validation: loss {row['val_loss']:.4f}  Dice {row['val_dice']:.4f}{' *' if better else ''}"
    )


def _row(run: Run, phase: str, movers: Movers, result: Evaluation) -> Row:
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
        "lr": max(group["lr"] for group in movers.optimizer.param_groups),
    }


def _announce(run: Run, index: int) -> int:
    name, phase = run.phases[index]
    counted = audit(run.model, run.built.blocks)
    trains = _spans(counted.parts, lambda trainable, _: trainable > 0)
    frozen = _spans(counted.parts, lambda trainable, total: trainable < total)
    lines = [
        f"trains  {trains}",
        f"frozen  {frozen or 'nothing'}",
        f"{counted.trainable:,} of {counted.total:,} parameters train",
        f"epochs  {phase.epochs}, lr {phase.lr:g}"
        + (f", of the backbone {phase.lr * phase.backbone_lr_scale:g}" if trains != "decoder" else ""),
    ]
    banner(f"phase {index + 1}/{len(run.phases)}: {name}", lines)
    return counted.trainable


def _spans(parts: Mapping[str, tuple[int, int]], chosen: Callable[[int, int], bool]) -> str:
    """Name the chosen parts, neighbouring blocks of the backbone as a span: `block4 … block8, decoder`."""
    spans: list[list[str]] = [[]]
    for name, (trainable, total) in parts.items():
        if name == "decoder" or not chosen(trainable, total):
            spans.append([])
        if chosen(trainable, total):
            spans[-1].append(name)
    return ", ".join(span[0] if len(span) == 1 else f"{span[0]} … {span[-1]}" for span in spans if span)


def _summary(run: Run) -> dict[str, Any]:
    state, counted = run.state, audit(run.model, run.built.blocks)
    return {
        "val_dice": state.best_dice,
        "best_epoch": state.best_epoch,
        "epochs": len(state.rows),
        "seconds": round(state.seconds, 1),
        "images_per_second": round(state.trained_images / max(state.train_seconds, 1e-9), 2),
        "parameters": counted.total,
        "trainable_parameters": state.trainable,
        "weights": run.built.weights.source or "random",
        "taps": {role: feature.node for role, feature in run.built.model.features.items()},
        "device": str(run.compute.device),
        "precision": run.compute.precision,
        "versions": {"segtune": segtune.__version__, "torch": torch.__version__},
    }


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a wish to stop; a second one ends the program at once."""
    asked = threading.Event()
    previous: dict[signal.Signals, Any] = {}

    def ask(number: int, _: object) -> None:
        asked.set()
        signal.signal(number, previous[signal.Signals(number)])
        say("Stopping after this step; once more stops at once, without saving.")

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.getsignal(number)
            signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
