"""Set a backbone's output stride: strides beyond it become dilation, in convolutions and poolings alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.errors import UserError
from segtune.models.receptive_field import PROBE_SIZE, Fields, dry_run, one_size

_Pair = tuple[int, int]


@dataclass(frozen=True)
class _Window:
    """The sliding window of a layer, in rows and columns."""

    kernel: _Pair
    stride: _Pair
    padding: _Pair
    dilation: _Pair

    def dilated(self, factor: int, keep: int) -> "tuple[_Window, tuple[int, int, int, int]]":
        """Return the window that keeps strides up to `keep` on a map `factor` times finer, and its padding by side.

        At the top and left, windows start where the strided ones did. At the bottom and right, a layer that loses its
        stride is padded so that its map keeps the size of its input; any other layer gets `factor` times its padding.
        """
        stride = _pair(min(s, keep) for s in self.stride)
        near = [p * factor for p in self.padding]
        far = [
            factor * (d * (k - 1) - p) - (after - 1) if before > 1 else p * factor
            for k, before, after, p, d in zip(
                self.kernel, self.stride, stride, self.padding, self.dilation, strict=True
            )
        ]
        dilation = _pair(d * factor for d in self.dilation)
        sides = (near[1], max(0, far[1]), near[0], max(0, far[0]))  # left, right, top, bottom, as F.pad wants them
        return _Window(self.kernel, stride, (0, 0), dilation), sides


class PaddedConv2d(nn.Conv2d):
    """A convolution whose four sides are padded with zeros by different amounts: `sides` left, right, top, bottom."""

    sides: tuple[int, int, int, int]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        convolved: Tensor = self._conv_forward(F.pad(x, self.sides), self.weight, self.bias)
        return convolved


class DilatedMaxPool2d(nn.Module):
    """A max-pooling with padding of any amount on each side; PyTorch's own allows half the kernel only."""

    def __init__(self, window: _Window, sides: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation = window.kernel, window.stride, window.dilation
        self.sides = sides

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, H, W)."""
        x = F.pad(x, self.sides, value=float("-inf"))
        return F.max_pool2d(x, self.kernel_size, stride=self.stride, dilation=self.dilation)


class DilatedAvgPool2d(nn.Module):
    """An average-pooling with dilation, which PyTorch lacks; `counted` sides of its padding count as zeros."""

    def __init__(self, window: _Window, sides: tuple[int, int, int, int], counted: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation = window.kernel, window.stride, window.dilation
        self.sides, self.counted = sides, counted

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, H, W)."""
        places = F.pad(torch.ones_like(x[:1, :1]), self.counted, value=1.0)
        places = F.pad(places, [side - count for side, count in zip(self.sides, self.counted, strict=True)])
        return self._sums(F.pad(x, self.sides)) / self._sums(places)

    def _sums(self, x: Tensor) -> Tensor:
        kernel = x.new_ones(x.shape[1], 1, *self.kernel_size)
        return F.conv2d(x, kernel, stride=self.stride, dilation=self.dilation, groups=x.shape[1])


def set_output_stride(network: nn.Module, output_stride: int, name: str = "the network") -> None:
    """Turn strides beyond `output_stride` into dilation, in place (Chen et al. 2017, "Rethinking Atrous Convolution").

    Convolutions and poolings are treated alike: a layer that would make the map coarser than wanted keeps its size, and
    the dilation of all layers behind it grows by the strides removed. On input aligned with the strides the network
    then computes, at every n-th pixel, what the strided one does.

    Args:
        network: An uncut backbone that takes (N, 3, H, W).
        output_stride: 8, 16 or 32 input pixels for one pixel of the deepest map.
        name: The network's name, for messages.

    Raises:
        UserError: A layer has a stride that cannot be turned into dilation, or the network takes images of one size
            only.
    """
    try:
        found = list(_strides(network))
    except Exception as error:  # a forward pass can raise anything
        raise UserError(one_size(name)) from error
    for path, module, before, after in found:
        if after > output_stride:
            keep = max(1, output_stride // max(1, before))
            if not _dilate(network, path, module, max(1, before // output_stride), keep):
                raise UserError(
                    _cannot(name, output_stride, f"{path} ({type(module).__name__}) makes maps of stride {after}")
                )
    try:
        coarse = [(path, after) for path, _, _, after in _strides(network) if after > output_stride]
    except RuntimeError as error:
        raise UserError(_cannot(name, output_stride, "it has parallel branches of different strides")) from error
    if coarse:
        raise UserError(_cannot(name, output_stride, f"a layer in front of {coarse[0][0]} has a stride"))


def _cannot(name: str, output_stride: int, why: str) -> str:
    return (
        f"backbone.output_stride={output_stride} is not supported for {name}: {why} that segtune cannot turn into "
        "dilation. Leave it null, and choose taps of the strides you want."
    )


def _strides(network: nn.Module) -> Iterator[tuple[str, nn.Module, int, int]]:
    """Return each convolution and pooling with the strides of the maps in front of it and behind it."""
    like = next(network.parameters())
    image = torch.zeros(1, 3, *PROBE_SIZE, device=like.device, dtype=like.dtype)
    fields = Fields(image)
    found: list[tuple[str, nn.Module, int, int]] = []

    def note(path: str, module: nn.Module, args: Any, out: Tensor) -> None:
        before, after = fields.of(args[0]), fields.of(out)
        if before and after and before.spans and after.spans and after.is_map(out):
            found.append((path, module, int(before.stride), int(after.stride)))

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, DilatedMaxPool2d, DilatedAvgPool2d)
    hooks = [
        module.register_forward_hook(lambda m, args, out, path=path: note(path, m, args, out))
        for path, module in network.named_modules()
        if isinstance(module, kinds)
    ]
    try:
        dry_run(network, image, fields)
    finally:
        for hook in hooks:
            hook.remove()
    yield from found


def _pair(values: Any) -> _Pair:
    if isinstance(values, int):
        return (values, values)
    first, second = values
    return (int(first), int(second))


def _dilate(network: nn.Module, path: str, module: nn.Module, factor: int, keep: int) -> bool:
    """Dilate a layer, in place; return whether that is possible."""
    if isinstance(module, nn.Conv2d):
        return _dilate_convolution(module, factor, keep)
    if not isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return False
    if type(module) not in (nn.MaxPool2d, nn.AvgPool2d) or getattr(module, "divisor_override", None):
        return False
    stride = module.kernel_size if module.stride is None else module.stride
    own = _pair(getattr(module, "dilation", 1))
    window = _Window(_pair(module.kernel_size), _pair(stride), _pair(module.padding), own)
    dilated, sides = window.dilated(factor, keep)
    if isinstance(module, nn.MaxPool2d):
        network.set_submodule(path, DilatedMaxPool2d(dilated, sides))
    else:
        rows, columns = (p * factor if module.count_include_pad else 0 for p in window.padding)
        network.set_submodule(
            path, DilatedAvgPool2d(dilated, sides, (columns, min(columns, sides[1]), rows, min(rows, sides[3])))
        )
    return True


def _dilate_convolution(module: nn.Conv2d, factor: int, keep: int) -> bool:
    same = _pads_as_tensorflow(module)
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        return False
    padding = _pair(module.padding)
    if same:  # of the zeros that keep a strided map's size, the odd one lies behind it
        padding = _pair(
            max(d * (k - 1) + 1 - s, 0) // 2
            for k, s, d in zip(module.kernel_size, module.stride, module.dilation, strict=True)
        )
    window = _Window(_pair(module.kernel_size), _pair(module.stride), padding, _pair(module.dilation))
    dilated, sides = window.dilated(factor, keep)
    left, right, top, bottom = sides
    symmetric = (left, top) == (right, bottom) and not same
    if not symmetric and not same and type(module) is not nn.Conv2d:
        return False
    module.stride, module.dilation = dilated.stride, dilated.dilation
    if symmetric:
        module.padding = (top, left)
    else:
        module.padding, module.__class__ = (0, 0), PaddedConv2d
        module.sides = sides  # type: ignore[assignment]
    return True


def _pads_as_tensorflow(module: nn.Conv2d) -> bool:
    """Return whether a convolution's padding depends on its input's size, as in networks ported from TensorFlow."""
    return type(module).__name__ == "Conv2dSame"
