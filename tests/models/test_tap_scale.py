"""The scale of features: what it is, what it leaves alone, and that training begins well with it."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtune.losses import dice_bce_loss
from segtune.models.build import BuiltModel
from segtune.models.model import SegmentationModel
from segtune.models.tap_scale import TapScale, measure_scale, restored_scales, with_scales
from segtune.models.taps import FeatureInfo

BuiltOf = Callable[[str], BuiltModel]
PAIRS = [f"{b}_{d}" for b in ("vgg16", "resnet50", "xception") for d in ("fcn8s", "deeplabv3plus")]


class Constant(nn.Module):
    """Features of given channels with one value everywhere, by role, that a batch normalisation may have normalised."""

    def __init__(self, values: Mapping[str, tuple[int, float]], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.values, self.norm, self.weight = values, norm, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.norm(x) if self.norm else torch.ones_like(x)
        return {role: value * x[:, :1].expand(-1, channels, -1, -1) for role, (channels, value) in self.values.items()}


class Reads(nn.Module):
    """A decoder whose layer `a` reads a feature as it is, while `b` reads one that was changed before."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(4, 1, 1), nn.Conv2d(5, 1, 1), nn.Conv2d(1, 1, 1)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        total: Tensor = self.last(self.a(features["a"]) + self.b(features["b"].relu()))
        return total


def model_of(values: Mapping[str, tuple[int, float]], norm: nn.Module | None = None) -> SegmentationModel:
    features = {role: FeatureInfo(role, channels, 1) for role, (channels, _) in values.items()}
    return SegmentationModel(Constant(values, norm), Reads(), features, (0.0,) * 3, (1.0,) * 3)


def scales(model: nn.Module) -> dict[str, float]:
    return {name: value.item() for name, value in model.state_dict().items() if name.startswith("scale.")}


@pytest.mark.parametrize(
    ("channels", "value", "scale"),
    [(4, 1.0, 1), (4, 1024.0, 2**-10), (256, -0.25, 4), (256, 1e-6, 2**20), (1024, 1.0, 0.5), (4096, 1000.0, 2**-12)],
)
def test_the_root_mean_square_becomes_1_or_less_where_there_are_many_channels(
    channels: int, value: float, scale: float
) -> None:
    model = model_of({"a": (channels, value)})
    measure_scale(model, pretrained=True)
    assert scales(model) == {"scale.a": scale}


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_features_that_cannot_be_scaled_are_left_alone(value: float) -> None:
    model = model_of({"a": (4, value), "b": (5, 8.0)})
    measure_scale(model, pretrained=True)
    assert scales(model) == {"scale.a": 1, "scale.b": 1 / 8}


def test_unknown_statistics_are_those_of_the_batch() -> None:
    """As in training from random weights, where the running ones say nothing yet."""
    norm = nn.BatchNorm2d(3)
    norm.running_var.fill_(2.0**40)  # type: ignore[union-attr]
    model = model_of({"a": (4, 1.0)}, norm)
    before = copy.deepcopy(model.state_dict())
    measure_scale(model, pretrained=False)
    assert scales(model) == {"scale.a": 1}
    measure_scale(model, pretrained=True)
    assert scales(model)["scale.a"] > 2**10
    after = model.state_dict() | {"scale.a": torch.ones(())}
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert norm.training


@pytest.mark.parametrize("pair", PAIRS)
def test_measuring_changes_nothing_else(pair: str, built_of: BuiltOf) -> None:
    model = built_of(pair).model.train()
    model.backbone.eval()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    for pretrained in (True, False):
        measure_scale(model, pretrained)
        assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items() if not n.startswith("scale."))
    assert scales(model) == {name: before[name].item() for name in scales(model)}  # as when it was built
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


def test_scaling_keeps_the_type_and_1_keeps_the_bits() -> None:
    scale, x = TapScale(["a"]), torch.randn(2, 3, 4, 5)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        same = scale({"a": x.to(dtype)})["a"]
        assert same.dtype == dtype
        assert torch.equal(same, x.to(dtype))
    scale.get_buffer("a").fill_(0.25)
    assert torch.equal(scale({"a": x.bfloat16()})["a"], x.bfloat16() / 4)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("factor", [1.0, 1e-4, 1e4])
def test_training_begins_near_probabilities_of_a_half(pair: str, factor: float, built_of: BuiltOf) -> None:
    """Whatever the size of the features: BCE of ln 2, and the Dice loss of a half."""
    built = built_of(pair)
    model, backbone = built.model, built.model.backbone
    backbone.register_forward_hook(lambda m, i, output: {role: factor * x for role, x in output.items()})
    measure_scale(model, pretrained=False)
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(256, (4, 3, 64, 64), generator=rng)
    masks = torch.rand(4, 1, 64, 64, generator=rng) < 0.5
    with torch.no_grad():
        loss = dice_bce_loss(model.train()(images), masks).item()
    assert loss == pytest.approx(math.log(2) + 0.5, abs=0.2)


def test_a_scale_belongs_to_the_layers_that_read_the_feature(built_of: BuiltOf) -> None:
    model, every = built_of("vgg16_fcn8s").model, ["scale.pool3", "scale.pool4", "scale.high"]
    assert restored_scales(model, model.state_dict()) == every
    assert restored_scales(model, ["decoder.score_pool4.weight"]) == ["scale.pool4"]
    for name in ("decoder.score_pool4.bias", "decoder.upsample_high.0.weight", "backbone.features.0.weight"):
        assert restored_scales(model, [name]) == []
    model = built_of("resnet50_deeplabv3plus").model
    assert restored_scales(model, ["decoder.project.0.weight", "decoder.classifier.weight"]) == ["scale.low"]
    assert restored_scales(model, ["decoder.aspp.convs.0.0.weight"]) == ["scale.high"]


def test_a_feature_that_no_layer_reads_as_it_is_belongs_to_them_all() -> None:
    model = model_of({"a": (4, 1.0), "b": (5, 1.0)})
    assert restored_scales(model, ["decoder.last.weight"]) == ["scale.b"]
    assert restored_scales(model, ["decoder.a.weight"]) == ["scale.a", "scale.b"]


def test_tensors_from_before_there_were_scales_get_1() -> None:
    old: dict[str, Any] = {"decoder.a.weight": torch.zeros(1)}
    assert with_scales(old, ["mean", "scale.a", "scale.b"]) == {
        **old,
        "scale.a": torch.ones(()),
        "scale.b": torch.ones(()),
    }
    assert with_scales(old | {"scale.a": torch.ones(())}, ["scale.a", "scale.b"]).keys() == {*old, "scale.a"}
