"""DeepLabV3+ against the numbers of the paper (Chen et al. 2018)."""

from typing import Any

import pytest
import torch
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPPPooling
from torch import Tensor, nn

from segtune.config.model_settings import DeepLabV3PlusSettings
from segtune.errors import UserError
from segtune.models.decoders.deeplabv3plus import DeepLabV3Plus, atrous_rates


def decoder(low: tuple[int, int] = (64, 4), high: tuple[int, int] = (128, 16), **settings: Any) -> DeepLabV3Plus:
    """Build a decoder from (channels, stride) of each tap."""
    return DeepLabV3Plus(
        {"low": low[0], "high": high[0]}, {"low": low[1], "high": high[1]}, DeepLabV3PlusSettings(**settings)
    )


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def branches(model: DeepLabV3Plus) -> list[nn.Module]:
    return list(model.aspp.get_submodule("convs").children())


def features(low: tuple[int, ...], high: tuple[int, ...]) -> dict[str, Tensor]:
    return {"low": torch.randn(low), "high": torch.randn(high)}


@pytest.mark.parametrize(
    ("stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9)), (4, (24, 48, 72)), (512, (1, 1, 1))]
)
def test_rates_scale_inversely_with_the_stride(stride: int, rates: tuple[int, ...]) -> None:
    assert atrous_rates(stride) == rates


@pytest.mark.parametrize(("stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_aspp_has_five_branches(stride: int, rates: tuple[int, ...]) -> None:
    model = decoder(high=(128, stride))
    pointwise, *atrous, pooling = branches(model)
    (conv,) = convolutions(pointwise)
    assert (conv.kernel_size, conv.in_channels, conv.out_channels) == ((1, 1), 128, 256)
    assert len(atrous) == 3
    for branch, rate in zip(atrous, rates, strict=True):
        depthwise, point = convolutions(branch)
        assert (depthwise.kernel_size, depthwise.dilation, depthwise.padding) == ((3, 3), (rate, rate), (rate, rate))
        assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (128, 128, 128)
        assert (point.kernel_size, point.groups, point.out_channels) == ((1, 1), 1, 256)
    (conv,) = convolutions(pooling)
    assert any(isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size == 1 for layer in pooling.modules())
    assert (conv.kernel_size, conv.out_channels) == ((1, 1), 256)
    (join,) = convolutions(model.aspp.get_submodule("project"))
    assert (join.kernel_size, join.in_channels, join.out_channels) == ((1, 1), 5 * 256, 256)


def test_the_image_level_branch_is_that_of_the_library() -> None:
    """Repeated or enlarged, its one value per channel gives the same map, and the same gradients."""
    torch.manual_seed(0)
    library = ASPPPooling(6, 4)
    ours = next(m for m in decoder().modules() if isinstance(m, ASPPPooling))
    ours[1], ours[2] = library[1], library[2]
    x = torch.randn(2, 6, 5, 7)
    weights = torch.randn(2, 4, 5, 7)
    found = []
    for branch in library, ours:
        for layer in branch:
            layer.zero_grad()
        given = x.clone().requires_grad_()
        y = branch(given)
        (y * weights).sum().backward()
        found.append((y.detach(), given.grad, library[1].weight.grad.clone()))
    for theirs, mine in zip(*found, strict=True):
        assert torch.allclose(theirs, mine, atol=1e-6)


def test_dense_convolutions_on_request() -> None:
    model = decoder(separable=False)
    for branch, rate in zip(branches(model)[1:4], (6, 12, 18), strict=True):
        (conv,) = convolutions(branch)
        assert (conv.kernel_size, conv.dilation, conv.groups) == ((3, 3), (rate, rate), 1)
    assert [(conv.kernel_size, conv.groups) for conv in convolutions(model.refine)] == [((3, 3), 1)] * 2


def test_projection_and_refinement() -> None:
    model = decoder()
    (project,) = convolutions(model.project)
    assert (project.kernel_size, project.in_channels, project.out_channels) == ((1, 1), 64, 48)
    first, first_point, second, second_point = convolutions(model.refine)
    assert first.kernel_size == second.kernel_size == (3, 3)
    assert (first.groups, second.groups) == (256 + 48, 256)
    assert (first_point.out_channels, second_point.out_channels) == (256, 256)
    assert sum(isinstance(layer, nn.ReLU) for layer in model.refine.modules()) == 2


def test_no_convolution_before_a_normalisation_has_a_bias() -> None:
    model = decoder()
    assert [conv for conv in convolutions(model) if conv.bias is not None] == [model.classifier]


def test_settings_reach_the_layers() -> None:
    model = decoder(channels=32, low_channels=8, atrous_rates=[2, 3, 5], dropout=0.25)
    assert [convolutions(branch)[0].dilation[0] for branch in branches(model)[1:4]] == [2, 3, 5]
    assert {convolutions(branch)[-1].out_channels for branch in branches(model)} == {32}
    assert convolutions(model.project)[0].out_channels == 8
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.25]


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(
    ("low", "high"), [((16, 16), (4, 4)), ((9, 13), (3, 4)), ((8, 8), (8, 8)), ((1, 1), (1, 1)), ((2, 1), (1, 1))]
)
def test_logits_have_the_low_taps_size(outputs: int, low: tuple[int, int], high: tuple[int, int]) -> None:
    model = decoder(channels=8, low_channels=4, outputs=outputs)
    assert model(features((2, 64, *low), (2, 128, *high))).shape == (2, outputs, *low)


def test_a_batch_of_one_with_maps_of_one_pixel_trains() -> None:
    model = decoder(channels=8, low_channels=4).train()
    model(features((1, 64, 1, 1), (1, 128, 1, 1))).sum().backward()


def test_high_reaches_the_logits_bilinearly_enlarged_and_beside_low() -> None:
    """With refinement and classifier reduced to a selection of one channel, that channel itself comes out."""
    torch.manual_seed(0)  # with some weights the ReLU behind a channel lets nothing through
    model = decoder(channels=8, low_channels=4).eval()
    parts = features((1, 64, 8, 8), (1, 128, 2, 2))
    model.refine = nn.Sequential()
    with torch.no_grad():
        high, low = model.aspp(parts["high"]), model.project(parts["low"])
        expected = {
            3: nn.functional.interpolate(high, size=(8, 8), mode="bilinear", align_corners=False)[:, 3:4],
            8 + 2: low[:, 2:3],
        }
        for channel, value in expected.items():
            model.classifier = nn.Conv2d(12, 1, 1, bias=False)
            model.classifier.weight.copy_(torch.eye(12)[channel].view(1, 12, 1, 1))
            assert value.std() > 0
            torch.testing.assert_close(model(parts), value)


def test_every_parameter_gets_a_gradient() -> None:
    model = decoder(channels=8, low_channels=4, dropout=0.0)
    model(features((2, 64, 8, 8), (2, 128, 4, 4))).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_low_coarser_than_high() -> None:
    with pytest.raises(UserError) as caught:
        decoder(low=(64, 16), high=(128, 8))
    assert str(caught.value) == (
        "taps.low has stride 16, taps.high 8: deeplabv3plus joins fine low-level features with coarse high-level ones. "
        "Swap the taps, or choose a shallower taps.low."
    )


def test_equal_strides_are_fine() -> None:
    assert decoder(low=(64, 8), high=(128, 8)).roles == ("low", "high")
