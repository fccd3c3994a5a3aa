"""Optimizer of a phase."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from timm.optim.rmsprop_tf import RMSpropTF
from torch import nn

from segtune.config.training_settings import OPTIMIZER_DEFAULTS, OptimizerSettings, PhaseSettings
from segtune.training.freezing import block_of
from segtune.training.selection import Blocks, present_blocks

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "rmsprop_tf": RMSpropTF,
}

#: Those of which PyTorch has a step in one kernel, and where it is used; the others go by groups of tensors on CUDA.
#: On a CPU a step of AdamW takes a fraction so of what it takes one tensor after another, and groups are slower still.
FUSED = ("adamw", "adam", "sgd")
_FUSED_ON = ("cpu", "cuda")


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
    options = {name: settings.options[name] for name in OPTIMIZER_DEFAULTS[settings.name]}
    if "epsilon" in options:
        options["eps"] = options.pop("epsilon")
    if "betas" in options:
        options["betas"] = tuple(options["betas"])
    if settings.name in FUSED and next(model.parameters()).device.type in _FUSED_ON:
        options["fused"] = True
    return OPTIMIZERS[settings.name](list(groups.values()), **options)
