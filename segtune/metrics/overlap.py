"""Overlap metrics of binary segmentation, computed from integer counts per image.

Call `counts` for each batch, concatenate the results of all batches (and processes), then call `per_image` or
`summarise`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from segtune.metrics import VOID

Empty = Literal["one", "zero", "skip"]
"""The rule for images without true foreground; see `per_image`."""


@dataclass(frozen=True)
class Scores:
    """Scores of a set of images, each 0 to 1.

    `*_mean` is the mean over the images, so every image has the same weight. `*_pooled`, `precision` and `recall` are
    micro-averaged: computed from the counts summed over all images, so every pixel has the same weight. `images` is
    the number of images, `empty_images` that of images without true foreground; wholly void ones are left out.
    `dice_object` is the mean Dice of the images with true foreground, NaN without any, and `predicted` the fraction of
    their pixels that is predicted as foreground; without any, that of all images.
    """

    dice_mean: float
    dice_pooled: float
    iou_mean: float
    iou_pooled: float
    precision: float
    recall: float
    images: int
    empty_images: int
    dice_object: float
    predicted: float

    @property
    def all_empty(self) -> bool:
        """Whether no image has true foreground."""
        return self.empty_images == self.images


def logit_of(threshold: float) -> float:
    """Return the logit above which a pixel is foreground, for a threshold of the probability.

    It is computed in float64: in float32, 1 - threshold would be too inexact for thresholds near 1.

    Args:
        threshold: Above 0 and below 1.
    """
    return torch.logit(torch.tensor(threshold, dtype=torch.float64)).item()


def counts(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the numbers of true and false positives and negatives of every image.

    Args:
        predicted: `(N, 1, H, W)` or `(N, H, W)`, bool or 0 and 1; neither logits nor probabilities.
        target: The truth, of the same shape, bool, or 0, 1 and `VOID`; void pixels are left out.

    Returns:
        `(N, 4)`, int64: true positives, false positives, false negatives, true negatives; exact for any size.

    Raises:
        ValueError: The shapes differ or are wrong, or a mask contains anything else.
    """
    shape = tuple(predicted.shape)
    if target.shape != predicted.shape or len(shape) not in (3, 4) or (len(shape) == 4 and shape[1] != 1):
        raise ValueError(
            f"got shape {shape} for predicted and {tuple(target.shape)} for target; expected the same for both, "
            "(N, 1, H, W) or (N, H, W)"
        )
    found, rest = _classes("predicted", predicted)
    true, false = _classes("target", target, VOID)
    cells = (found & true, found & false, rest & true, rest & false)
    return torch.stack([_count(cell) for cell in cells], dim=1)


def per_image(counts: Tensor, empty: Empty = "one") -> dict[str, Tensor]:
    """Return the scores of every image.

    Dice is `2 TP / (2 TP + FP + FN)`, IoU `TP / (TP + FP + FN)`, precision `TP / (TP + FP)` and recall
    `TP / (TP + FN)`. The rule `empty` applies to images without true foreground, where these can be 0/0:

    - `one`: 0/0 is 1. So Dice, IoU and precision are 1 if nothing was predicted and 0 otherwise; recall is 1
      in any case, as nothing was missed.
    - `zero`: 0/0 is 0, so all four are 0.
    - `skip`: all four are NaN, whatever was predicted.

    Precision is 0 under every rule if there is foreground and nothing was predicted: the object was missed. All four
    are NaN under every rule if all counts are 0: the image is wholly void.

    Args:
        counts: `(N, 4)`, int64, from `counts`.
        empty: The rule for images without true foreground.

    Returns:
        `dice`, `iou`, `precision` and `recall`, each `(N,)`, float64, on the CPU (not every accelerator has
        float64).

    Raises:
        ValueError: The counts have another shape or dtype, or `empty` is unknown.
    """
    if counts.ndim != 2 or counts.shape[1] != 4 or counts.dtype != torch.int64:
        raise ValueError(
            f"got counts of shape {tuple(counts.shape)} and dtype {counts.dtype}; expected (N, 4), int64, "
            "as from `counts`"
        )
    if empty not in get_args(Empty):
        raise ValueError(f"got empty={empty!r}; expected one of {', '.join(get_args(Empty))}")
    tp, fp, fn, _ = counts.cpu().unbind(1)
    is_empty = tp + fn == 0
    # A denominator can be 0 with foreground only in precision, and then the object was missed: 0.
    undefined = is_empty.double() if empty == "one" else torch.zeros(len(tp), dtype=torch.float64)
    fractions = {
        "dice": (2 * tp, 2 * tp + fp + fn),
        "iou": (tp, tp + fp + fn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
    }
    scores = {name: torch.where(b == 0, undefined, a.double() / b) for name, (a, b) in fractions.items()}
    left_out = is_empty if empty == "skip" else counts.cpu().sum(1) == 0
    return {name: score.masked_fill(left_out, torch.nan) for name, score in scores.items()}


def summarise(counts: Tensor, empty: Empty = "one") -> Scores:
    """Return the scores of a set of images, averaged per image and micro-averaged.

    The micro-averaged scores count all images, so false positives in empty ones lower them under every rule; if no
    image has foreground, the set scores like one empty image. Under `skip` the means leave the empty
    images out, and are NaN if all are empty. All scores are NaN if all images are wholly void.

    Args:
        counts: `(N, 4)`, int64, from `counts`, N at least 1.
        empty: The rule for images without true foreground, as in `per_image`.

    Returns:
        The scores.

    Raises:
        ValueError: As in `per_image`, or there is no image.
    """
    each = per_image(counts, empty)
    if not len(counts):
        raise ValueError("got counts of no image; expected at least one row")
    labelled = counts.cpu().sum(1) > 0
    counts, each = counts.cpu()[labelled], {name: scores[labelled] for name, scores in each.items()}
    is_empty = counts[:, 0] + counts[:, 2] == 0
    tp, fp, fn, tn = (counts if is_empty.all() else counts[~is_empty]).sum(0).tolist()
    pooled = {name: score.item() for name, score in per_image(counts.sum(0, keepdim=True), empty).items()}
    return Scores(
        dice_mean=each["dice"].nanmean().item(),
        dice_pooled=pooled["dice"],
        iou_mean=each["iou"].nanmean().item(),
        iou_pooled=pooled["iou"],
        precision=pooled["precision"],
        recall=pooled["recall"],
        images=len(counts),
        empty_images=int(is_empty.sum()),
        dice_object=per_image(counts, "skip")["dice"].nanmean().item(),
        predicted=(tp + fp) / max(1, tp + fp + fn + tn),
    )


def _count(found: Tensor) -> Tensor:
    """Return how many of each row of (N, M), bool, are True."""
    if found.device.type == "cpu":  # NumPy counts bytes; PyTorch adds 64-bit numbers, in several times the time
        return torch.from_numpy(np.count_nonzero(found.numpy(), axis=1))
    return found.sum(1)


def _classes(name: str, mask: Tensor, void: int | None = None) -> tuple[Tensor, Tensor]:
    """Return where (N, M) a mask is 1 and where it is 0; the value `void` is neither."""
    mask = mask.flatten(1)
    if mask.dtype == torch.bool:
        return mask, ~mask
    one, zero = mask == 1, mask == 0
    rest = mask[~(one | zero)]
    wrong = rest if void is None else rest[rest != void]
    if wrong.numel():
        raise ValueError(
            f"got {wrong[0].item():g} in {name}; expected bool or only 0 and 1: threshold logits or "
            "probabilities, and convert a 0/255 mask first, for example with `mask > 127`"
        )
    return one, zero
