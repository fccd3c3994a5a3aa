"""Learning rate schedules of a phase, as factors of its learning rates."""

import logging
import math
from bisect import bisect_right
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR

from segtune.config.training_settings import OptimizerSettings, PhaseSettings
from segtune.errors import UserError

log = logging.getLogger(__name__)


def build_schedule(
    settings: OptimizerSettings, optimizer: torch.optim.Optimizer, phase: PhaseSettings, steps: int, of_epoch: int
) -> LambdaLR:
    """Return the schedule of a phase of `steps` optimizer steps, `of_epoch` of them in a whole epoch."""
    return LambdaLR(optimizer, factor_of(settings.of_phase(phase), steps, of_epoch))


def factor_of(settings: OptimizerSettings, steps: int, of_epoch: int) -> Callable[[int], float]:
    """Return a schedule as a function from a step, counted from 0, to a factor from 0 to 1 of the learning rate.

    It depends on nothing but its arguments, so that it goes on after a resume, also of another length. After a linear
    warm-up, which begins with a step above 0, t counts steps; L is the length of decay, by default the rest of the
    phase, or of `exponential` two epochs:

    - `cosine` (Loshchilov and Hutter 2017, arXiv:1608.03983): end + (1 - end) (1 + cos(pi t / L)) / 2
    - `poly` (DeepLab, Chen et al. 2018, arXiv:1606.00915): end + (1 - end) (1 - t / L) ** power; from t = L on it stays
      at the end or, with `cycle`, L is its lowest multiple from t on, as in TensorFlow's `polynomial_decay`
    - `exponential`: gamma ** (t / L), with t / L rounded down if `staircase`, as in TensorFlow's `exponential_decay`
    - `multistep`: gamma for each milestone reached, which are counted from the beginning of the phase
    - `constant`: 1

    Args:
        settings: Those of the phase.
        steps: Its optimizer steps.
        of_epoch: Those of a whole epoch.
    """
    warm, options = warm_up_steps(settings, steps), settings.options
    falls, decay = _milestones(settings, of_epoch), _decay_steps(settings, of_epoch)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        length = decay or max(1, steps - warm)
        match settings.schedule:
            case "constant":
                return 1.0
            case "multistep":
                return float(options["gamma"] ** bisect_right(falls, step))
            case "exponential":
                exponent = (step - warm) // length if options["staircase"] else (step - warm) / length
                return float(options["gamma"] ** exponent)
            case "poly" if options["cycle"]:
                length *= max(1, math.ceil((step - warm) / length))
        done, end = min(1.0, (step - warm) / length), settings.end_factor
        if settings.schedule == "poly":
            left = (1 - done) ** settings.power
        else:
            # In float32: math.cos and PyTorch's own schedulers differ in the last bits from earlier runs.
            left = 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item())
        return float(end + (1 - end) * left)

    return factor


def warm_up_steps(settings: OptimizerSettings, steps: int) -> int:
    """Return the steps of warm-up in a phase of `steps`: below 1 the setting is a fraction of them."""
    return int(settings.warmup if settings.warmup >= 1 else settings.warmup * steps)


def check_schedule(name: str, settings: OptimizerSettings, steps: int, of_epoch: int) -> None:
    """Check that a schedule fits its phase; say which milestones have no effect, and where the learning rate is 0.

    Args:
        name: The phase.
        settings: Those of the phase.
        steps: Its optimizer steps.
        of_epoch: Those of a whole epoch.

    Raises:
        UserError: The warm-up is longer than the phase.
    """
    warm = warm_up_steps(settings, steps)
    if warm > steps:
        raise UserError(
            f"freeze.phases.{name}: got a warmup of {warm} steps; expected at most the phase's {steps}. "
            "Shorten it (optimizer.warmup=…, or the phase's warmup; below 1 it is a fraction), or lengthen the phase."
        )
    falls = _milestones(settings, of_epoch) if settings.schedule == "multistep" else []
    if late := [fall for fall in falls if fall >= steps]:
        at = ", ".join(map(str, late))
        log.warning("Phase %s ends after %d steps: its learning rate does not fall at step %s.", name, steps, at)
    decay = _decay_steps(settings, of_epoch)
    ends_at_0 = settings.schedule in ("cosine", "poly") and settings.end_factor == 0
    if decay and ends_at_0 and not settings.options.get("cycle") and warm + decay < steps:
        log.warning(
            "Phase %s: its learning rate is 0 after %d of its %d steps, and nothing trains from there on. Lengthen the "
            "decay (decay_epochs or decay_steps), or let it end above 0 (end_factor).",
            name,
            warm + decay,
            steps,
        )


def _decay_steps(settings: OptimizerSettings, of_epoch: int) -> int:
    """Return the length of decay in steps; 0 if it is not set."""
    return settings.options.get("decay_steps") or _in_steps(settings.options.get("decay_epochs"), of_epoch)


def _milestones(settings: OptimizerSettings, of_epoch: int) -> list[int]:
    return settings.milestone_steps or [_in_steps(epochs, of_epoch) for epochs in settings.milestones or ()]


def _in_steps(epochs: float | None, of_epoch: int) -> int:
    """Return a length in epochs as whole steps, at least one; 0 for none."""
    return max(1, round(epochs * of_epoch)) if epochs else 0
