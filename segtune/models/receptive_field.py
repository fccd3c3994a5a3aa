"""Receptive fields, derived from a forward pass operation by operation.

The arithmetic is that of Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks"
(Distill), on intervals, so that branches of different alignment join exactly.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

_aten = torch.ops.aten

#: Height and width of the input on which strides are measured, in pixels: multiples of every stride in use.
PROBE_SIZE = (128, 160)


@dataclass(frozen=True)
class Span:
    """The receptive field along one axis: pixel `i` depends on input `first + i * stride` to `last + i * stride`."""

    stride: Fraction
    first: Fraction
    last: Fraction

    @property
    def size(self) -> int:
        """Input pixels that one pixel depends on."""
        return ceil(self.last - self.first) + 1

    def through(self, kernel: int, stride: int, padding: int, dilation: int) -> "Span":
        """Return the span behind a window that slides over the map."""
        first = self.first - padding * self.stride
        return Span(self.stride * stride, first, self.last + ((kernel - 1) * dilation - padding) * self.stride)

    def joined(self, other: "Span") -> "Span":
        """Return the span of a map that two maps of one size are joined to."""
        return Span(max(self.stride, other.stride), min(self.first, other.first), max(self.last, other.last))


@dataclass(frozen=True)
class Field:
    """What a pixel of a map depends on: `spans` of rows and columns and, with `whole`, the whole image.

    The latter comes from global poolings (squeeze and excitation), attention and normalisation over the image.
    `spans` is None if only a global pooling is in between. `shape` is (C, H, W) of the last map on the way: it tells
    apart moved channel axes and rows that are cut into patches. With `channels_last` the axes have been moved to
    (H, W, C), which shapes alone do not show if C, H and W are equal.
    """

    spans: tuple[Span, Span] | None
    whole: bool
    shape: tuple[int, ...]
    channels_last: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in input pixels."""
        return (self.spans[0].size, self.spans[1].size) if self.spans else (0, 0)

    @property
    def stride(self) -> Fraction:
        """Input pixels from one pixel to the next; the larger of the two axes."""
        return max(span.stride for span in self.spans) if self.spans else Fraction(0)

    def is_map(self, tensor: Tensor) -> bool:
        """Return whether a tensor with this field is a map (1, C, H, W), without heads or another layout."""
        plain = self.spans is not None and not self.channels_last and len(tensor) == 1
        return plain and tuple(tensor.shape[1:]) == self.shape


class Fields(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows one image, or several maps, through all operations inside the block.

    It knows convolutions, poolings, resizing, padding, slices, patches cut by reshaping, reductions, attention and
    joins; every other operation counts as pixelwise. For resizing, the field is an upper bound.
    """

    def __init__(self, *images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fields = WeakTensorKeyDictionary()
        pixel = Span(Fraction(1), Fraction(0), Fraction(0))
        for image in images:
            self._fields[image] = Field((pixel, pixel), False, tuple(image.shape[1:]))

    def of(self, tensor: Tensor) -> Field | None:
        """Return a tensor's field; None if it does not depend on the image."""
        found: Field | None = self._fields.get(tensor)  # type: ignore[no-untyped-call]
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and record what its result depends on."""
        inputs = [(t, field) for t in _tensors(args) if (field := self.of(t))]
        shapes = [tuple(t.shape) for t, _ in inputs]
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if inputs:
            field = _joined(field for _, field in inputs)
            for result in _tensors([out]):
                if packet in _PRODUCTS and len(inputs) > 1:
                    field = _multiplied(inputs[0][1], field, shapes[0], result)
                self._fields[result] = _behind(packet, args, shapes, field, result)
        return out


def dry_run(network: nn.Module, image: Any, watch: AbstractContextManager[Any]) -> Any:
    """Return what a network returns in evaluation mode and without gradients, while `watch` follows or counts."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), watch:
            return network(image)
    finally:
        network.train(was_training)


def one_size(name: str) -> str:
    """Return the message that a network cannot take images of `PROBE_SIZE`."""
    return (
        f"{name} cannot take images of {PROBE_SIZE[0]} x {PROBE_SIZE[1]} pixels. A network made for one size only, "
        "as most vision transformers are, cannot be used."
    )


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _joined(fields: Iterable[Field]) -> Field:
    first, *rest = fields
    for other in rest:
        spans = first.spans or other.spans
        like = first if first.spans else other
        if first.spans and other.spans:
            spans = (first.spans[0].joined(other.spans[0]), first.spans[1].joined(other.spans[1]))
        first = Field(spans, first.whole or other.whole, like.shape, like.channels_last)
    return first


def _multiplied(first: Field, joined: Field, shape: tuple[int, ...], out: Tensor) -> Field:
    """Return the field of a product: it has the positions of its first factor (the queries), unless summed over."""
    if first.spans is None:
        return replace(joined, whole=True)
    places = first.shape[-2] * first.shape[-1]
    summed = shape[-1] == places and places not in out.shape[-2:]
    return replace(first, spans=None if summed else first.spans, whole=True)


def _behind(packet: Any, args: Sequence[Any], shapes: list[tuple[int, ...]], field: Field, out: Tensor) -> Field:
    """Return the field of an operation's result, given the joined field and the shapes of its inputs."""
    if spans := field.spans:
        if rule := _WINDOWS.get(packet):
            field = replace(field, spans=_slid(spans, *rule(args)))
        elif packet is _aten.convolution:
            field = _convolved(field, args, shapes[0])
        elif packet in _RESIZES:
            field = replace(field, spans=_resized(spans, shapes[0], out, packet))
        elif packet in _PADS:
            near = (args[1][2] if len(args[1]) > 2 else 0), args[1][0]
            field = replace(field, spans=_slid(spans, (1, 1), (1, 1), near, (1, 1)))
        elif packet is _aten.slice:
            field = _sliced(field, args, shapes[0], out)
        elif packet is _aten.permute and out.ndim == 4:
            field = _moved(field, args, shapes[0])
        elif packet in _RESHAPES and out.ndim == 4:
            field = _cut_into_patches(field, out)
        elif packet in _GLOBAL or (packet in _REDUCTIONS and _loses_places(field, args, shapes[0])):
            # A norm keeps the positions of its input; a pooling or a reduction keeps only values.
            field = replace(field, spans=spans if packet in _GLOBAL_NORMS else None, whole=True)
    if out.ndim == 4 and packet in _SPATIAL:
        field = replace(field, shape=tuple(out.shape[1:]), channels_last=False)
    elif out.ndim == 4 and tuple(out.shape[2:]) == field.shape[1:]:
        field = replace(field, shape=tuple(out.shape[1:]))
    elif out.ndim == 3:  # rows and columns in one
        field = replace(field, channels_last=False)
    return field


_Pair = tuple[int, int]


def _slid(
    spans: tuple[Span, Span],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Span, Span]:
    rows, columns = (s.through(*w) for s, *w in zip(spans, kernel, stride, padding, dilation, strict=True))
    return rows, columns


def _two(value: Sequence[int]) -> _Pair:
    return (value[0], value[-1])


def _argument(args: Sequence[Any], index: int, default: Sequence[int]) -> Sequence[int]:
    return args[index] if len(args) > index and args[index] else default


def _pooling(args: Sequence[Any]) -> tuple[_Pair, _Pair, _Pair, _Pair]:
    kernel = _two(args[1])
    stride, padding = _two(_argument(args, 2, kernel)), _two(_argument(args, 3, (0, 0)))
    return kernel, stride, padding, (1, 1)


def _max_pooling(args: Sequence[Any]) -> tuple[_Pair, _Pair, _Pair, _Pair]:
    return (*_pooling(args)[:3], _two(_argument(args, 4, (1, 1))))


def _convolved(field: Field, args: Sequence[Any], shape: tuple[int, ...]) -> Field:
    kernel, stride, padding, dilation = args[1].shape[2:], args[3], args[4], args[5]
    if len(shape) != 4 or field.spans is None:  # over a sequence, such as channels
        return field
    if not args[6]:
        return replace(field, spans=_slid(field.spans, kernel, stride, padding, dilation))
    spans = [
        Span(s.stride / n, s.first + Fraction(p - (k - 1) * d, n) * s.stride, s.last + Fraction(p, n) * s.stride)
        for s, k, n, p, d in zip(field.spans, kernel, stride, padding, dilation, strict=True)
    ]
    return replace(field, spans=(spans[0], spans[1]))


def _resized(spans: tuple[Span, Span], before: tuple[int, ...], out: Tensor, packet: Any) -> tuple[Span, Span]:
    found = []
    for span, n, m in zip(spans, before[2:], out.shape[2:], strict=True):
        ratio = Fraction(n, m)
        if packet is _aten.upsample_nearest2d:
            near, far = 1 - Fraction(1, ratio.denominator), Fraction(0)
        else:
            more = int(packet is _aten.upsample_bicubic2d)
            near, far = (3 - ratio) / 2 + more, (1 + ratio) / 2 + more
        found.append(Span(span.stride * ratio, span.first - near * span.stride, span.last + far * span.stride))
    return found[0], found[1]


def _moved(field: Field, args: Sequence[Any], shape: tuple[int, ...]) -> Field:
    """Return the field after a permutation that moves the channels to the end, or back."""
    axes = [axis % 4 for axis in args[1]]
    if not field.channels_last and field.shape == shape[1:] and axes == [0, 2, 3, 1]:
        return replace(field, channels_last=True)
    return replace(field, channels_last=False) if axes == [0, 3, 1, 2] else field


def _sliced(field: Field, args: Sequence[Any], shape: tuple[int, ...], out: Tensor) -> Field:
    axis = (args[1] if len(args) > 1 else 0) % len(shape) - 2
    if len(shape) != 4 or axis < 0 or field.spans is None or field.shape != shape[1:] or field.channels_last:
        return field
    start, step = (args[2] or 0) if len(args) > 2 else 0, args[4] if len(args) > 4 else 1
    start = max(0, start + shape[axis + 2]) if start < 0 else start
    spans = list(field.spans)
    spans[axis] = spans[axis].through(1, step, -start, 1)
    return replace(field, spans=(spans[0], spans[1]), shape=tuple(out.shape[1:]))


def _cut_into_patches(field: Field, out: Tensor) -> Field:
    """Return the field after a reshape: if patches became channels (space to depth), that of the whole patch."""
    (c, h, w), (channels, rows, columns) = field.shape[-3:], out.shape[1:]
    if field.spans is None or len(field.shape) != 3 or (rows, columns) == (h, w) or rows < 2 or columns < 2:
        return field
    if (channels, rows) == (h, w):  # channels last
        return field
    down, right = h // rows, w // columns
    # Patches are square; a tensor of heads (HW, heads, C / heads) has as many values.
    if down != right or (rows * down, columns * right, channels) != (h, w, c * down * right):
        return field
    spans = _slid(field.spans, (down, right), (down, right), (0, 0), (1, 1))
    return replace(field, spans=spans, shape=tuple(out.shape[1:]))


def _loses_places(field: Field, args: Sequence[Any], shape: tuple[int, ...]) -> bool:
    """Return whether a reduction goes over rows or columns, not only over channels."""
    h, w = field.shape[-2:]
    rows = [i for i in range(len(shape) - 1) if shape[i : i + 2] == (h, w)]
    if not rows:  # rows and columns in one
        places = {i for i, n in enumerate(shape) if i and n == h * w}
    else:
        first = rows[0 if field.channels_last else -1]
        places = {first, first + 1}
    axes = next((each for each in args[1:] if isinstance(each, list | tuple)), None)
    return bool(places) and (not axes or bool(places & {axis % len(shape) for axis in axes}))


_WINDOWS: Mapping[Any, Callable[[Sequence[Any]], tuple[_Pair, _Pair, _Pair, _Pair]]] = {
    _aten.avg_pool2d: _pooling,
    _aten.max_pool2d_with_indices: _max_pooling,
    _aten.max_pool2d: _max_pooling,
}
_RESIZES = {_aten.upsample_nearest2d, _aten.upsample_bilinear2d, _aten.upsample_bicubic2d}
_PADS = {_aten.constant_pad_nd, _aten.reflection_pad2d, _aten.replication_pad2d}
_RESHAPES = {_aten.view, _aten._unsafe_view, _aten.reshape, _aten.clone}
_SPATIAL = {*_WINDOWS, *_RESIZES, *_PADS, _aten.convolution}
_GLOBAL_NORMS = {_aten.native_group_norm}
_ATTENTION = {
    _aten._scaled_dot_product_flash_attention_for_cpu,
    _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_efficient_attention,
    _aten._scaled_dot_product_attention_math,
}
_GLOBAL = {_aten._adaptive_avg_pool2d, _aten.adaptive_max_pool2d, *_GLOBAL_NORMS}
_REDUCTIONS = {_aten.mean, _aten.sum, _aten.amax, _aten.var_mean, _aten.linalg_vector_norm, _aten.norm}
_PRODUCTS = {_aten.bmm, _aten.mm, _aten.baddbmm, *_ATTENTION}
