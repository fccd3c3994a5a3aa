"""Dilated depthwise convolutions on CPUs, as sums of shifted maps."""

from collections.abc import Iterator
from itertools import product
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Up to this dilation oneDNN has a fast kernel for the forward pass, on processors with AVX-512.
_FAST_DILATION = 6


def hasten_dilated(module: nn.Module) -> nn.Module:
    """Let the dilated depthwise convolutions inside a module take this file's way, in place, and return the module.

    Those of stride 1 with odd kernels and as much zero padding as keeps the size. Their values and names stay.
    """
    for child in module.modules():
        if type(child) is nn.Conv2d and _is_meant(child):
            child.__class__ = DepthwiseConv2d
    return module


def _is_meant(layer: nn.Conv2d) -> bool:
    same = tuple(rate * (size // 2) for rate, size in zip(layer.dilation, layer.kernel_size, strict=True))
    return (
        max(layer.dilation) > 1
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.stride == (1, 1)
        and all(size % 2 for size in layer.kernel_size)
        and layer.padding in (same, "same")
        and layer.padding_mode == "zeros"
    )


class DepthwiseConv2d(nn.Conv2d):
    """A dilated depthwise convolution that adds shifted maps on CPUs; elsewhere, and compiled, it is PyTorch's.

    oneDNN computes the gradients of a dilated depthwise convolution, and beyond a dilation of 6 its values too, in
    its slow reference way: with rates of 6, 12 and 18 on 16 x 16 maps of 728 channels that is a quarter of the time of
    DeepLabV3+'s training step on ready features (docs/performance.md). As a sum over the kernel's positions, each of
    which multiplies a shifted map, only what overlaps is computed: at a dilation of the map's size the centre alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a map (N, C, H, W)."""
        if x.device.type != "cpu" or x.ndim != 4 or torch.compiler.is_compiling():
            return super().forward(x)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):  # which does not look into functions of our own
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
        y: Tensor = _Depthwise.apply(x, weight, self.dilation)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(1, -1, 1, 1)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
        """Convolve a map (N, C, H, W) with a kernel for each channel (C, 1, h, w)."""
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _convolve(x, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = None, None
        if ctx.needs_input_grad[0]:
            of_x = _convolve(gradient, weight.flip((2, 3)), ctx.dilation)
        if ctx.needs_input_grad[1]:
            wide, wide_gradient, sums = _wide(x), _wide(gradient), torch.zeros_like(_wide(weight))
            for i, j, to, source in _overlaps(x, weight, ctx.dilation):
                sums[:, 0, i, j] = (wide[source] * wide_gradient[to]).sum((0, 2, 3))
            of_weight = sums.to(weight.dtype)
        return of_x, of_weight, None


def _convolve(x: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    if max(dilation) <= _FAST_DILATION:
        return F.conv2d(x, weight, padding="same", dilation=dilation, groups=len(weight))
    wide, kernels = _wide(x), _wide(weight).permute(2, 3, 1, 0).contiguous()  # (h, w, 1, C)
    y = torch.zeros_like(wide)
    for i, j, to, source in _overlaps(x, weight, dilation):
        y[to].addcmul_(wide[source], kernels[i, j].view(1, -1, 1, 1))
    return y.to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    """Return a tensor in the precision of sums: float32 at least."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


_Part: TypeAlias = tuple[slice, slice, slice, slice]


def _overlaps(x: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Iterator[tuple[int, int, _Part, _Part]]:
    """Yield positions in the kernel, the part of the output that each reaches, and the input's part that it takes."""
    whole, sizes = slice(None), tuple(weight.shape[2:])
    for at in product(*map(range, sizes)):
        shifts = [(p - size // 2) * rate for p, size, rate in zip(at, sizes, dilation, strict=True)]
        spans = [(max(0, -by), min(side, side - by), by) for side, by in zip(x.shape[2:], shifts, strict=True)]
        if all(first < end for first, end, _ in spans):
            to = (whole, whole, *(slice(first, end) for first, end, _ in spans))
            source = (whole, whole, *(slice(first + by, end + by) for first, end, by in spans))
            yield *at, to, source  # type: ignore[misc]
