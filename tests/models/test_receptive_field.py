"""Receptive fields against gradients and by hand."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.models.backbones.registry import BACKBONES, spec_of
from segtune.models.layer_info import describe
from segtune.models.receptive_field import Field, Fields
from segtune.models.taps import cut

Function = Callable[[Tensor], Tensor]


def follow(function: Function, *shape: int) -> tuple[Tensor, Field]:
    """Return the result of a function of an image (1, *shape), and its field."""
    image = torch.zeros(1, *shape)
    with torch.no_grad(), Fields(image) as fields:
        out = function(image)
    field = fields.of(out)
    assert field is not None
    return out, field


def seen(function: Function, image: Tensor, at: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the first and the last input row and column that a pixel of the result has a gradient from."""
    image = image.requires_grad_()
    pixel = function(image)[0, :, at[0], at[1]]
    (gradient,) = torch.autograd.grad((pixel * torch.rand(pixel.shape)).sum(), image)
    places = (gradient[0] != 0).any(0).nonzero()
    assert len(places)
    return list(zip(places.amin(0).tolist(), places.amax(0).tolist(), strict=True))


def spans(field: Field) -> list[tuple[Fraction, Fraction, Fraction]]:
    assert field.spans is not None
    return [(span.stride, span.first, span.last) for span in field.spans]


# --- operations, by hand and by gradients ---

ones = torch.ones(1, 1, 3, 3)


def to_depth(x: Tensor) -> Tensor:
    """Make channels of patches of 2 x 2 pixels (Ridnik et al. 2020, "TResNet")."""
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, c * 4, h // 2, w // 2)


# What pixel 0 sees, as (stride, first, last) of rows and columns.
EXACT: dict[str, tuple[Function, tuple[int, int, int], tuple[int, int, int]]] = {
    "nothing": (lambda x: x.sin(), (1, 0, 0), (1, 0, 0)),
    "conv": (lambda x: F.conv2d(x, ones), (1, 0, 2), (1, 0, 2)),
    "conv, padded": (lambda x: F.conv2d(x, ones, padding=1), (1, -1, 1), (1, -1, 1)),
    "conv, strided": (lambda x: F.conv2d(x, ones, stride=(2, 1), padding=(1, 0)), (2, -1, 1), (1, 0, 2)),
    "conv 1 x 3": (lambda x: F.conv2d(x, ones[:, :, :1], padding=(0, 1)), (1, 0, 0), (1, -1, 1)),
    "conv, dilated": (lambda x: F.conv2d(x, ones, padding=2, dilation=(2, 3)), (1, -2, 2), (1, -2, 4)),
    "two convs": (lambda x: F.conv2d(F.conv2d(x, ones, stride=2, padding=1), ones, padding=1), (2, -3, 3), (2, -3, 3)),
    "max pool": (lambda x: F.max_pool2d(x, (2, 3), stride=2), (2, 0, 1), (2, 0, 2)),
    "max pool, dilated": (lambda x: F.max_pool2d(x, 2, stride=1, dilation=3), (1, 0, 3), (1, 0, 3)),
    "avg pool": (lambda x: F.avg_pool2d(x, 3, stride=2, padding=1), (2, -1, 1), (2, -1, 1)),
    "avg pool with its default stride": (lambda x: F.avg_pool2d(x, 3), (3, 0, 2), (3, 0, 2)),
    "zeros around": (lambda x: F.pad(x, (1, 2, 3, 4)), (1, -3, -3), (1, -1, -1)),
    "reflected": (lambda x: F.pad(x, (2, 2, 1, 1), mode="reflect"), (1, -1, -1), (1, -2, -2)),
    "slice": (lambda x: x[:, :, 3:, 1::2], (1, 3, 3), (2, 1, 1)),
    "slice from the end": (lambda x: x[:, :, -4:], (1, 20, 20), (1, 0, 0)),
    "slice of channels": (lambda x: F.conv2d(x.expand(1, 4, 24, 36), ones.expand(4, 1, 3, 3), groups=4)[:, 1:3],
                          (1, 0, 2), (1, 0, 2)),
    "rows left out, then conv": (lambda x: F.conv2d(x[:, :, ::2], ones), (2, 0, 4), (1, 0, 2)),
    "space to depth": (to_depth, (2, 0, 1), (2, 0, 1)),
    "space to depth, then conv": (lambda x: F.conv2d(to_depth(x), ones.expand(1, 4, 3, 3), padding=1),
                                  (2, -2, 3), (2, -2, 3)),
    "branches of other reach": (lambda x: F.conv2d(x, ones, padding=1) + x, (1, -1, 1), (1, -1, 1)),
    "branches side by side": (lambda x: torch.cat([F.pad(x, (2, -2, 0, 0)), F.pad(x, (-1, 1, 0, 0))], 1),
                              (1, 0, 0), (1, -2, 1)),
    "mean over channels": (lambda x: x * x.expand(1, 4, 24, 36).mean(1, keepdim=True), (1, 0, 0), (1, 0, 0)),
    "channels behind the columns and back": (lambda x: F.layer_norm(
        F.conv2d(x, ones.expand(5, 1, 3, 3)).permute(0, 2, 3, 1), (5,)).permute(0, 3, 1, 2), (1, 0, 2), (1, 0, 2)),
}  # fmt: skip


@pytest.mark.parametrize(("function", "rows", "columns"), EXACT.values(), ids=EXACT)
def test_what_a_pixel_sees(function: Function, rows: tuple[int, int, int], columns: tuple[int, int, int]) -> None:
    out, field = follow(function, 1, 24, 36)
    assert spans(field) == [rows, columns]
    assert field.size == (rows[2] - rows[1] + 1, columns[2] - columns[1] + 1)
    assert field.stride == max(rows[0], columns[0])
    assert (field.whole, field.is_map(out)) == (False, True)


@pytest.mark.parametrize("name", [name for name in EXACT if "max" not in name])
def test_gradients_come_from_what_a_pixel_sees(name: str) -> None:
    function, *expected = EXACT[name]
    torch.manual_seed(0)
    at = (3, 4)
    found = seen(function, torch.rand(1, 1, 24, 36), at)
    assert found == [(f + i * s, f + i * s + n - f) for (s, f, n), i in zip(expected, at, strict=True)]


# Behind maps of stride 4. Where pixels lie between others the reach is bounded from above: it alternates.
UPSAMPLINGS: dict[str, tuple[Function, Fraction]] = {
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), Fraction(2)),
    "nearest, three fold": (lambda x: F.interpolate(x, scale_factor=3), Fraction(4, 3)),
    "nearest, to half": (lambda x: F.interpolate(x, scale_factor=0.5), Fraction(8)),
    "nearest, to any size": (lambda x: F.interpolate(x, size=(9, 13)), Fraction(48, 13)),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), Fraction(2)),
    "bilinear, to any size": (lambda x: F.interpolate(x, size=(9, 13), mode="bilinear"), Fraction(48, 13)),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), Fraction(2)),
    "transposed": (lambda x: F.conv_transpose2d(x, ones, stride=2, padding=1, output_padding=1), Fraction(2)),
    "transposed, as in FCN": (
        lambda x: F.conv_transpose2d(x, torch.ones(1, 1, 4, 4), stride=2, padding=1),
        Fraction(2),
    ),
    "transposed and dilated": (lambda x: F.conv_transpose2d(x, ones, stride=2, dilation=3), Fraction(2)),
}


@pytest.mark.parametrize(("upsample", "stride"), UPSAMPLINGS.values(), ids=UPSAMPLINGS)
def test_upsampling_is_bounded_from_above(upsample: Function, stride: Fraction) -> None:
    def function(x: Tensor) -> Tensor:
        return upsample(F.conv2d(x, torch.ones(1, 1, 4, 4), stride=4))

    out, field = follow(function, 1, 32, 48)
    assert field.stride == stride
    slack = []
    edge = out.shape[2] // 4
    for i in range(edge, out.shape[2] - edge):
        found = seen(function, torch.rand(1, 1, 32, 48), (i, i))
        for (first, last), (step, near, far) in zip(found, spans(field), strict=True):
            assert near + i * step <= first
            assert last <= far + i * step
            slack.append(far - near - (last - first))
    assert min(slack) <= 4  # a pixel of the map that is resized


# --- the whole image ---


def squeeze(x: Tensor) -> Tensor:
    return x * x.mean((2, 3), keepdim=True).sigmoid()


def attend(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(x.shape)


def attend_by_products(x: Tensor) -> Tensor:
    tokens = x.flatten(2)
    return (tokens @ (tokens.transpose(1, 2) @ tokens).softmax(-1)).reshape(x.shape)


def attend_among_channels(x: Tensor) -> Tensor:
    """So El-Nouby et al. 2021, "XCiT", have it."""
    tokens = x.flatten(2)
    return ((tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens).reshape(x.shape)


def sum_with_weights(x: Tensor) -> Tensor:
    """So Cao et al. 2019, "GCNet", have it."""
    weights = x.mean(1, keepdim=True).flatten(2).softmax(-1)
    return x + (x.flatten(2) @ weights.transpose(1, 2))[..., None]


def test_a_sum_over_all_places_is_no_map() -> None:
    def function(x: Tensor) -> Tensor:
        return F.conv2d((x.flatten(2) @ x[:, :1].flatten(2).transpose(1, 2))[..., None], torch.ones(1, 6, 1, 1))

    out, field = follow(function, 6, 24, 36)
    assert (field.is_map(out), field.whole, field.spans) == (False, True, None)


WHOLE: dict[str, Function] = {
    "squeeze and excitation": squeeze,
    "by a pooling": lambda x: x * F.adaptive_avg_pool2d(x, 1).sigmoid(),
    "by the maximum": lambda x: x * F.adaptive_max_pool2d(x, 1).sigmoid(),
    "by flattening": lambda x: x * x.flatten(2).mean(2)[:, :, None, None],
    "by the norm of each channel": lambda x: x * x.norm(dim=(2, 3), keepdim=True),
    "group norm": lambda x: F.group_norm(x, 2),
    "attention": attend,
    "products of matrices": attend_by_products,
    "attention among channels": attend_among_channels,
    "a sum with weights": sum_with_weights,
    "channels behind the columns": lambda x: squeeze_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
}


def squeeze_last(x: Tensor) -> Tensor:
    return x * x.norm(dim=(1, 2), keepdim=True)


@pytest.mark.parametrize("shape", [(6, 24, 36), (16, 16, 16)], ids=["sizes differ", "sizes agree"])
@pytest.mark.parametrize("function", WHOLE.values(), ids=WHOLE)
def test_something_of_the_whole_picture(function: Function, shape: tuple[int, ...]) -> None:
    convolution = nn.Conv2d(shape[0], shape[0], 3, padding=1)
    out, field = follow(lambda x: function(convolution(x)), *shape)
    assert (field.whole, field.is_map(out)) == (True, True)
    assert (field.size, field.stride) == ((3, 3), 1)
    later, behind = follow(lambda x: convolution(function(x)), *shape)
    assert (behind.whole, behind.size, behind.is_map(later)) == (True, (3, 3), True)


@pytest.mark.parametrize("products", [False, True], ids=["attention", "products"])
def test_attention_to_a_coarser_map_keeps_the_places_of_the_queries(products: bool) -> None:
    """So hybrid networks have it, with some heads, whose layout (HW, heads, C / heads) is no map."""

    def heads(x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2).reshape(1, -1, 2, 4).transpose(1, 2)

    def function(x: Tensor) -> Tensor:
        queries, keys = heads(x), heads(F.avg_pool2d(x, 4))
        if products:
            mixed = (queries @ keys.transpose(2, 3)).softmax(-1) @ keys
        else:
            mixed = F.scaled_dot_product_attention(queries, keys, keys)
        return x + mixed.transpose(1, 2).reshape(1, -1, 8).transpose(1, 2).reshape(x.shape)

    out, field = follow(function, 8, 16, 16)
    assert (field.whole, field.is_map(out), spans(field)) == (True, True, [(1, 0, 0)] * 2)


@pytest.mark.parametrize("shape", [(6, 24, 36), (16, 16, 16)], ids=["sizes differ", "sizes agree"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * x.mean(1, keepdim=True),
        lambda x: x * x.amax(1, keepdim=True),
        lambda x: x * x.permute(0, 2, 3, 1).mean(-1, keepdim=True).permute(0, 3, 1, 2),
        lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2),
        lambda x: F.batch_norm(x, torch.zeros(x.shape[1]), torch.ones(x.shape[1])),
        lambda x: torch.cat([x.permute(0, 2, 3, 1)[..., :4], x.permute(0, 2, 3, 1)[..., 4:]], -1).permute(0, 3, 1, 2),
    ],
    ids=["mean", "maximum", "mean in another layout", "layer norm", "batch norm", "parts of the channels"],
)
def test_what_acts_on_each_pixel_alone(function: Function, shape: tuple[int, ...]) -> None:
    out, field = follow(function, *shape)
    assert (field.whole, field.is_map(out), spans(field)) == (False, True, [(1, 0, 0)] * 2)


def test_behind_a_pooling_nothing_is_a_map() -> None:
    out, field = follow(lambda x: x.mean((2, 3)), 3, 24, 36)
    assert (field.is_map(out), field.whole, field.size, field.stride) == (False, True, (0, 0), 0)
    out, field = follow(lambda x: F.adaptive_avg_pool2d(x, 1), 3, 24, 36)
    assert (field.is_map(out), field.whole) == (False, True)


@pytest.mark.parametrize("shape", [(6, 24, 36), (48, 96, 96), (16, 16, 16), (32, 128, 64)])
def test_other_layouts_are_no_maps(shape: tuple[int, ...]) -> None:
    """So ConvNeXt has it: channels behind the columns, through a fully connected layer, and back."""
    wider = nn.Linear(shape[0], shape[0])
    last, field = follow(lambda x: wider(x.permute(0, 2, 3, 1)), *shape)
    assert (field.is_map(last), field.size) == (False, (1, 1))
    half, field = follow(lambda x: wider(x.permute(0, 2, 3, 1))[..., ::2], *shape)
    assert not field.is_map(half)
    tokens, field = follow(lambda x: x.flatten(2), *shape)
    assert not field.is_map(tokens)
    back, field = follow(lambda x: wider(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), *shape)
    assert (field.is_map(back), spans(field)) == (True, [(1, 0, 0)] * 2)


def test_what_does_not_depend_on_the_picture_has_no_field() -> None:
    image = torch.zeros(1, 3, 8, 8)
    with Fields(image) as fields:
        other = torch.ones(1, 3, 8, 8) * 2
        both = image + other
    assert fields.of(other) is None
    assert fields.of(both) is not None


# --- whole networks, by gradients ---


class Sum(nn.Module):
    """A convolution of ones with one channel."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__()
        self.options: Mapping[str, Any] = {
            "stride": like.stride,
            "padding": like.padding,
            "dilation": like.dilation,
        }
        self.weight = torch.ones(1, 1, *like.kernel_size, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, **self.options)


def make_skeleton(trunk: nn.Module) -> None:
    """Leave one channel of a network without concatenations, and weights of one: only what is where counts.

    Gradients of a pixel are then numbers of paths to it, so none is zero that can be other. Maximum poolings become
    average poolings of the same window, for a maximum lets the gradient of one pixel pass and no other.
    """
    for path, module in list(trunk.named_modules()):
        if isinstance(module, nn.Conv2d):
            trunk.set_submodule(path, Sum(module))
        elif isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.Dropout):
            trunk.set_submodule(path, nn.Identity())
        elif isinstance(module, nn.MaxPool2d):
            trunk.set_submodule(path, nn.AvgPool2d(module.kernel_size, module.stride, module.padding))


def check_by_gradients(trunk: nn.Module, image: Tensor, expected: Mapping[str, tuple[int, int]]) -> None:
    """Compare the field of a pixel in the middle of each map with where its gradients come from, in size and place."""
    with torch.no_grad(), Fields(image) as fields:
        maps = trunk(image)
    outputs = trunk(image.requires_grad_())
    for role, size in expected.items():
        at = tuple(n // 2 for n in outputs[role].shape[2:])
        (gradient,) = torch.autograd.grad(outputs[role][0, :, at[0], at[1]].sum(), image, retain_graph=True)
        places = (gradient[0] != 0).any(0).nonzero()
        near, far = places.amin(0).tolist(), places.amax(0).tolist()
        assert min(near) > 0, role
        assert all(end < side - 1 for end, side in zip(far, image.shape[2:], strict=True)), role
        assert tuple(b - a + 1 for a, b in zip(near, far, strict=True)) == size, role
        field = fields.of(maps[role])
        assert field is not None
        assert [(f + i * s, n + i * s) for (s, f, n), i in zip(spans(field), at, strict=True)] == list(
            zip(near, far, strict=True)
        ), role


@pytest.mark.parametrize(
    ("name", "taps", "side"),
    [
        ("vgg16", ["block1_conv2", "block3_pool", "block4_conv2", "block5_pool", "fc1", "drop7"], 480),
        ("resnet50", ["conv1", "conv2_block1_add", "layer2.0.downsample.1", "layer2", "layer3.1.bn3", "layer4"], 512),
        ("xception", ["conv2", "block3_sepconv1_act", "block4_pool", "block3.skip", "block7", "block8.rep.6"], 640),
        ("xception", ["block11", "block12.skip", "block14_sepconv1", "exit"], 1152),
    ],
    ids=["vgg16", "resnet50", "xception", "xception's end"],
)  # fmt: skip
def test_fields_of_the_three_networks_are_where_gradients_come_from(name: str, taps: list[str], side: int) -> None:
    spec = BACKBONES[name]
    summary = describe(spec, (side, side + 32))
    with torch.device("meta"):
        trunk, _ = cut(spec.build(), {tap: tap for tap in taps}, spec)
    make_skeleton(trunk.eval())
    expected = {tap: summary.find(tap).receptive_field for tap in taps}
    check_by_gradients(trunk, torch.ones(1, 1, side, side + 32, dtype=torch.float64), expected)


# One each with groups, the padding of TensorFlow, kernels of 1 x 7, concatenations and blurred poolings.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "taps", "side"),
    [
        ("regnetx_002", ["s1", "s3.b1.conv2.conv", "s4.b1"], 384),
        ("tf_efficientnet_lite0", ["blocks.1", "blocks.3.1.conv_dw"], 384),
        ("inception_v3", ["Mixed_5b", "Mixed_6b.branch7x7_3.conv"], 448),
        ("densenet121", ["features.pool0", "features.denseblock2.denselayer6"], 320),
        ("resnetblur18", ["layer1.0.aa", "layer2", "layer4.0.downsample.1"], 448),
    ],
)
def test_fields_of_timms_networks_are_where_gradients_come_from(name: str, taps: list[str], side: int) -> None:
    spec = spec_of(name)
    summary = describe(spec, (side, side))
    network = spec.build()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    trunk, _ = cut(network, {tap: tap for tap in taps}, spec)
    for path, module in list(trunk.double().eval().named_modules()):
        if isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.ReLU6 | nn.Dropout):
            trunk.set_submodule(path, nn.Identity())
        elif isinstance(module, nn.MaxPool2d):
            trunk.set_submodule(path, nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
    expected = {tap: summary.find(tap).receptive_field for tap in taps}
    assert not any(summary.find(tap).sees_all for tap in taps)
    check_by_gradients(trunk, torch.ones(1, 3, side, side, dtype=torch.float64), expected)
