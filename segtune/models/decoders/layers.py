"""Layers and functions that the decoders share."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Tolerant:
    """Lets a batch normalisation use its running statistics if a batch has one value per channel.

    A batch of one image leaves a single value per channel behind a global pooling. It has no variance: PyTorch raises.
    """

    training: bool

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        alone = self.training and x.numel() == x.shape[1]
        self.training = self.training and not alone
        try:
            normalised: Tensor = super().forward(x)  # type: ignore[misc]
        finally:
            self.training = self.training or alone
        return normalised


class BatchNorm2d(_Tolerant, nn.BatchNorm2d):
    """Batch normalisation that takes batches of any size."""


def tolerate_single_values(module: nn.Module) -> nn.Module:
    """Let every 2D batch normalisation inside a module take batches of any size, in place, and return the module."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, _Tolerant):
            kind: Any = type(child)
            child.__class__ = _tolerant(kind)  # its values and settings stay
    return module


@cache
def _tolerant(kind: type) -> type:
    return BatchNorm2d if kind is nn.BatchNorm2d else type(kind.__name__, (_Tolerant, kind), {})


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize a map (N, C, H, W) bilinearly to `size` (height, width); a map of that size is returned as it is."""
    # An exported program must work for every size; a comparison would specialise it to the example's outcome.
    # Resizing to the same size changes no value.
    if not torch.compiler.is_exporting() and x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
