"""Dilated depthwise convolutions against PyTorch's own, and their gradients against finite differences."""

import copy

import pytest
import torch
from torch import Tensor, nn

from segtune.models.decoders.depthwise import DepthwiseConv2d, hasten_dilated

SETTINGS = [  # side of the map, dilation, kernel
    ((9, 7), (2, 2), (3, 3)),
    ((9, 7), (8, 8), (3, 3)),  # only rows overlap beside the centre
    ((9, 7), (9, 9), (3, 3)),  # the centre alone
    ((16, 16), (12, 12), (3, 3)),
    ((12, 13), (7, 1), (5, 3)),
]


def pair(rate: tuple[int, int], kernel: tuple[int, int], *, bias: bool = True) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Ours and PyTorch's with the same values, in float64."""
    torch.manual_seed(0)
    padding = tuple(each * (size // 2) for each, size in zip(rate, kernel, strict=True))
    theirs = nn.Conv2d(4, 4, kernel, padding=padding, dilation=rate, groups=4, bias=bias).double()  # type: ignore[arg-type]
    ours = copy.deepcopy(theirs)
    hasten_dilated(ours)
    assert isinstance(ours, DepthwiseConv2d)
    return ours, theirs


def results(layer: nn.Conv2d, x: Tensor, upstream: Tensor) -> list[Tensor]:
    """Output and all gradients."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y, *torch.autograd.grad(y, [x, *layer.parameters()], upstream.to(y.dtype))]


@pytest.mark.parametrize(("side", "rate", "kernel"), SETTINGS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_pytorchs(
    side: tuple[int, int], rate: tuple[int, int], kernel: tuple[int, int], layout: torch.memory_format
) -> None:
    ours, theirs = pair(rate, kernel)
    x, upstream = torch.randn(2, 4, *side).double().to(memory_format=layout), torch.randn(2, 4, *side).double()
    for mine, expected in zip(results(ours, x, upstream), results(theirs, x, upstream), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)
    assert ours(x).is_contiguous(memory_format=layout)


def test_gradients_are_finite_differences() -> None:
    ours, _ = pair((7, 7), (3, 3), bias=False)
    x = torch.randn(1, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, _: ours(x), (x, ours.weight), atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rate", [2, 12])
def test_autocast_sums_in_float32(rate: int, dtype: torch.dtype) -> None:
    ours, theirs = (layer.float() for layer in pair((rate, rate), (3, 3)))
    x, upstream = torch.randn(2, 4, 16, 16).to(dtype).float(), torch.randn(2, 4, 16, 16).to(dtype)
    with torch.no_grad():
        for layer in (ours, theirs):
            layer.weight.copy_(layer.weight.to(dtype))  # so that only the sums are rounded
            layer.bias.zero_()  # type: ignore[union-attr]
    with torch.autocast("cpu", dtype):
        y, *gradients = results(ours, x, upstream)
    expected, *exact = results(theirs, x, upstream)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected.to(dtype))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    for mine, other in zip(gradients, exact, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-2 * other.abs().max().item())


def test_frozen_weights_and_inputs_get_no_gradient() -> None:
    ours, _ = pair((12, 12), (3, 3))
    x = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    ours.weight.requires_grad_(False)
    ours.bias.requires_grad_(False)  # type: ignore[union-attr]
    assert not ours(x).requires_grad
    ours(x.requires_grad_()).sum().backward()
    assert ours.weight.grad is None
    assert x.grad is not None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, stride=2),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2, groups=4),
        nn.Conv2d(4, 4, 2, padding="same", dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3, padding=2, dilation=2, groups=4),
    ],
)
def test_other_layers_stay(layer: nn.Module) -> None:
    kind = type(layer)
    assert hasten_dilated(layer) is layer
    assert type(layer) is kind


def test_names_and_values_stay() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 3, padding="same", dilation=3, groups=4), nn.ReLU())
    before = copy.deepcopy(module.state_dict())
    hasten_dilated(module)
    assert type(module[0]) is DepthwiseConv2d
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_exported_program_holds_a_convolution() -> None:
    ours, theirs = (layer.float() for layer in pair((7, 7), (3, 3)))
    x = torch.randn(1, 4, 9, 9)
    program = torch.export.export(ours.eval(), (x,))
    assert "conv2d" in str(program.graph)
    torch.testing.assert_close(program.module()(x), theirs(x))
