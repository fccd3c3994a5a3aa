"""Losses of binary segmentation: pure functions of `(logits, target)`.

Logits are `(N, 1, H, W)`, any float dtype. The target is `(N, 1, H, W)`, any dtype, values 0 (background) to 1
(foreground), and may be on the CPU while the logits are on a GPU: its values are then checked without a wait for the
GPU. Every loss is a scalar, computed in float32 with autocast disabled, because sums over pixels overflow in float16.

Pixels whose target is `VOID` are left out: a loss is that of the other pixels, and its gradient there is 0. An image
that is wholly void is left out of means over images; if all are, the loss is 0 with a gradient of 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from segtune.config.loss_settings import LossSettings
from segtune.config.types import EmptyMaskRule
from segtune.metrics import VOID


def bce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross-entropy, averaged over all pixels of the batch that are not void.

    Args:
        logits: `(N, 1, H, W)`.
        target: `(N, 1, H, W)`, values 0 to 1, or `VOID`.

    Returns:
        A scalar, 0 or more.

    Raises:
        ValueError: The shapes do not match, or the target has other values.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return _cross_entropy(*_checked(logits, target))


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    per_image: bool = True,
    empty: EmptyMaskRule = "background",
    smooth: float = 1.0,
) -> Tensor:
    """Return the soft Dice loss, `1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)`.

    From V-Net (Milletari et al., 2016), with plain sums in the denominator, as is usual, where V-Net sums
    squares.

    The rule `empty` sets the loss of an image (or, if not `per_image`, a batch) whose target has no foreground:

    - `background`: the loss of the background instead, `p` and `t` replaced by `1 - p` and `1 - t`: a solid
      gradient.
    - `smooth`: the value of the formula, `sum(p) / (sum(p) + smooth)`. Its gradient fades with the square of
      `sum(p)`, so it almost vanishes when much of a large image is predicted.
    - `skip`: the image is left out of the mean. If all are, the loss is 0 with a gradient of 0.

    Args:
        logits: `(N, 1, H, W)`.
        target: `(N, 1, H, W)`, values 0 to 1, or `VOID`.
        per_image: Average the losses of the images; else treat the batch as one image.
        empty: The rule for a target without foreground.
        smooth: Added to numerator and denominator, 0 or more; more than 0 with `smooth` as the rule. The
            `DiceLoss` of segmentation_models_pytorch counts it double: its 0.5 is 1 here.

    Returns:
        A scalar, 0 to 1.

    Raises:
        ValueError: The shapes do not match, the target has other values, or `empty` or `smooth` is invalid.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return _soft_dice(*_checked(logits, target), per_image=per_image, empty=empty, smooth=smooth)


def dice_bce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    bce_weight: float = 1.0,
    per_image: bool = True,
    empty: EmptyMaskRule = "background",
    smooth: float = 1.0,
) -> Tensor:
    """Return the weighted sum of `dice_loss` and `bce_loss`.

    Args:
        logits: `(N, 1, H, W)`.
        target: `(N, 1, H, W)`, values 0 to 1, or `VOID`.
        dice_weight: Weight of the Dice loss.
        bce_weight: Weight of the cross-entropy.
        per_image: As in `dice_loss`.
        empty: As in `dice_loss`.
        smooth: As in `dice_loss`.

    Returns:
        A scalar.

    Raises:
        ValueError: As in `dice_loss`.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logit, truth, counted = _checked(logits, target)
        dice = _soft_dice(logit, truth, counted, per_image=per_image, empty=empty, smooth=smooth)
        return dice_weight * dice + bce_weight * _cross_entropy(logit, truth, counted)


def _checked(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return logits, target, and 1 where it counts and 0 where it is void, each `(N, 1, H, W)` and float32.

    All are on the logits' device; logits and target are 0 where it is void, and the third is None if that is nowhere.

    Raises:
        ValueError: The shapes do not match, or the target is neither within 0 to 1 nor void.
    """
    if logits.ndim != 4 or logits.shape[1] != 1:
        raise ValueError(f"got logits of shape {tuple(logits.shape)}; expected (N, 1, H, W), one logit per pixel")
    if target.shape != logits.shape or not target.numel():
        raise ValueError(
            f"got a target of shape {tuple(target.shape)}; expected that of the logits, {tuple(logits.shape)}, with at "
            "least one pixel"
        )
    has_void = False
    if target.dtype != torch.bool:
        low, high = torch.stack(target.aminmax()).tolist()  # of a target on a GPU one synchronisation, not two
        if has_void := high == VOID:
            low, high = torch.stack(target.masked_fill(target == VOID, 0).aminmax()).tolist()
        if not (low >= 0 and high <= 1):  # written so that NaN is refused too
            raise ValueError(
                f"got target values from {low:g} to {high:g}; expected 0 (background) to 1 (foreground): convert "
                "a 0/255 mask first, for example with `mask > 127`"
            )
    logit, target = logits.float(), target.to(logits.device, non_blocking=True)
    if not has_void:
        return logit, target.float(), None
    void = target == VOID
    return logit.masked_fill(void, 0), target.masked_fill(void, 0).float(), (~void).float()


def _cross_entropy(logit: Tensor, truth: Tensor, counted: Tensor | None) -> Tensor:
    if counted is None:
        return F.binary_cross_entropy_with_logits(logit, truth)
    total = F.binary_cross_entropy_with_logits(logit, truth, counted, reduction="sum")
    return total / counted.sum().clamp(min=1)


def _soft_dice(
    logit: Tensor, truth: Tensor, counted: Tensor | None, *, per_image: bool, empty: EmptyMaskRule, smooth: float
) -> Tensor:
    if empty not in get_args(EmptyMaskRule):
        raise ValueError(f"got empty={empty!r}; expected one of {', '.join(get_args(EmptyMaskRule))}")
    if not smooth >= 0 or (empty == "smooth" and smooth == 0):
        raise ValueError(f"got smooth={smooth:g}; expected 0 or more, and more than 0 with empty='smooth'")
    dims = (1, 2, 3) if per_image else (0, 1, 2, 3)
    is_empty = truth.amax(dims, keepdim=True) == 0
    if empty != "smooth":
        # Swapping foreground and background leaves no target empty, so there is no 0/0 below, not even in an image
        # that is then skipped.
        logit, truth = torch.where(is_empty, -logit, logit), torch.where(is_empty, 1 - truth, truth)
    probability, kept = logit.sigmoid(), ~is_empty if empty == "skip" else None
    if counted is not None:
        probability, truth = probability * counted, truth * counted
    overlap = (probability * truth).sum(dims, keepdim=True)
    total = (probability + truth).sum(dims, keepdim=True)
    if counted is not None:
        some = counted.amax(dims, keepdim=True) > 0
        total = torch.where(some, total, 1)  # no 0/0 where all is void
        kept = some if kept is None else kept & some
    loss = 1 - (2 * overlap + smooth) / (total + smooth)
    return loss.mean() if kept is None else (loss * kept).sum() / kept.sum().clamp(min=1)


LOSSES: Mapping[str, Callable[..., Tensor]] = {"dice_bce": dice_bce_loss, "dice": dice_loss, "bce": bce_loss}


Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(settings: LossSettings) -> Loss:
    """Return the loss of `(logits, target)` with its settings bound."""
    options = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name != "name"}
    return partial(LOSSES[settings.name], **options)
