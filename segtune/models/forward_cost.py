"""What a forward pass costs with certain taps: counted without computing anything, or measured."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segtune.config.schema import DecoderSettings, RunSettings
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
    """Count the multiply-adds of a forward pass: half of what PyTorch counts as operations."""
    counter = FlopCounterMode(display=False)
    dry_run(network, inputs, counter)
    return counter.get_total_flops() // 2


def saving(tapped: TappedBackbone, decoder: DecoderSettings) -> Saving:
    """Compare the cut backbone with the whole one; the network is cut, and a decoder built, to see that all fits.

    Raises:
        UserError: The taps do not fit each other or the decoder.
    """
    with torch.device("meta"):
        trunk, features = tapped.cut()
        build_decoder(decoder, features)
    anatomy = tapped.anatomy
    parameters = sum(parameter.numel() for parameter in trunk.parameters())
    macs = anatomy.macs_of(feature.node for feature in features.values())
    return {"parameters": (parameters, anatomy.parameters), "multiply-adds": (macs, anatomy.macs)}


def model_macs(anatomy: BackboneSummary, names: Sequence[str], settings: DecoderSettings) -> int | None:
    """Count the multiply-adds of a model with these taps, for a picture; None where they do not fit the decoder."""
    roles = DECODERS[settings.name].roles  # type: ignore[attr-defined]
    try:
        layers = dict(zip(roles, (anatomy.by_name[name] for name in names), strict=True))
        with torch.device("meta"):
            features = {role: torch.empty(1, n.channels, n.height, n.width) for role, n in layers.items()}
            return anatomy.macs_of(names) + multiply_adds(build_decoder(settings, layers), features)
    except (UserError, ValueError):
        return None


def measured_saving(settings: RunSettings, nodes: Mapping[str, str]) -> Saving:
    """Measure time and memory of a forward pass of `train.batch_size` pictures, each in a process of its own."""
    here, there = (measure(partial(_job, settings, taps)) for taps in (nodes, None))
    batch = settings.train.batch_size
    found: Saving = {"time, measured": (here.seconds / batch, there.seconds / batch)}
    if here.memory is not None and there.memory is not None:
        found["memory, measured"] = (here.memory, there.memory)
    return found


def _job(settings: RunSettings, nodes: Mapping[str, str] | None) -> tuple[Callable[[], None], torch.device]:
    """Make a forward pass of the backbone, cut or whole, for `segtune.runtime.measure.measure`: it needs no weights."""
    compute, spec = resolve_device(settings.train), spec_of(settings.backbone.name)
    network: nn.Module = spec.build()
    if settings.backbone.output_stride:
        set_output_stride(network, settings.backbone.output_stride, spec.name)
    if nodes:
        network = cut(network, nodes, spec, found=nodes)[0]
    network = network.eval().to(compute.device).to(memory_format=torch.channels_last)
    images = torch.zeros(settings.train.batch_size, 3, *settings.data.size, device=compute.device)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.no_grad(), compute.autocast():
            network(images)

    return step, compute.device
