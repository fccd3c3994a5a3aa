"""The cost of a forward pass for given taps: counted without computing anything, or measured."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segtune.config.model_settings import DecoderSettings
from segtune.config.schema import RunSettings
from segtune.errors import UserError
from segtune.models.backbones.registry import spec_of
from segtune.models.build import build_decoder
from segtune.models.decoders.registry import DECODERS
from segtune.models.dilation import set_output_stride
from segtune.models.layer_info import BackboneSummary
from segtune.models.receptive_field import dry_run
from segtune.models.tapped import TappedBackbone
from segtune.models.taps import cut
from segtune.runtime.device import resolve_device
from segtune.runtime.measure import measure

Saving = dict[str, tuple[float, float]]


def multiply_adds(network: nn.Module, inputs: Any) -> int:
    """Return the multiply-adds of a forward pass: half of what PyTorch counts as operations."""
    counter = FlopCounterMode(display=False)
    dry_run(network, inputs, counter)
    return counter.get_total_flops() // 2


def saving(tapped: TappedBackbone, decoder: DecoderSettings) -> Saving:
    """Return what the cut backbone costs and what the whole one does; a decoder is built, to check that all fits.

    Raises:
        UserError: The taps do not fit each other or the decoder.
    """
    with torch.device("meta"):
        trunk, features = tapped.cut()
        build_decoder(decoder, features)
    summary = tapped.summary
    parameters = sum(parameter.numel() for parameter in trunk.parameters())
    macs = summary.macs_of(feature.node for feature in features.values())
    return {"parameters": (parameters, summary.parameters), "multiply-adds": (macs, summary.macs)}


def model_macs(summary: BackboneSummary, names: Sequence[str], settings: DecoderSettings) -> int | None:
    """Return the multiply-adds of a model with these taps, for one image; None if they do not fit the decoder."""
    roles = DECODERS[settings.name].roles
    try:
        layers = dict(zip(roles, (summary.by_name[name] for name in names), strict=True))
        with torch.device("meta"):
            features = {role: torch.empty(1, n.channels, n.height, n.width) for role, n in layers.items()}
            return summary.macs_of(names) + multiply_adds(build_decoder(settings, layers), features)
    except (UserError, ValueError):
        return None


def measured_saving(settings: RunSettings, nodes: Mapping[str, str]) -> Saving:
    """Return time per image and memory of a forward pass, cut and whole, each measured in a process of its own."""
    cut_cost, whole_cost = (measure(partial(_job, settings, taps)) for taps in (nodes, None))
    batch = settings.train.images_per_batch
    found: Saving = {"time, measured": (cut_cost.seconds / batch, whole_cost.seconds / batch)}
    if cut_cost.memory is not None and whole_cost.memory is not None:
        found["memory, measured"] = (cut_cost.memory, whole_cost.memory)
    return found


def _job(settings: RunSettings, nodes: Mapping[str, str] | None) -> tuple[Callable[[], None], torch.device]:
    """Return a forward pass of the backbone, cut or whole, for `segtune.runtime.measure.measure`; no weights needed."""
    compute, spec = resolve_device(settings.train), spec_of(settings.backbone.name)
    network: nn.Module = spec.build()
    if settings.backbone.output_stride:
        set_output_stride(network, settings.backbone.output_stride, spec.name)
    if nodes:
        network = cut(network, nodes, spec, found=nodes)[0]
    network = network.eval().to(compute.device).to(memory_format=torch.channels_last)
    images = torch.zeros(settings.train.images_per_batch, 3, *settings.data.size, device=compute.device)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.no_grad(), compute.autocast():
            network(images)

    return step, compute.device
