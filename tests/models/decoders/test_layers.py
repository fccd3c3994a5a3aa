"""The decoders' shared layers against PyTorch's own."""

import copy
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional as F

from segtune.models.decoders.layers import BatchNorm2d, resize, tolerate_single_values


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


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_tolerance_for_a_normalisation_with_an_activation(kind: type[nn.BatchNorm2d]) -> None:
    torch.manual_seed(0)
    layer = kind(3)
    for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        nn.init.uniform_(tensor, 0.5, 2)  # type: ignore[arg-type]
    theirs, ours = copy.deepcopy(layer).eval(), nn.Sequential(copy.deepcopy(layer))
    tolerate_single_values(ours)
    assert isinstance(ours[0], kind)
    assert type(ours[0]).__name__ == kind.__name__
    alone, many = torch.randn(1, 3, 1, 1), torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer.train()(alone)
    before = copy.deepcopy(ours.state_dict())
    found = ours.train()(alone)
    assert torch.equal(found, theirs(alone))
    assert (found >= 0).all() or kind is nn.BatchNorm2d  # the activation is there
    assert ours[0].training
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())
    for training in (True, False):
        assert torch.equal(ours.train(training)(many), theirs.train(training)(many))
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours[0].state_dict().items())
    tolerate_single_values(ours)
    assert torch.equal(ours.train()(alone), theirs.eval()(alone))


def test_tolerance_survives_copies_and_saving(tmp_path: Path) -> None:
    layer = tolerate_single_values(BatchNormAct2d(3))
    again = copy.deepcopy(layer)
    assert type(again) is type(layer) is type(tolerate_single_values(BatchNormAct2d(3)))
    torch.save(again.state_dict(), tmp_path / "state.pt")
    layer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))


def test_resize() -> None:
    x = torch.randn(1, 2, 3, 5)
    assert resize(x, (3, 5)) is x
    assert torch.equal(resize(x, (7, 4)), F.interpolate(x, size=(7, 4), mode="bilinear", align_corners=False))
