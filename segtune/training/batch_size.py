"""What `train.batch_size=auto` means: measured steps on a GPU, an estimate against the free memory on a CPU."""

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch

from segtune.config.schema import RunSettings
from segtune.errors import UserError, out_of_memory
from segtune.models.build import BuiltModel
from segtune.runtime import distributed
from segtune.runtime.console import say
from segtune.runtime.device import Device
from segtune.runtime.measure import in_new_process, seconds_of
from segtune.runtime.memory import free_memory
from segtune.training.phase_summary import Trial, cost_of
from segtune.training.phases import Phase

S = TypeVar("S", bound=RunSettings)

AUTO = "auto"
#: The share of a GPU's free memory that is used: the rest is for fragments, and for what differs between steps.
_SHARE = 0.9
#: The images/s that a batch twice as large must bring, as a factor: below it, it only costs steps.
_GAIN = 1.05
#: The optimizer steps that an epoch should have, though a batch of the default size is always allowed.
_STEPS, _DEFAULT = 10, 8
#: The largest batch on a CPU: with 8, 16 and 32 it computes as many images a second (docs/training.md).
_MOST_ON_CPU = 8
#: Memory that a step takes on a CPU, as a multiple of the estimate, which knows no temporary tensors.
_TEMPORARY = 2


@dataclass(frozen=True)
class Choice:
    """A number of images of a batch, for one process, and why it is this one."""

    images: int
    why: str


@dataclass(frozen=True)
class Tried:
    """What a step with a number of images took."""

    seconds: float
    memory: int


def with_batch_size(settings: S, built: BuiltModel, phases: Sequence[Phase], compute: Device, images: int | None) -> S:
    """Return settings with a number in the place of `train.batch_size=auto`, and say which; other settings as they are.

    All processes get the same: as many images for each as the one with the least memory can take. No random number is
    drawn, and the model stays as it is.

    Args:
        settings: The settings.
        built: The model.
        phases: All phases; the one that takes most memory decides.
        compute: Device and precision.
        images: Training images; None if they are not known.

    Raises:
        UserError: Not even one image fits, or no step can be measured.
    """
    if settings.train.batch_size != AUTO:
        return settings
    world = distributed.world()
    most = None if images is None else most_images(images, settings.train.accumulate, world)
    found = distributed.gather(_tried(settings, built, phases, compute, most))
    if wrong := [each for each in found if isinstance(each, str)]:
        raise UserError(wrong[0])
    chosen = min((each for each in found if isinstance(each, Choice)), key=lambda each: each.images)
    number = chosen.images * world
    each = f" ({chosen.images} in each of {world} processes)" if world > 1 else ""
    say(f"train.batch_size={number} (auto){each}: {chosen.why}")
    return replace(settings, train=replace(settings.train, batch_size=number))


def most_images(images: int, accumulate: int, world: int) -> int:
    """Return the largest batch of a process, of so many training images: an epoch should have `_STEPS` steps.

    It has two images or more, where there are so many: BatchNorm learns nothing from a single one.
    """
    whole = max(images // (_STEPS * accumulate), min(_DEFAULT, images))
    return max(whole // world, min(2, images // world), 1)


def _tried(
    settings: RunSettings, built: BuiltModel, phases: Sequence[Phase], compute: Device, most: int | None
) -> Choice | str:
    """Return the choice of this process, or what is wrong: the other processes wait for either."""
    try:
        costs = [cost_of(built, phase, _with(settings, 2), compute).memory for phase in phases]
        costliest = phases[costs.index(max(costs))]
        if compute.device.type == "cuda":
            say(f"measuring steps of {costliest.name} with growing batches (train.batch_size=auto) …")
            return in_new_process(partial(_measured, settings, costliest, most))
        return estimated_choice(
            lambda number: _TEMPORARY * cost_of(built, costliest, _with(settings, number), compute).memory,
            _MOST_ON_CPU if most is None else min(_MOST_ON_CPU, most),
            free_memory() // 2 // distributed.local_world(),
        )
    except UserError as error:
        return str(error)


def _with(settings: RunSettings, number: int) -> RunSettings:
    return replace(settings, train=replace(settings.train, batch_size=number))


def estimated_choice(memory_of: Callable[[int], int], most: int, free: int) -> Choice:
    """Return the largest number of images, `most` or a power of two below it, whose step takes at most `free` bytes.

    Raises:
        UserError: Not even one image fits.
    """
    number = most
    while (needed := memory_of(number)) > free:
        if number == 1:
            raise _too_large(f"it takes about {_gb(needed)}, and {_gb(free)} may be used")
        number = 1 << (number - 1).bit_length() - 1
    if number < most:
        return Choice(number, f"the most that fit into {_gb(free)}, half of the free memory, by estimate")
    if most == _MOST_ON_CPU:
        return Choice(number, "on a CPU more are not faster")
    return Choice(number, _OF_DATA)


def measured_choice(attempt: Callable[[int], Tried | None], most: int | None, free: int) -> Choice:
    """Return the number of images with which training is fast and fits.

    Powers of two are tried, from two on, until one does not fit, brings less than `_GAIN` times the images/s of the one
    before, or would pass `most`. Where the memory ends, three numbers between the last two are tried as well.

    Args:
        attempt: Makes steps with a number of images; returns None if memory runs out.
        most: The largest number allowed; None: any.
        free: The bytes of memory that may be used, of which `_SHARE` are.

    Raises:
        UserError: Not even one image fits.
    """
    budget, best, fastest = _SHARE * free, 0, Tried(math.inf, 0)

    def fits(number: int) -> Tried | None:
        tried = attempt(number)
        return tried if tried and tried.memory <= budget else None

    number = min(2, most or 2)
    while tried := fits(number):
        rate, before = number / tried.seconds, best / fastest.seconds
        if best and rate < before * _GAIN ** math.log2(number / best):
            return Choice(best, f"{before:.1f} images/s; {number} bring {rate:.1f}, so more are hardly faster")
        best, fastest = number, tried
        if number == most:
            return Choice(best, _OF_DATA)
        number = min(2 * number, most or 2 * number)
    end = number
    if not best:
        if number == 1 or not (tried := fits(1)):
            raise _too_large(f"{_gb(budget)} may be used")
        best, fastest = 1, tried
    step = max(1, best // 4)
    for between in range(best + 3 * step, best, -step):
        if between >= end:
            continue
        if tried := fits(between):
            if between / tried.seconds >= best / fastest.seconds:
                best, fastest = between, tried
            break
        end = between
    return Choice(best, f"a step takes {_gb(fastest.memory)}; {end} do not fit into {_gb(budget)}")


_OF_DATA = f"with more, an epoch of so few training images would have less than {_STEPS} steps"


def _measured(settings: RunSettings, phase: Phase, most: int | None) -> Choice:
    """Return the choice for a GPU, in a process of its own."""
    trial = Trial(settings, phase)
    device, world = trial.compute.device, distributed.world()
    gc.collect()  # frees the uncut network, whose modules refer to each other
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    # Several processes hold all gradients during the forward pass too, in the buffers that they exchange.
    buffers = sum(p.nbytes for p in trial.model.parameters() if p.requires_grad) if world > 1 else 0

    def attempt(number: int) -> Tried | None:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            seconds = seconds_of(trial.step(number), device, 5)
            trial.validate(number * world)  # each process validates in whole batches
        except Exception as error:
            if not out_of_memory(error):
                raise
            return None
        return Tried(seconds, torch.cuda.max_memory_reserved(device) + buffers)

    return measured_choice(attempt, most, free)


def _too_large(what: str) -> UserError:
    return UserError(
        f"train.batch_size=auto: not even one image fits into the memory: {what}. Try a smaller data.image_size, or "
        "fewer blocks that train (plan)."
    )


def _gb(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"
