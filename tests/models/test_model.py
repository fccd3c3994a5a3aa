"""The joined model: its contract for any size, and its normalisation."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.losses import bce_loss
from segtune.models.backbones.registry import BACKBONES
from segtune.models.build import BuiltModel
from segtune.models.model import SegmentationModel
from segtune.models.taps import FeatureInfo

BuiltOf = Callable[[str], BuiltModel]

PAIRS = [f"{name}_{decoder}" for name in BACKBONES for decoder in ("deeplabv3plus", "fcn8s")]


def random_image(height: int, width: int, batch: int = 1) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(256, (batch, 3, height, width), generator=rng, dtype=torch.uint8)


class Keep(nn.Module):
    """Passes on what comes and remembers it."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x


def bare(mean: tuple[float, ...] = (0.0,) * 3, std: tuple[float, ...] = (1.0,) * 3) -> tuple[SegmentationModel, Keep]:
    """A model of nothing but the normalisation."""
    keep = Keep()
    return SegmentationModel(keep, nn.Identity(), {}, mean, std), keep


def test_normalisation_by_hand() -> None:
    model, keep = bare((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    model(image)
    expected = [(0 / 255 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (255 / 255 - 0.406) / 0.225]
    assert keep.seen.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert keep.seen.dtype == torch.float32


@pytest.mark.parametrize("pair", ["xception_fcn8s", "resnet50_fcn8s"])
def test_normalisation_is_the_backbones(pair: str, built_of: BuiltOf) -> None:
    model, spec = built_of(pair).model, BACKBONES[pair.split("_")[0]]
    assert model.mean.flatten().tolist() == pytest.approx([255 * value for value in spec.mean])
    assert model.std.flatten().tolist() == pytest.approx([255 * value for value in spec.std])
    assert {"mean", "std"} <= set(model.state_dict())  # a checkpoint is complete in itself


def test_features_are_kept_for_the_record() -> None:
    features = {"low": FeatureInfo("x", 3, 1)}
    model = SegmentationModel(nn.Identity(), nn.Identity(), features, (0.0,) * 3, (1.0,) * 3)
    assert model.features == features


def test_logits_are_float32_and_enlarged_bilinearly() -> None:
    class Coarse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[[[0.0, 1.0]]]], dtype=torch.bfloat16)

    model = SegmentationModel(nn.Identity(), Coarse(), {}, (0.0,) * 3, (1.0,) * 3)
    logits = model(random_image(2, 4))
    assert logits.dtype == torch.float32
    assert logits.tolist() == [[[[0.0, 0.25, 0.75, 1.0]] * 2]]


def test_training_two_outputs_is_cross_entropy_over_two_classes() -> None:
    torch.manual_seed(0)
    decoder = nn.Conv2d(3, 2, 2, stride=2)
    model = SegmentationModel(nn.Identity(), decoder, {}, (0.5,) * 3, (0.1,) * 3)
    image, mask = random_image(12, 10, batch=3), torch.rand(3, 1, 12, 10) < 0.3
    assert model(image).shape == (3, 1, 12, 10)
    two = F.interpolate(decoder((image / 255 - 0.5) / 0.1), (12, 10), mode="bilinear")
    losses = bce_loss(model(image), mask), F.cross_entropy(two, mask[:, 0].long())
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, list(decoder.parameters())) for loss in losses))
    torch.testing.assert_close(model(image).sigmoid(), two.softmax(1)[:, 1:], atol=1e-6, rtol=1e-5)


def test_the_difference_of_two_outputs_is_taken_in_float32() -> None:
    """In float16 it would be infinite, in bfloat16 rounded away."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([-6e4, 6e4], dtype=torch.float16).view(1, 2, 1, 1) * torch.ones_like(x[:, :1]).half()

    class Fine(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = super().forward(x)
            return self.seen

    model = SegmentationModel(nn.Identity(), Two(), {}, (0.0,) * 3, (1.0,) * 3)
    assert model(random_image(2, 4)).unique().item() == 2 * torch.tensor(6e4).half().item()
    fine = Fine(3, 2, 1)
    model = SegmentationModel(nn.Identity(), fine, {}, (0.5,) * 3, (0.1,) * 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(random_image(8, 8))
    assert fine.seen.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    assert torch.equal(logits, fine.seen[:, 1:].float() - fine.seen[:, :1].float())
    assert not torch.equal(logits, (fine.seen[:, 1:] - fine.seen[:, :1]).float())


@pytest.mark.parametrize("pair", PAIRS)
def test_any_size_gives_logits_of_that_size(pair: str, built_of: BuiltOf) -> None:
    model = built_of(pair).model.eval()
    with torch.no_grad():
        for height, width in ((32, 32), (33, 47), (225, 300)):
            image = random_image(height, width)
            logits = model(image)
            assert logits.shape == (1, 1, height, width)
            assert logits.isfinite().all()
            assert logits.std() > 0 or height == 32  # there FCN-8s has but one coarse score
            if height < 225:
                assert torch.equal(model(image.float()), logits)


def test_photos_of_750_pixels_which_32_does_not_divide(built_of: BuiltOf) -> None:
    model = built_of("vgg16_fcn8s").model.to("meta")
    assert model(torch.empty(1, 3, 750, 750, device="meta")).shape == (1, 1, 750, 750)


@pytest.mark.parametrize("pair", PAIRS)
def test_one_smallest_picture_trains(pair: str, built_of: BuiltOf) -> None:
    model = built_of(pair).model.train()
    logits = model(random_image(32, 32))
    assert logits.shape == (1, 1, 32, 32)
    logits.square().mean().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if name.startswith("decoder.")}
    assert any(grad is not None and grad.any() for grad in grads.values())


def test_pictures_of_a_batch_do_not_touch_each_other_in_evaluation(built_of: BuiltOf) -> None:
    model = built_of("resnet50_deeplabv3plus").model.eval()
    images = random_image(48, 64, batch=2)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[1:], model(images[1:]), rtol=1e-4, atol=1e-5)


def test_state_goes_into_a_second_model(built_of: BuiltOf) -> None:
    first, second = built_of("resnet50_deeplabv3plus").model.eval(), built_of("resnet50_deeplabv3plus").model.eval()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        assert torch.equal(first(random_image(40, 40)), second(random_image(40, 40)))


@pytest.mark.slow
def test_large_odd_photo(built_of: BuiltOf) -> None:
    model = built_of("resnet50_deeplabv3plus").model.eval()
    with torch.no_grad():
        logits = model(random_image(1501, 2003))
    assert logits.shape == (1, 1, 1501, 2003)
    assert logits.isfinite().all()
