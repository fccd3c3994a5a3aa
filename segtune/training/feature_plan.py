"""What keeping the features of a phase would take and save, said without data: for the command `plan`."""

import math
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from segtune.config.schema import RunSettings
from segtune.models.build import BuiltModel
from segtune.models.layer_info import without_values
from segtune.models.receptive_field import dry_run
from segtune.models.split import split_backbone
from segtune.runtime.device import Device
from segtune.training.feature_form import DTYPES
from segtune.training.phases import Phase, entered


def feature_facts(built: BuiltModel, phase: Phase, settings: RunSettings, compute: Device) -> dict[str, Any] | None:
    """Return what the frozen part of a phase is, or None if it has none whose features could be kept.

    Returns:
        `frozen_to`, its last layer; `bytes` that are kept of an image with its mask, in each view; `flops` that its
        frozen part takes, counted as in `segtune.training.step_cost`; `views` of each image.
    """
    with entered(built, phase):
        split = split_backbone(built.model.backbone)
        if split is None:
            return None
        counter, size = FlopCounterMode(display=False), settings.data.size
        crossing = dry_run(without_values(split.frozen), torch.empty(1, 3, *size, device="meta"), counter)
    kept = DTYPES.get(settings.cache.dtype, compute.dtype)
    each = sum(v.numel() * (kept if v.is_floating_point() else v.dtype).itemsize for v in crossing.values())
    return {
        "frozen_to": split.end,
        "bytes": each + math.prod(size),  # of the mask, a byte for each pixel
        "flops": counter.get_total_flops(),
        "views": settings.cache.views if settings.augment.random else 1,
    }


def feature_line(facts: dict[str, Any] | None, phase: Phase, settings: RunSettings, step_flops: int) -> str:
    """Return a line on what keeping the features of a phase takes, saves, and whether `cache.mode` keeps them.

    Args:
        facts: What `feature_facts` returned.
        phase: The phase.
        settings: The settings.
        step_flops: Operations of a whole step of the phase.
    """
    if facts is None:
        return "features  nothing to keep: the first layer trains"
    views, epochs, mode = facts["views"], phase.settings.epochs, settings.cache.mode
    used = views if epochs is None else min(views, epochs)
    of = "1,000 images" if used == 1 else f"1,000 images x {used} views"
    share = settings.train.images_per_batch * facts["flops"] / max(step_flops, 1)
    if mode == "auto" and epochs is not None and epochs <= used:
        then = f"auto keeps none: in {epochs} epochs no view of an image comes twice (cache.views={views})"
    else:
        then = {
            "auto": "auto keeps them where the phase gets shorter, which it measures",
            "off": "cache.mode=off keeps none",
        }.get(mode, f"cache.mode={mode} keeps them")
    return (
        f"features  up to {facts['frozen_to']} can be kept: {facts['bytes'] / 1e6:,.2f} MB for an image and view, "
        f"{facts['bytes'] * used / 1e6:,.1f} GB for {of}; each step then saves {share:.0%} of its computation. {then}"
    )
