"""FCN-8s against the paper (Long et al. 2015) and PyTorch's bilinear interpolation."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.config.model_settings import FCN8sSettings
from segtune.config.types import Outputs
from segtune.errors import UserError
from segtune.models.decoders.fcn8s import FCN8s, bilinear_upsampling

CHANNELS = {"pool3": 3, "pool4": 4, "high": 5}


def decoder(strides: tuple[int, int, int] = (8, 16, 32), outputs: Outputs = 1) -> FCN8s:
    torch.manual_seed(0)
    return FCN8s(CHANNELS, dict(zip(CHANNELS, strides, strict=True)), FCN8sSettings(outputs=outputs))


def features(sizes: Mapping[str, tuple[int, int]], batch: int = 2) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {role: torch.randn(batch, CHANNELS[role], *size, generator=rng) for role, size in sizes.items()}


def halving(side: int) -> dict[str, Tensor]:
    return features({"pool3": (side, side), "pool4": (side // 2, side // 2), "high": (side // 4, side // 4)})


def enlarge(x: Tensor, factor: int = 2) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def interior(x: Tensor, border: int = 4) -> Tensor:
    """Leave out the border, where a transposed convolution sees zeros beyond the map and interpolation does not."""
    return x[..., border:-border, border:-border]


@pytest.mark.parametrize("channels", [1, 2])
def test_upsampling_starts_bilinear(channels: int) -> None:
    x = torch.randn(2, channels, 5, 7)
    layer = bilinear_upsampling(channels)
    torch.testing.assert_close(interior(layer(x), 1), interior(enlarge(x), 1))
    assert layer(x).shape == (2, channels, 10, 14)
    assert layer.weight.requires_grad


def test_score_layers_are_pointwise_and_skips_start_at_zero() -> None:
    model = decoder(outputs=2)
    for role in CHANNELS:
        score = model.get_submodule(f"score_{role}")
        assert isinstance(score, nn.Conv2d)
        assert (score.kernel_size, score.in_channels, score.out_channels) == ((1, 1), CHANNELS[role], 2)
        assert bool(score.weight.any()) == (role == "high")
        assert score.bias is not None
        assert not score.bias.any()


@pytest.mark.parametrize("outputs", [1, 2])
def test_training_starts_as_the_plain_coarse_network(outputs: Outputs) -> None:
    model, parts = decoder(outputs=outputs), halving(24)
    with torch.no_grad():
        expected = enlarge(enlarge(model.score_high(parts["high"])))
        assert expected.std() > 0
        torch.testing.assert_close(interior(model(parts)), interior(expected))


def test_scores_of_three_depths_are_added() -> None:
    model, parts = decoder(), halving(24)
    with torch.no_grad():
        for skip in (model.score_pool4, model.score_pool3):
            nn.init.normal_(skip.weight)
        s3, s4, high = (model.get_submodule(f"score_{role}")(parts[role]) for role in CHANNELS)
        torch.testing.assert_close(interior(model(parts)), interior(s3 + enlarge(s4 + enlarge(high))))


def test_every_part_learns() -> None:
    model = decoder()
    for skip in (model.score_pool4, model.score_pool3):
        nn.init.normal_(skip.weight)
    model(halving(24)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"score_high", "score_pool4", "score_pool3", "upsample_high", "upsample_pool4"}


@pytest.mark.parametrize(
    ("strides", "doublings"), [((8, 16, 32), (1, 1)), ((8, 8, 8), (0, 0)), ((4, 16, 16), (0, 2)), ((8, 16, 16), (0, 1))]
)
def test_doublings_follow_from_the_strides(strides: tuple[int, int, int], doublings: tuple[int, int]) -> None:
    model = decoder(strides)
    assert (len(model.upsample_high), len(model.upsample_pool4)) == doublings


def test_equal_strides_are_added_as_they_are() -> None:
    model, parts = decoder((8, 8, 8)), features(dict.fromkeys(CHANNELS, (6, 5)))
    with torch.no_grad():
        assert torch.equal(model(parts), model.score_high(parts["high"]))


def test_factor_of_four_is_two_doublings() -> None:
    model, parts = decoder((4, 16, 16)), features({"pool3": (24, 24), "pool4": (6, 6), "high": (6, 6)})
    with torch.no_grad():
        expected = enlarge(enlarge(model.score_high(parts["high"])))
        torch.testing.assert_close(interior(model(parts)), interior(expected))


@pytest.mark.parametrize("outputs", [1, 2])
def test_odd_sizes_follow_the_skips(outputs: Outputs) -> None:
    parts = features({"pool3": (28, 37), "pool4": (14, 18), "high": (7, 9)}, batch=1)
    assert decoder(outputs=outputs)(parts).shape == (1, outputs, 28, 37)
    parts = features({"pool3": (5, 3), "pool4": (3, 2), "high": (1, 1)}, batch=1)
    assert decoder(outputs=outputs)(parts).shape == (1, outputs, 5, 3)


@pytest.mark.parametrize("strides", [(16, 8, 32), (8, 32, 16)])
def test_strides_must_rise(strides: tuple[int, int, int]) -> None:
    with pytest.raises(UserError) as caught:
        decoder(strides)
    assert str(caught.value) == (
        f"fcn8s fuses features from coarse to fine, but taps.pool3 has stride {strides[0]}, "
        f"taps.pool4 has stride {strides[1]}, taps.high has stride {strides[2]}. "
        "Choose taps whose strides rise with depth."
    )
