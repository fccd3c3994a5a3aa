"""An epoch of training: its batches and its optimizer steps."""

import math
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from segtune.errors import DivergedError, Interrupted
from segtune.losses import Loss, build_loss
from segtune.runtime import distributed
from segtune.runtime.console import bar
from segtune.runtime.device import Device
from segtune.training.invariants import check_gradients
from segtune.training.phases import Phase
from segtune.training.state import OptimState, Run, seed_of
from segtune.training.step_log import StepLog


def train_epoch(run: Run, network: nn.Module, optim_state: OptimState, phase: Phase) -> None:
    """Train the remaining batches of the running epoch; the sums for its mean loss are in `run.state`.

    Args:
        run: The run.
        network: The run's model, wrapped for the processes of the run.
        optim_state: Optimizer, schedule and gradient scaler.
        phase: The running phase.

    Raises:
        Interrupted: A signal was received; the run is saved after the step.
        DivergedError: Loss or gradient is not finite, or the gradients of too many steps overflow in fp16. On a GPU it
            may come some steps later, but before the run is saved.
        UserError: A trainable parameter gets no gradient.
    """
    state, settings, batches, unread = run.state, run.settings, run.batches, run.unread
    loss_fn, accumulate = build_loss(settings.loss), settings.train.accumulate
    batches.epoch = number = len(state.rows) + 1
    step, saved = run.step, time.perf_counter()
    with bar(f"{phase.name} {number}/{run.epochs}", run.span(phase).of(state.epoch), state.step) as progress:
        meter = _Meter(run, phase)
        for batch in _remaining(run, optim_state, phase):
            unread.batch_came((run.features or run).loader.take_wait())
            first_of_step = state.step // accumulate * accumulate
            batches_of_step = min(accumulate, batches.end - first_of_step)
            whole = state.step + 1 == first_of_step + batches_of_step
            mine, everyones = batches.share_of(state.step)
            of_step = sum(batches.share_of(first_of_step + n)[1] for n in range(batches_of_step))
            # Dropout draws from the global generator; seeding it by step makes it independent of what ran before.
            torch.manual_seed(seed_of(settings.seed, number, state.step))
            # Every image of a step has the same weight; the gradients of the processes are averaged.
            weight = mine * distributed.world() / of_step
            with distributed.no_sync(network, whole):
                loss = _backward(run, network, optim_state, loss_fn, batch, weight)
            state.step += 1
            unread.add_loss(loss, state.step, mine, everyones)
            if unread.at_once:
                _read(run, phase)
            if whole:
                take_step(run, optim_state, phase)
                step += 1
            unread.batch_queued()
            log = bool(run.step_log and whole and run.step_log.is_due(step))
            save = whole and time.perf_counter() - saved > 60 * settings.checkpoint.minutes
            stop, due = False, unread.at_once
            if whole:  # all processes do what one of them wants, since they read together
                wanted = log or save or meter.is_due or state.step == batches.end
                stop, due = map(bool, distributed.all_reduce_sum([run.stopped(), wanted]))
            if not (stop or due):
                continue
            progress(state.step, meter.read())
            run.started |= whole
            if run.step_log and log:
                _log_step(run.step_log, step, run, optim_state, phase)
            if stop:
                state.seconds += meter.now - meter.began
                save_and_stop(run, optim_state)
            if save:
                run.save("last.pt", optimizer=optim_state.state_dict())
                saved = meter.now


#: Seconds after which losses are read from a GPU, for the progress bar; reading them keeps it waiting.
_SECONDS = 1.0


class _Meter:
    """Reads the losses of an epoch, and measures the time of its batches, as far as they are trained in this run."""

    def __init__(self, run: Run, phase: Phase) -> None:
        self.run, self.phase = run, phase
        self.before = self.counted = run.state.images
        self.began = self.now = time.perf_counter()
        self.filled, self.is_first = 0.0, True

    @property
    def is_due(self) -> bool:
        return self.is_first or self.run.unread.at_once or time.perf_counter() - self.now >= _SECONDS

    def read(self) -> str:
        """Read the losses since this was last called, count the time since then, and return both as a short note."""
        run, state, features = self.run, self.run.state, self.run.features
        _read(run, self.phase)
        before, self.now = self.now, time.perf_counter()
        filling = features.loader.take_seconds() if features else 0.0
        waited, training = run.unread.take_wait(), self.now - before - filling
        state.cache_seconds += filling
        state.wait_seconds += waited
        state.train_seconds += training
        if not run.started:
            state.start_images += state.images - self.counted
            state.start_seconds += training
        self.counted = state.images
        if run.step_log:
            run.step_log.add_time(training, waited)
        if not self.is_first and not (features and features.loader.store):  # kept features come without workers
            run.waiting.add(waited, training)
        self.is_first = False
        self.filled += filling
        rate = (state.images - self.before) / (self.now - self.began - self.filled)
        return f"loss {state.loss_sum / state.images:.4f}  {rate:.1f} images/s"


def _read(run: Run, phase: Phase) -> None:
    """Read the losses and gradient norms that have not been read yet, and count them in their order.

    Raises:
        DivergedError: One is not finite; in fp16 only a loss counts, since steps are skipped there.
    """
    state, skips = run.state, run.compute.dtype == torch.float16
    for reading in run.unread.read():
        if reading.images == 0:
            run.last_step["gradient_norm"] = reading.value
            if not skips and not math.isfinite(reading.value):
                raise _diverged(run, phase, reading.batch, f"the gradient's norm is {reading.value}")
            continue
        if not math.isfinite(reading.value):
            raise _diverged(run, phase, reading.batch, f"the loss is {reading.value / reading.images}")
        state.loss_sum += reading.value
        state.images += reading.images
        state.trained_images += reading.images
        if run.step_log:
            run.step_log.add(reading.value, reading.images)


def _backward(
    run: Run, network: nn.Module, optim_state: OptimState, loss_fn: Loss, batch: dict[str, Any], weight: float
) -> Tensor:
    """Add the gradients of a batch's loss, times a weight; return the loss."""
    images = batch["image"].to(run.compute.device, non_blocking=True)
    with run.compute.autocast():
        logits = network(images)
    loss = loss_fn(logits, batch["mask"])
    optim_state.scaler.scale(loss * weight).backward()  # type: ignore[no-untyped-call]
    return loss


def _remaining(run: Run, optim_state: OptimState, phase: Phase) -> Iterator[dict[str, Any]]:
    """Yield the remaining batches of the running epoch; a skipped step may add some to the last of a phase of steps.

    Raises:
        Interrupted: A signal was received while the next batch did not come; the run is saved if no step was begun.
        DivergedError: As in `train_epoch`.
    """
    began = time.perf_counter()
    while run.state.step < (end := run.span(phase).of(run.state.epoch)):
        run.batches.start, run.batches.end = run.state.step, end
        yield from (run.features.loader if run.features else run.loader).until(run.gives_up)
        if run.state.step < end:
            run.state.seconds += time.perf_counter() - began
            if not run.between_steps:
                raise Interrupted("Stopped while waiting for an image; everything up to the last save is kept.")
            _read(run, phase)
            save_and_stop(run, optim_state)


def _log_step(log: StepLog, step: int, run: Run, optim_state: OptimState, phase: Phase) -> None:
    place = f"{phase.name:>10}  epoch {len(run.state.rows) + 1}/{run.epochs}  step {step}/{run.steps}"
    scaler = optim_state.scaler
    scale = {"loss_scale": scaler.get_scale()} if scaler.is_enabled() else {}
    log.write(place, step, {**run.last_step, **scale})


def new_scaler(compute: Device) -> torch.amp.GradScaler:
    """Return a gradient scaler for fp16; in other precisions it does nothing.

    It begins at 2**15, the largest scale that Micikevicius et al. (Mixed Precision Training, 2018) needed, and each
    skipped step halves it: a scale that is too high costs a few steps, and one that is too low stays so for 2,000.
    """
    return torch.amp.GradScaler(compute.device.type, init_scale=2.0**15, enabled=compute.dtype == torch.float16)


def take_step(run: Run, optim_state: OptimState, phase: Phase) -> None:
    """Make an optimizer step from the gradients that have been accumulated, and move the schedule.

    A step whose gradients overflow in fp16 is skipped and counted: weights and schedule stay, the scaler's scale falls.
    So there the device is waited for; in other precisions a GPU's gradient norms are checked later, by `train_epoch`.

    Raises:
        DivergedError: The gradient is not finite, in fp16 in `train.max_skipped_steps` steps in a row.
        UserError: A trainable parameter gets no gradient.
    """
    state, train, optimizer, scaler = run.state, run.settings.train, optim_state.optimizer, optim_state.scaler
    if run.proven != phase.name:
        check_gradients(run.model, phase.name)
    scaler.unscale_(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    run.unread.add_norm(nn.utils.clip_grad_norm_(parameters, train.clip or float("inf")), state.step)
    rates = [group["lr"] for group in optimizer.param_groups]
    state.lr = max(rates)
    run.last_step = {"lr_min": min(rates), "lr_max": state.lr}
    if scaler.is_enabled() or run.unread.at_once:
        _read(run, phase)
    # All processes have the same gradients, their average, so all of them make the step or none does.
    if not scaler.is_enabled() or math.isfinite(run.last_step["gradient_norm"]):
        scaler.step(optimizer)
        optim_state.schedule.step()
        run.proven, state.skipped_in_a_row = phase.name, 0
    else:
        state.skipped, state.skipped_in_a_row = state.skipped + 1, state.skipped_in_a_row + 1
        if state.skipped_in_a_row >= train.max_skipped_steps:
            what = f"{state.skipped_in_a_row} steps in a row (train.max_skipped_steps) were skipped"
            why = f"their gradients overflow in fp16, the last at a loss scale of {scaler.get_scale():g}"
            raise _diverged(run, phase, state.step, f"{what}: {why}")
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def check_steps(run: Run, optim_state: OptimState, phase: Phase) -> None:
    """Check at the end of a phase that it has made a step.

    Raises:
        DivergedError: It has skipped all of its steps.
    """
    if optim_state.made == 0:
        skipped = run.state.skipped_in(phase.name)
        raise DivergedError(
            f"Phase {phase.name} has trained nothing: all its {skipped} steps were skipped, for their "
            f"gradients overflow in fp16; the loss scale is down to {optim_state.scaler.get_scale():g}.\n"
            f"{_advice(run, phase)}"
        )


def _diverged(run: Run, phase: Phase, step: int, what: str) -> DivergedError:
    last = run.folder / "checkpoints" / "last.pt"
    return DivergedError(
        f"Training stopped in phase {phase.name}, epoch {len(run.state.rows) + 1}, step {step}: {what}.\n"
        f"The last good checkpoint is {last}. {_advice(run, phase)}"
    )


def _advice(run: Run, phase: Phase) -> str:
    lower = f"a lower learning rate (freeze.phases.{phase.name}.lr=…)"
    if run.compute.dtype == torch.float16:
        return f"Try train.precision=bf16 or fp32, whose range is wider, or {lower}."
    return f"Try {lower} or train.precision=fp32."


def save_and_stop(run: Run, optim_state: OptimState) -> NoReturn:
    """Save `last.pt` and end the run.

    Raises:
        Interrupted: Always.
    """
    run.save("last.pt", optimizer=optim_state.state_dict())
    raise Interrupted
