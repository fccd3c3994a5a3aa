"""The losses against hand-computed values, finite differences and segmentation_models_pytorch."""

import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, get_args

import numpy as np
import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor

from segtune.config.types import EmptyMaskRule
from segtune.losses import bce_loss, dice_bce_loss, dice_loss
from segtune.metrics import VOID

Loss = Callable[..., Tensor]
Array = np.ndarray[Any, np.dtype[np.float64]]

LOSSES: list[Loss] = [bce_loss, dice_loss, dice_bce_loss]
EMPTY_RULES: tuple[EmptyMaskRule, ...] = get_args(EmptyMaskRule)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Three images; the second without foreground."""
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 1, 6, 5, generator=rng)
    target = (torch.rand(3, 1, 6, 5, generator=rng) < 0.4).long()
    target[1] = 0
    return logits, target


def logit_of(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).logit().reshape(1, 1, 1, -1)


def mask_of(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def gradient_of(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


def test_bce_by_hand() -> None:
    loss = bce_loss(logit_of(0.8, 0.4), mask_of(1, 0))
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)


def test_dice_by_hand() -> None:
    # overlap 0.8, sum(p) 1.2, sum(t) 1
    loss = dice_loss(logit_of(0.8, 0.4), mask_of(1, 0), smooth=1.0)
    assert loss.item() == pytest.approx(1 - (2 * 0.8 + 1) / (1.2 + 1 + 1))
    assert dice_loss(logit_of(0.8, 0.4), mask_of(1, 0), smooth=0.0).item() == pytest.approx(1 - 1.6 / 2.2)


def test_per_image_and_pooled_by_hand() -> None:
    logits = torch.cat([logit_of(0.8, 0.4), logit_of(0.5, 0.5)])
    target = torch.cat([mask_of(1, 0), mask_of(1, 1)])
    first, second = 1 - 2.6 / 3.2, 1 - 3 / 4
    assert dice_loss(logits, target).item() == pytest.approx((first + second) / 2)
    assert dice_loss(logits, target, per_image=False).item() == pytest.approx(1 - (2 * 1.8 + 1) / (2.2 + 3 + 1))


@pytest.mark.parametrize("per_image", [True, False])
def test_empty_rules_by_hand(per_image: bool) -> None:
    logits, target = logit_of(0.8, 0.4), mask_of(0, 0)
    by_rule = {rule: dice_loss(logits, target, empty=rule, per_image=per_image).item() for rule in EMPTY_RULES}
    # Background: 1 - p is 0.2 and 0.6, 1 - t is 1 and 1.
    assert by_rule == pytest.approx({"background": 1 - 2.6 / 3.8, "smooth": 1 - 1 / 2.2, "skip": 0.0})


def test_empty_rule_touches_only_empty_images() -> None:
    logits = torch.cat([logit_of(0.8, 0.4), logit_of(0.8, 0.4)])
    target = torch.cat([mask_of(1, 0), mask_of(0, 0)])
    full = 1 - 2.6 / 3.2
    assert dice_loss(logits, target, empty="background").item() == pytest.approx((full + 1 - 2.6 / 3.8) / 2)
    assert dice_loss(logits, target, empty="smooth").item() == pytest.approx((full + 1 - 1 / 2.2) / 2)
    assert dice_loss(logits, target, empty="skip").item() == pytest.approx(full)
    pooled = {dice_loss(logits, target, empty=e, per_image=False).item() for e in ("background", "smooth", "skip")}
    assert len(pooled) == 1  # the batch has foreground, so the rule has no say


def test_dice_bce_is_the_weighted_sum(batch: tuple[Tensor, Tensor]) -> None:
    loss = dice_bce_loss(*batch, dice_weight=0.3, bce_weight=2.0, per_image=False, empty="smooth", smooth=0.7)
    dice = dice_loss(*batch, per_image=False, empty="smooth", smooth=0.7)
    assert loss.item() == pytest.approx(0.3 * dice.item() + 2 * bce_loss(*batch).item())


@pytest.mark.parametrize("smooth", [0.0, 1.0, 8.0])
def test_pooled_dice_and_gradient_agree_with_smp(batch: tuple[Tensor, Tensor], smooth: float) -> None:
    logits, target = batch
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    loss = dice_loss(ours, target, per_image=False, smooth=smooth)
    expected = DiceLoss("binary", from_logits=True, smooth=smooth / 2)(theirs, target)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient_of(loss, ours), gradient_of(expected, theirs))


def test_per_image_dice_is_the_mean_of_smp_on_single_images(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    smp = DiceLoss("binary", from_logits=True, smooth=0.5)
    single = [smp(logits[i : i + 1], target[i : i + 1]) for i in (0, 2)]  # image 1 is empty
    torch.testing.assert_close(dice_loss(logits, target, empty="skip"), torch.stack(single).mean())


def reference_dice_bce(logits: Array, target: Array) -> float:
    """`dice_bce_loss` with its default rules, one image at a time, float64, without torch."""
    p = 1 / (1 + np.exp(-logits))
    dice = []
    for q, t in zip(p, target, strict=True):
        if t.sum() == 0:
            q, t = 1 - q, 1 - t
        dice.append(1 - (2 * (q * t).sum() + 1) / (q.sum() + t.sum() + 1))
    return float(np.mean(dice) - np.mean(target * np.log(p) + (1 - target) * np.log(1 - p)))


def test_gradient_agrees_with_finite_differences(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch[0].clone().requires_grad_(), batch[1]
    gradient = gradient_of(dice_bce_loss(logits, target), logits)
    values, truth = logits.detach().double().numpy(), target.double().numpy()
    slopes = np.empty_like(values)
    for at in np.ndindex(*values.shape):
        step = np.zeros_like(values)
        step[at] = 1e-5
        slopes[at] = (reference_dice_bce(values + step, truth) - reference_dice_bce(values - step, truth)) / 2e-5
    np.testing.assert_allclose(gradient.numpy(), slopes, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
def test_any_target_dtype(loss: Loss, dtype: torch.dtype, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    value = loss(logits, target.to(dtype))
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(logits, target.float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rule", EMPTY_RULES)
@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("truth", [0, 1, None])
def test_finite_at_extreme_logits(dtype: torch.dtype, rule: EmptyMaskRule, per_image: bool, truth: int | None) -> None:
    rng = torch.Generator().manual_seed(1)
    logits = (1e4 * (2 * torch.randint(2, (2, 1, 8, 8), generator=rng) - 1)).to(dtype).requires_grad_()
    target = torch.randint(2, (2, 1, 8, 8), generator=rng) if truth is None else torch.full((2, 1, 8, 8), truth)
    for smooth in (1.0, 0.0) if rule != "smooth" else (1.0,):
        loss = dice_bce_loss(logits, target, empty=rule, per_image=per_image, smooth=smooth)
        assert loss.isfinite()
        assert gradient_of(loss, logits).isfinite().all()


def test_float16_sums_do_not_overflow() -> None:
    logits, target = torch.full((1, 1, 512, 512), 8.0), torch.ones(1, 1, 512, 512)  # sums beyond 65504
    assert dice_loss(logits.half(), target).item() == pytest.approx(dice_loss(logits, target).item(), rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(loss: Loss, dtype: torch.dtype, batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    plain, inside = (logits.to(dtype).requires_grad_() for _ in range(2))
    expected = loss(plain, target)
    with torch.autocast("cpu", dtype=dtype):
        value = loss(inside, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert torch.equal(value, loss(logits.to(dtype).float(), target))
    assert torch.equal(gradient_of(value, inside), gradient_of(expected, plain))


@pytest.mark.parametrize("rule", ["background", "smooth"])
@pytest.mark.parametrize("per_image", [True, False])
def test_a_step_on_an_empty_batch_lowers_the_foreground(rule: EmptyMaskRule, per_image: bool) -> None:
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2)).requires_grad_()
    loss = dice_loss(logits, torch.zeros(2, 1, 8, 8), empty=rule, per_image=per_image)
    gradient = gradient_of(loss, logits)
    assert (gradient > 0).all()
    step = logits - 10 * gradient
    assert step.sigmoid().sum() < logits.sigmoid().sum()
    assert dice_loss(step, torch.zeros(2, 1, 8, 8), empty=rule, per_image=per_image) < loss


def test_background_rule_keeps_its_gradient_on_large_images() -> None:
    logits, target = torch.zeros(1, 1, 256, 256, requires_grad=True), torch.zeros(1, 1, 256, 256)
    sizes = {}
    for rule in EMPTY_RULES[:2]:
        sizes[rule] = gradient_of(dice_loss(logits, target, empty=rule), logits).sum().item()
    assert sizes["background"] > 0.1
    assert sizes["background"] > 1000 * sizes["smooth"]


@pytest.mark.parametrize("per_image", [True, False])
def test_skip_gives_an_all_empty_batch_zero_loss_and_zero_gradient(per_image: bool) -> None:
    logits = torch.randn(2, 1, 4, 4).requires_grad_()
    loss = dice_loss(logits, torch.zeros(2, 1, 4, 4), empty="skip", per_image=per_image)
    assert loss.item() == 0
    assert not gradient_of(loss, logits).any()


def test_a_skipped_image_with_nothing_predicted_does_not_spoil_the_gradient() -> None:
    logits = torch.cat([logit_of(0.8, 0.4), torch.full((1, 1, 1, 2), -1e4)]).requires_grad_()
    target = torch.cat([mask_of(1, 0), mask_of(0, 0)])
    loss = dice_loss(logits, target, empty="skip", smooth=0.0)
    assert loss.item() == pytest.approx(1 - 1.6 / 2.2)
    gradient = gradient_of(loss, logits)
    assert gradient[0].all()
    assert not gradient[1].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_better_prediction_costs_less(loss: Loss, batch: tuple[Tensor, Tensor]) -> None:
    target = batch[1]
    values = [loss(scale * (2.0 * target - 1), target).item() for scale in (-20, -4, -1, 0, 1, 4, 20)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (
            torch.zeros(2, 2, 4, 4),
            torch.zeros(2, 1, 4, 4),
            "got logits of shape (2, 2, 4, 4); expected (N, 1, H, W), one logit per pixel",
        ),
        (
            torch.zeros(2, 4, 4),
            torch.zeros(2, 1, 4, 4),
            "got logits of shape (2, 4, 4); expected (N, 1, H, W), one logit per pixel",
        ),
        (
            torch.zeros(2, 1, 4, 4),
            torch.zeros(2, 4, 4),
            "got a target of shape (2, 4, 4); expected that of the logits, (2, 1, 4, 4), with at least one pixel",
        ),
        (
            torch.zeros(0, 1, 4, 4),
            torch.zeros(0, 1, 4, 4),
            "got a target of shape (0, 1, 4, 4); expected that of the logits, (0, 1, 4, 4), with at least one pixel",
        ),
        (
            torch.zeros(1, 1, 1, 2),
            torch.tensor([[[[0, 255]]]], dtype=torch.uint8),
            "got target values from 0 to 255; expected 0 (background) to 1 (foreground): convert "
            "a 0/255 mask first, for example with `mask > 127`",
        ),
        (
            torch.zeros(1, 1, 1, 2),
            torch.tensor([[[[-1, 1]]]]),
            "got target values from -1 to 1; expected 0 (background) to 1 (foreground): convert "
            "a 0/255 mask first, for example with `mask > 127`",
        ),
        (
            torch.zeros(1, 1, 1, 2),
            torch.tensor([[[[0, math.nan]]]]),
            "got target values from nan to nan; expected 0 (background) to 1 (foreground): convert "
            "a 0/255 mask first, for example with `mask > 127`",
        ),
    ],
)
def test_wrong_tensors_are_refused(loss: Loss, logits: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loss(logits, target)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_target_on_the_cpu_is_checked_there(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device of the logits, which here holds no values, is not asked for any."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for that device
    logits, target = torch.zeros(1, 1, 2, 2, device="meta"), torch.ones(1, 1, 2, 2, dtype=torch.uint8)
    assert loss(logits, target).device.type == "meta"
    with pytest.raises(ValueError, match="got target values from 2 to 2"):
        loss(logits, 2 * target)


@pytest.mark.parametrize("loss", [dice_loss, dice_bce_loss])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"empty": "one"}, "got empty='one'; expected one of background, smooth, skip"),
        ({"smooth": -1.0}, "got smooth=-1; expected 0 or more, and more than 0 with empty='smooth'"),
        (
            {"smooth": 0.0, "empty": "smooth"},
            "got smooth=0; expected 0 or more, and more than 0 with empty='smooth'",
        ),
    ],
)
def test_wrong_options_are_refused(
    loss: Loss, options: dict[str, Any], message: str, batch: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loss(*batch, **options)


# --- void ---


@pytest.fixture
def partly_void(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The batch with 10 void pixels of 30 in each image, among them the only object of none, and where they are."""
    logits, target = batch
    void = torch.zeros(3, 1, 6, 5, dtype=torch.bool)
    for number in range(3):
        places = torch.randperm(30, generator=torch.Generator().manual_seed(number))[:10]
        void[number].view(-1)[places] = True
    return logits, target.to(torch.uint8).masked_fill(void, VOID), void


def counted(values: Tensor, void: Tensor) -> Tensor:
    return values[~void].view(3, 1, 4, 5)


OPTIONS: list[tuple[Loss, dict[str, Any]]] = [
    (bce_loss, {}),
    *((dice_loss, {"per_image": each, "empty": rule}) for each in (True, False) for rule in EMPTY_RULES),
    (dice_bce_loss, {"smooth": 0.0}),
]


@pytest.mark.parametrize(("loss", "options"), OPTIONS)
@pytest.mark.parametrize("emptied", [False, True])
def test_the_loss_is_that_of_the_pixels_that_count(
    loss: Loss, options: dict[str, Any], emptied: bool, partly_void: tuple[Tensor, Tensor, Tensor]
) -> None:
    logits, target, void = partly_void
    if emptied:  # all objects are below void
        target = target.clamp(max=0).masked_fill(void, VOID)
    ours, theirs = logits.clone().requires_grad_(), counted(logits, void).clone().requires_grad_()
    found, expected = loss(ours, target, **options), loss(theirs, counted(target, void), **options)
    torch.testing.assert_close(found, expected)
    gradient = gradient_of(found, ours)
    torch.testing.assert_close(counted(gradient, void), gradient_of(expected, theirs))
    assert not gradient[void].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_predicted_in_void_changes_no_bit(loss: Loss, partly_void: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, void = partly_void
    found = []
    for filling in (0.0, -1e4, math.inf, math.nan):
        filled = logits.masked_fill(void, filling).requires_grad_()
        value = loss(filled, target)
        found.append((value, gradient_of(value, filled)))
    assert all(torch.equal(value, found[0][0]) and torch.equal(gradient, found[0][1]) for value, gradient in found)


def test_void_by_hand() -> None:
    logits, target = logit_of(0.8, 0.4, 0.9), mask_of(1, 0, VOID)
    assert bce_loss(logits, target).item() == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert dice_loss(logits, target).item() == pytest.approx(1 - 2.6 / 3.2)
    assert dice_loss(logits, mask_of(0, 0, VOID)).item() == pytest.approx(1 - 2.6 / 3.8)  # of the background


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_pooled_dice_with_void_agrees_with_smp(partly_void: tuple[Tensor, Tensor, Tensor], smooth: float) -> None:
    logits, target, _ = partly_void
    expected = DiceLoss("binary", from_logits=True, smooth=smooth / 2, ignore_index=VOID)(logits, target.long())
    torch.testing.assert_close(dice_loss(logits, target, per_image=False, smooth=smooth), expected)


@pytest.mark.parametrize("rule", EMPTY_RULES)
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_a_wholly_void_image_is_in_no_mean(batch: tuple[Tensor, Tensor], rule: EmptyMaskRule, smooth: float) -> None:
    if rule == "smooth" and smooth == 0:
        pytest.skip("refused")
    logits, target = batch
    with_void = torch.cat([target.to(torch.uint8), torch.full((1, 1, 6, 5), VOID, dtype=torch.uint8)])
    more = torch.cat([logits, torch.full((1, 1, 6, 5), -1e4)]).requires_grad_()
    for loss, options in ((bce_loss, {}), (dice_loss, {"empty": rule, "smooth": smooth})):
        value = loss(more, with_void, **options)
        torch.testing.assert_close(value, loss(logits, target, **options))
        gradient = gradient_of(value, more)
        assert gradient[:3].isfinite().all()
        assert not gradient[3].any()


@pytest.mark.parametrize(("loss", "options"), OPTIONS)
def test_a_wholly_void_batch_costs_nothing(loss: Loss, options: dict[str, Any]) -> None:
    logits = torch.randn(2, 1, 4, 4).requires_grad_()
    value = loss(logits, torch.full((2, 1, 4, 4), VOID, dtype=torch.uint8), **options)
    assert value.item() == 0
    assert not gradient_of(value, logits).any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("wrong", [255, 2])
def test_void_hides_no_wrong_values(loss: Loss, wrong: int) -> None:
    target = torch.tensor([[[[0, 1, VOID, wrong]]]], dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"^got target values from 0 to {wrong}; expected 0 "):
        loss(torch.zeros(1, 1, 1, 4), target)
