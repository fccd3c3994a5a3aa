"""Optimizer and learning-rate schedule of a phase."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from segtune.config.training_settings import OptimizerSettings, PhaseSettings
from segtune.training.freezing import Blocks, block_of, present_blocks

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


def build_optimizer(
    settings: OptimizerSettings, model: nn.Module, phase: PhaseSettings, blocks: Blocks
) -> torch.optim.Optimizer:
    """Return a fresh optimizer over the parameters that train.

    Blocks of the backbone have their own learning rates (layer-wise decay as in ULMFiT, Howard and Ruder 2018, and
    BEiT); normalisation layers and biases have no weight decay.
    """
    settings = settings.of_phase(phase)
    depth = list(present_blocks(model.get_submodule("backbone"), blocks))
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, decays = block_of(name, blocks), parameter.ndim > 1
        lr = phase.lr
        if part != "decoder":
            above = len(depth) - 1 - depth.index(part) if part in depth else 0
            lr *= phase.backbone_lr_scale * phase.layer_decay**above
        group = {"params": [], "lr": lr, "weight_decay": settings.weight_decay * decays}
        groups.setdefault((lr, decays), group)["params"].append(parameter)
    betas = (settings.betas[0], settings.betas[1])
    return OPTIMIZERS[settings.name](
        list(groups.values()), **({"momentum": settings.momentum} if settings.name == "sgd" else {"betas": betas})
    )


def build_schedule(
    settings: OptimizerSettings, optimizer: torch.optim.Optimizer, phase: PhaseSettings, steps: int
) -> LambdaLR:
    """Return a schedule of the phase's `steps`: linear warm-up, then constant or a decay to zero."""
    settings = settings.of_phase(phase)
    warm = int(settings.warmup * steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        done = min(1.0, (step - warm) / max(1, steps - warm))
        match settings.schedule:
            case "cosine":
                # In float32: math.cos and PyTorch's own schedulers differ in the last bits from earlier runs.
                return float(0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item()))
            case "poly":
                return float((1 - done) ** settings.power)
            case "constant":
                return 1.0

    return LambdaLR(optimizer, factor)
