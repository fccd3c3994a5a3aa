"""The facts of a phase: for its heading, for `summary.json`, and for the command `plan`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segtune.config.data_settings import OBJECT_FRACTION
from segtune.config.schema import RunSettings
from segtune.config.training_settings import PhaseSettings
from segtune.errors import some
from segtune.losses import build_loss
from segtune.models.build import BuiltModel, build_model
from segtune.models.module_paths import cover
from segtune.models.progress import check_facts
from segtune.runtime.console import banner
from segtune.runtime.device import Device, resolve_device
from segtune.runtime.measure import measure
from segtune.training.freezing import Scope, audit, train_mode
from segtune.training.optim import build_optimizer
from segtune.training.phases import Phase, enter, entered
from segtune.training.step_cost import StepCost, estimate

Facts = dict[str, Any]


def facts(built: BuiltModel, phase: Phase, settings: RunSettings, compute: Device) -> Facts:
    """Return what trains in a phase, what is frozen, where gradients stop, and the estimated cost of a step.

    Costs are in bytes and floating-point operations of a step of `train.batch_size` images.
    """
    cost = cost_of(built, phase, settings, compute)
    with entered(built, phase):
        counted = audit(built.model, built.blocks)
        trains, frozen = (_decoder(built.model.decoder, trains=trains) for trains in (True, False))
    optimizer = settings.optimizer.of_phase(phase.settings)
    return {
        "trains": _spans(counted.parts, lambda trainable, _: trainable > 0, trains),
        "frozen": _spans(counted.parts, lambda trainable, total: trainable < total, frozen),
        "trainable": counted.trainable,
        "parameters": counted.total,
        "parts": {name: {"trainable": t, "parameters": n} for name, (t, n) in counted.parts.items()},
        "backward_stops": cost.backward_stops,
        "optimizer": optimizer.name,
        "optimizer_tensors": len(cost.optimizer_tensors),
        "optimizer_bytes": cost.optimizer_state,
        **estimated(cost),
    }


def own_scale_lines(settings: RunSettings) -> list[str]:
    """Return lines on what sees the images at their own size: training in crops of fixed size, validation in tiles."""
    data, augment, lines = settings.data, settings.augment, list[str]()
    size, of_validation = (f"{height} x {width} pixels" for height, width in (data.size, data.evaluation_size))
    if augment.crop is not None and augment.at_own_scale:
        share = f"{augment.crop[OBJECT_FRACTION]:.0%} of them centred on the object"
        if augment.crops_per_image > 1:
            share += f", {augment.crops_per_image} of each image in an epoch"
        lines.append(f"Training sees the images at their own size, in crops of {size}, {share}.")
        if not data.tiles:
            lines.append(
                f"Validation resizes whole images to {of_validation}, where objects have another size than in those "
                f"crops. To validate at their own size: data.eval_tile={max(128, *data.size)}."
            )
    if data.tiles:
        lines.append(f"Validation sees the images at their own size, {data.tiles}.")
    return lines


def cost_of(built: BuiltModel, phase: Phase, settings: RunSettings, compute: Device) -> StepCost:
    """Return the estimated cost of a step of a phase."""
    with entered(built, phase):
        return estimate(
            built.model,
            lambda model: build_optimizer(settings.optimizer, model, phase.settings, built.blocks),
            (settings.train.images_per_batch, *settings.data.size),
            compute.dtype,
            build_loss(settings.loss),
        )


def estimated(cost: StepCost) -> Facts:
    """Return the estimated cost of a step by its keys in `summary.json`."""
    return {"step_flops": cost.flops, "step_bytes": cost.memory}


def measured(phase: Phase, settings: RunSettings) -> Facts:
    """Return time and memory of a step of a phase, measured in a process of its own."""
    taken = measure(partial(_job, settings, phase))
    return {"measured_seconds": taken.seconds, "measured_bytes": taken.memory}


def _job(settings: RunSettings, phase: Phase) -> tuple[Callable[[], None], torch.device]:
    """Return a step of a phase and its device."""
    trial = Trial(settings, phase)
    return trial.step(settings.train.images_per_batch), trial.compute.device


class Trial:
    """A phase on its device, to try steps: on images of noise, as no value of image or weight changes the cost."""

    def __init__(self, settings: RunSettings, phase: Phase) -> None:
        self.settings, self.phase, self.compute = settings, phase, resolve_device(settings.train)
        stops = [phase.settings.stop_gradient] if phase.settings.stop_gradient else []
        backbone = replace(settings.backbone, weights="none")
        self.built = build_model(backbone, settings.taps, settings.decoder, stops)
        self.model = self.compute.place(self.built.model)
        enter(self.built, phase)
        self.optimizer = build_optimizer(settings.optimizer, self.model, phase.settings, self.built.blocks)
        self.loss = build_loss(settings.loss)

    def step(self, images: int) -> Callable[[], None]:
        """Return a function that makes a whole step: forward, backward, optimizer."""
        noise = self._noise(images, self.settings.data.size)
        masks = (noise[:, :1] > 127).to(torch.uint8)

        def step() -> None:
            with self.compute.autocast():
                logits = self.model(noise)
            self.loss(logits, masks).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

        return step

    @torch.inference_mode()
    def validate(self, images: int) -> None:
        """Take a batch through the model as in validation, which takes tiles one by one."""
        data = self.settings.data
        with self.compute.autocast():
            self.model.eval()(self._noise(images if data.eval_tile is None else 1, data.evaluation_size))
        train_mode(self.model, self.phase.scope)

    def _noise(self, images: int, size: tuple[int, int]) -> Tensor:
        return torch.randint(256, (images, 3, *size), dtype=torch.uint8, device=self.compute.device)


def everything(phase: Phase) -> Phase:
    """Return a phase that trains everything but is otherwise the same: the baseline for what freezing saves."""
    settings = replace(phase.settings, backbone="all", decoder="all", freeze=[], stop_gradient=None, batchnorm="train")
    return Phase("everything", settings, Scope(("backbone", "decoder")))


def announce(phases: Sequence[Phase], number: int, of_phase: Facts) -> None:
    """Print the heading of a phase, counted from 1.

    Raises:
        UserError: Facts are missing.
    """
    phase = phases[number - 1]
    check_facts(phase.name, of_phase)  # those of a resumed phase come from a file
    banner(f"phase {number}/{len(phases)}: {phase.name}", brief(of_phase, phase.settings))


def brief(of_phase: Facts, phase: PhaseSettings) -> list[str]:
    """Return the facts of a phase as lines for the terminal."""
    length = f"epochs  {phase.epochs}" if phase.steps is None else f"steps   {phase.steps}"
    if phase.until:
        length += f" at most, until {phase.patience} epochs bring no better Dice"
    optimizer = f"{length}, {of_phase['optimizer']} at {phase.lr:g}"
    of_backbone = not all(part.startswith("decoder") for part in of_phase["trains"].split(", "))
    if of_backbone:
        optimizer += f", the backbone at {phase.lr * phase.backbone_lr_scale:g}"
        if phase.layer_decay < 1:
            optimizer += f" times {phase.layer_decay:g} for each block further from the decoder"
    frozen = of_phase["frozen"] or "nothing"
    if phase.batchnorm == "frozen" and of_backbone:
        frozen += "; BatchNorm of the whole backbone"
    if phase.freeze:
        lists = {"backbone": phase.backbone, "decoder": phase.decoder}
        named = [f"{key}={_listed(value)}" for key, value in lists.items() if value != "all"]
        frozen += f"; freeze={_listed(phase.freeze)}{' wins over ' if named else ''}{' and '.join(named)}"
    return [
        f"trains  {of_phase['trains']}",
        f"frozen  {frozen}",
        f"{of_phase['trainable']:,} of {of_phase['parameters']:,} parameters train, "
        f"{of_phase['optimizer_bytes'] / 1e6:,.1f} MB of optimizer state",
        f"gradients stop at {of_phase['backward_stops']}",
        optimizer,
    ]


def _listed(value: int | str | list[str]) -> str:
    """Return the value of a setting as it is written on the command line, of a long list the first items."""
    if not isinstance(value, list):
        return str(value)
    more = f" and {len(value) - 6} more" if len(value) > 6 else ""
    return f"[{','.join(value[:6])}{more}]"


def _decoder(decoder: nn.Module, *, trains: bool) -> str:
    """Return the name of the decoder, or of its modules that train, or do not, if this differs within it."""
    chosen = {name for name, parameter in decoder.named_parameters() if parameter.requires_grad is trains}
    if len(chosen) == len(list(decoder.parameters())):
        return "decoder"
    return some((f"decoder.{path}" for path in cover(decoder, chosen)), 4)


def _spans(parts: Mapping[str, tuple[int, int]], chosen: Callable[[int, int], bool], decoder: str = "decoder") -> str:
    """Return the names of the chosen parts, neighbouring blocks joined: `block4 … block8, decoder`."""
    spans: list[list[str]] = [[]]
    for name, (trainable, total) in parts.items():
        if name == "decoder" or not chosen(trainable, total):
            spans.append([])
        if chosen(trainable, total):
            spans[-1].append(decoder if name == "decoder" else name)
    return ", ".join(span[0] if len(span) == 1 else f"{span[0]} … {span[-1]}" for span in spans if span)
