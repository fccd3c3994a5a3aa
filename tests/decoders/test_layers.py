"""The decoders' shared layers against PyTorch's own."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segtune.decoders.layers import BatchNorm2d, resize, tolerate_single_values


def pair() -> tuple[BatchNorm2d, nn.BatchNorm2d]:
    """Ours and PyTorch's with the same values."""
    torch.manual_seed(0)
    ours, theirs = BatchNorm2d(3, momentum=0.3), nn.BatchNorm2d(3, momentum=0.3)
    for tensor in (ours.weight, ours.bias, ours.running_mean, ours.running_var):
        assert tensor is not None
        nn.init.uniform_(tensor, 0.5, 2)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 1, 2), (4, 3, 5, 6)])
def test_batch_norm_is_pytorchs(shape: tuple[int, ...], training: bool) -> None:
    ours, theirs = (layer.train(training) for layer in pair())
    x = torch.randn(shape)
    assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_single_value_takes_the_running_statistics() -> None:
    ours, theirs = pair()
    x = torch.randn(1, 3, 1, 1)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        theirs(x)
    before = copy.deepcopy(ours.state_dict())
    assert torch.equal(ours.train()(x), theirs.eval()(x))
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())


def test_single_value_lets_gradients_through() -> None:
    ours, _ = pair()
    ours(torch.ones(1, 3, 1, 1)).sum().backward()
    assert ours.weight.grad is not None
    assert ours.bias.grad is not None
    torch.testing.assert_close(ours.bias.grad, torch.ones(3))


def test_tolerate_single_values_keeps_values_and_other_layers() -> None:
    torch.manual_seed(0)
    inner = nn.BatchNorm2d(4, eps=0.5, momentum=0.2)
    nn.init.uniform_(inner.weight)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(inner), nn.Identity())
    expected, x = copy.deepcopy(module).eval(), torch.randn(2, 3, 4, 4)
    module.add_module("other", nn.BatchNorm1d(2))
    assert tolerate_single_values(module) is module
    assert type(module.get_submodule("other")) is nn.BatchNorm1d
    found = module.get_submodule("1.0")
    assert isinstance(found, BatchNorm2d)
    assert (found.eps, found.momentum) == (0.5, 0.2)
    assert torch.equal(module.eval()[:3](x), expected(x))


def test_resize() -> None:
    x = torch.randn(1, 2, 3, 5)
    assert resize(x, (3, 5)) is x
    assert torch.equal(resize(x, (7, 4)), F.interpolate(x, size=(7, 4), mode="bilinear", align_corners=False))
