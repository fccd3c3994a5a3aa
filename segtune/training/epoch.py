"""An epoch of training: its batches and its optimizer steps."""

import time
from typing import NoReturn

import numpy as np
import torch
from torch import nn

from segtune.errors import DivergedError, Interrupted
from segtune.losses import build_loss
from segtune.runtime import distributed
from segtune.runtime.console import bar
from segtune.training.invariants import check_gradients
from segtune.training.phases import Phase
from segtune.training.state import OptimState, Run, seed_of


def train_epoch(run: Run, network: nn.Module, optim_state: OptimState, phase: Phase) -> None:
    """Train the remaining batches of the running epoch; the sums for its mean loss are in `run.state`.

    Args:
        run: The run.
        network: The run's model, wrapped for the processes of the run.
        optim_state: Optimizer, schedule and gradient scaler.
        phase: The running phase.

    Raises:
        Interrupted: A signal was received; the run is saved after the step.
        DivergedError: Loss or gradient is not finite.
        UserError: A trainable parameter gets no gradient.
    """
    state, settings, batches = run.state, run.settings, run.batches
    number, accumulate = len(state.rows) + 1, settings.train.accumulate
    loss_fn = build_loss(settings.loss)
    total = run.span(phase).of(state.epoch)
    batches.epoch, batches.start, batches.end = number, state.step, total
    began, trained = time.perf_counter(), 0
    saved = now = began
    with bar(f"{phase.name} {number}/{run.epochs}", total, state.step) as progress:
        for batch in run.loader:
            first_of_step = state.step // accumulate * accumulate
            batches_of_step = min(accumulate, total - first_of_step)
            whole = state.step + 1 == first_of_step + batches_of_step
            mine, everyones = batches.share_of(state.step)
            of_step = sum(batches.share_of(first_of_step + n)[1] for n in range(batches_of_step))
            # Dropout draws from the global generator; seeding it by step makes it independent of what ran before.
            torch.manual_seed(seed_of(settings.seed, number, state.step))
            images, masks = (batch[key].to(run.compute.device, non_blocking=True) for key in ("image", "mask"))
            with distributed.no_sync(network, whole):
                with run.compute.autocast():
                    logits = network(images)
                loss = loss_fn(logits, masks)
                # Every image of a step has the same weight; the gradients of the processes are averaged.
                weight = mine * distributed.world() / of_step
                optim_state.scaler.scale(loss * weight).backward()  # type: ignore[no-untyped-call]
            loss_sum = distributed.all_reduce_sum([loss.item() * mine])[0]
            if not np.isfinite(loss_sum):
                raise _diverged(run, phase, f"the loss is {loss_sum / everyones}")
            if run.proven != phase.name:
                check_gradients(run.model, phase.name)
                run.proven = phase.name
            state.step += 1
            if whole:
                take_step(run, optim_state, phase)
            state.loss_sum += loss_sum
            state.images += everyones
            state.trained_images += everyones
            trained += everyones
            before, now = now, time.perf_counter()
            state.train_seconds += now - before
            progress(state.step, f"loss {state.loss_sum / state.images:.4f}  {trained / (now - began):.1f} images/s")
            if whole and run.asked_to_stop():
                state.seconds += now - began
                save_and_stop(run, optim_state)
            if whole and now - saved > 60 * settings.checkpoint.minutes:
                run.save("last.pt", optimizer=optim_state.state_dict())
                saved = now


def take_step(run: Run, optim_state: OptimState, phase: Phase) -> None:
    """Make an optimizer step from the gradients that have been accumulated, and move the schedule.

    Raises:
        DivergedError: The gradient is not finite.
    """
    clip, parameters = run.settings.train.clip, [p for g in optim_state.optimizer.param_groups for p in g["params"]]
    optim_state.scaler.unscale_(optim_state.optimizer)
    norm = nn.utils.clip_grad_norm_(parameters, clip or float("inf"))
    # The scaler skips steps that overflow in fp16 and lowers its scale; without it such a step would ruin the weights.
    if not optim_state.scaler.is_enabled() and not torch.isfinite(norm):
        raise _diverged(run, phase, f"the gradient's norm is {norm.item()}")
    run.state.lr = max(group["lr"] for group in optim_state.optimizer.param_groups)
    optim_state.scaler.step(optim_state.optimizer)
    optim_state.scaler.update()
    optim_state.optimizer.zero_grad(set_to_none=True)
    optim_state.schedule.step()


def _diverged(run: Run, phase: Phase, what: str) -> DivergedError:
    last = run.folder / "checkpoints" / "last.pt"
    return DivergedError(
        f"Training stopped in phase {phase.name}, epoch {len(run.state.rows) + 1}, step {run.state.step + 1}: {what}.\n"
        f"The last good checkpoint is {last}. "
        f"Try a lower learning rate (freeze.phases.{phase.name}.lr=…) or train.precision=fp32."
    )


def save_and_stop(run: Run, optim_state: OptimState) -> NoReturn:
    """Save `last.pt` and end the run.

    Raises:
        Interrupted: Always.
    """
    run.save("last.pt", optimizer=optim_state.state_dict())
    raise Interrupted
