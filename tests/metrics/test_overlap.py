"""The metrics against hand-computed values, segmentation_models_pytorch and torchmetrics."""

import dataclasses
import math
import re
from collections.abc import Callable

import pytest
import segmentation_models_pytorch.metrics as smp
import torch
from torch import Tensor
from torchmetrics.functional import classification as tm

from segtune.metrics import VOID
from segtune.metrics.overlap import Empty, Scores, counts, logit_of, per_image, summarise

MISSED, FALSE_ALARM, CLEAN = [0, 0, 5, 4], [0, 3, 0, 6], [0, 0, 0, 9]
"""Counts of images: object missed; empty, but something found; empty and nothing found."""

nan = math.nan


@pytest.fixture
def masks() -> tuple[Tensor, Tensor]:
    """Predictions and truth of six images: full ones, and the special ones named above, in this order at "
    "the end."""
    rng = torch.Generator().manual_seed(0)
    predicted = torch.rand(6, 1, 7, 9, generator=rng) < 0.5
    target = torch.rand(6, 1, 7, 9, generator=rng) < 0.3
    predicted[3] = target[4] = predicted[5] = target[5] = False
    return predicted, target


@pytest.mark.parametrize("threshold", [1e-9, 0.3, 0.6, 0.97, 1 - 1e-9])
def test_the_threshold_as_a_logit(threshold: float) -> None:
    assert logit_of(threshold) == pytest.approx(math.log(threshold / (1 - threshold)), rel=1e-14)
    assert logit_of(0.5) == 0


def test_counts_by_hand() -> None:
    predicted = torch.tensor([[[1, 1, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    target = torch.tensor([[[1, 0, 1], [1, 0, 0]], [[0, 0, 0], [0, 0, 1]]])
    expected = torch.tensor([[2, 1, 1, 2], [0, 0, 1, 5]])
    assert torch.equal(counts(predicted, target), expected)
    assert torch.equal(counts(predicted[:, None], target[:, None]), expected)
    assert counts(predicted, target).dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float32])
def test_counts_take_bool_and_numbers(dtype: torch.dtype, masks: tuple[Tensor, Tensor]) -> None:
    predicted, target = masks
    assert torch.equal(counts(predicted.to(dtype), target), counts(predicted, target.to(dtype)))
    assert torch.equal(counts(predicted.to(dtype), target.to(dtype)), counts(predicted, target))


def test_counts_cover_every_pixel_and_swap(masks: tuple[Tensor, Tensor]) -> None:
    predicted, target = masks
    forward = counts(predicted, target)
    assert (forward.sum(1) == 63).all()
    assert torch.equal(counts(target, predicted), forward[:, [0, 2, 1, 3]])
    assert torch.equal(counts(~predicted, ~target), forward[:, [3, 2, 1, 0]])


def test_counts_agree_with_smp_and_torchmetrics(masks: tuple[Tensor, Tensor]) -> None:
    predicted, target = masks
    stats = smp.get_stats(predicted.long(), target.long(), mode="binary")
    assert torch.equal(counts(predicted, target), torch.cat(stats, dim=1))
    tp, fp, tn, fn, _ = tm.binary_stat_scores(predicted.int(), target.int(), multidim_average="samplewise").unbind(1)
    assert torch.equal(counts(predicted, target), torch.stack([tp, fp, fn, tn], dim=1))


def test_counts_are_exact_where_float32_is_not() -> None:
    predicted = torch.ones(1, 4099, 4099, dtype=torch.bool)  # 16,801,801 pixels: odd and above 2**24
    assert counts(predicted, predicted).tolist() == [[16_801_801, 0, 0, 0]]


def test_scores_are_exact_where_float32_is_not() -> None:
    tp = 2**40
    scores = per_image(torch.tensor([[tp, 1, 0, 0]]))
    assert {score.dtype for score in scores.values()} == {torch.float64}
    assert scores["precision"].item() == tp / (tp + 1) < 1
    assert scores["dice"].item() == 2 * tp / (2 * tp + 1) < 1


def test_per_image_by_hand() -> None:
    scores = per_image(torch.tensor([[2, 1, 3, 4], [5, 0, 0, 0]]))
    expected = {"dice": [4 / 8, 1], "iou": [2 / 6, 1], "precision": [2 / 3, 1], "recall": [2 / 5, 1]}
    assert {name: score.tolist() for name, score in scores.items()} == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [  # of the images MISSED, FALSE_ALARM, CLEAN
        ("one", {"dice": [0, 0, 1], "iou": [0, 0, 1], "precision": [0, 0, 1], "recall": [0, 1, 1]}),
        ("zero", {"dice": [0, 0, 0], "iou": [0, 0, 0], "precision": [0, 0, 0], "recall": [0, 0, 0]}),
        (
            "skip",
            {
                "dice": [0, nan, nan],
                "iou": [0, nan, nan],
                "precision": [0, nan, nan],
                "recall": [0, nan, nan],
            },
        ),
    ],
)
def test_empty_rules_by_hand(rule: Empty, expected: dict[str, list[float]]) -> None:
    scores = per_image(torch.tensor([MISSED, FALSE_ALARM, CLEAN]), rule)
    for name, values in expected.items():
        assert scores[name].tolist() == pytest.approx(values, nan_ok=True), name


@pytest.mark.parametrize(("rule", "zero_division"), [("one", 1.0), ("zero", 0.0)])
def test_summary_agrees_with_smp(rule: Empty, zero_division: float, masks: tuple[Tensor, Tensor]) -> None:
    stats = smp.get_stats(*(mask.long() for mask in masks), mode="binary")
    scores = summarise(counts(*masks), rule)
    expected = {
        "dice_mean": smp.f1_score(*stats, reduction="micro-imagewise", zero_division=zero_division),
        "dice_pooled": smp.f1_score(*stats, reduction="micro"),
        "iou_mean": smp.iou_score(*stats, reduction="micro-imagewise", zero_division=zero_division),
        "iou_pooled": smp.iou_score(*stats, reduction="micro"),
        "precision": smp.precision(*stats, reduction="micro"),
        "recall": smp.recall(*stats, reduction="micro"),
    }
    for name, value in expected.items():
        assert getattr(scores, name) == pytest.approx(float(value), rel=1e-6), name
    assert (scores.images, scores.empty_images) == (6, 2)


def test_per_image_agrees_with_torchmetrics(masks: tuple[Tensor, Tensor]) -> None:
    predicted, target = (mask.int() for mask in masks)
    scores = per_image(counts(predicted, target), "zero")  # torchmetrics takes 0/0 for 0
    for name, score in {
        "dice": tm.binary_f1_score,
        "precision": tm.binary_precision,
        "recall": tm.binary_recall,
    }.items():
        expected = score(predicted, target, multidim_average="samplewise")
        torch.testing.assert_close(scores[name], expected.double(), msg=name, rtol=1e-6, atol=0)
    single = [tm.binary_jaccard_index(p, t).double() for p, t in zip(predicted[:3], target[:3], strict=True)]
    torch.testing.assert_close(scores["iou"][:3], torch.stack(single), rtol=1e-6, atol=0)


def test_mean_and_pooled_differ_by_hand() -> None:
    scores = summarise(torch.tensor([[8, 0, 0, 2], [1, 1, 2, 6], FALSE_ALARM]))
    assert dataclasses.asdict(scores) == pytest.approx(
        {
            "dice_mean": (1 + 2 / 5 + 0) / 3,
            "dice_pooled": 18 / (18 + 4 + 2),
            "iou_mean": (1 + 1 / 4 + 0) / 3,
            "iou_pooled": 9 / (9 + 4 + 2),
            "precision": 9 / 13,
            "recall": 9 / 11,
            "images": 3,
            "empty_images": 1,
            "dice_object": (1 + 2 / 5) / 2,
            "predicted": 10 / 20,
        }
    )


def test_skip_leaves_empty_images_out_of_the_means_only() -> None:
    full = [[8, 0, 0, 2], [1, 1, 2, 6]]
    with_empty, without = summarise(torch.tensor([*full, FALSE_ALARM]), "skip"), summarise(torch.tensor(full))
    assert with_empty.dice_mean == without.dice_mean == pytest.approx(0.7)
    assert with_empty.iou_mean == without.iou_mean == pytest.approx(0.625)
    assert with_empty.precision == pytest.approx(9 / 13) != without.precision


@pytest.mark.parametrize(
    ("rows", "rule", "expected"),
    [
        ([CLEAN, CLEAN], "one", Scores(1, 1, 1, 1, 1, 1, 2, 2, nan, 0)),
        ([CLEAN, CLEAN], "zero", Scores(0, 0, 0, 0, 0, 0, 2, 2, nan, 0)),
        ([CLEAN, CLEAN], "skip", Scores(nan, nan, nan, nan, nan, nan, 2, 2, nan, 0)),
        ([CLEAN, FALSE_ALARM], "one", Scores(0.5, 0, 0.5, 0, 0, 1, 2, 2, nan, 3 / 18)),
        ([CLEAN, FALSE_ALARM], "skip", Scores(nan, nan, nan, nan, nan, nan, 2, 2, nan, 3 / 18)),
        ([MISSED], "one", Scores(0, 0, 0, 0, 0, 0, 1, 0, 0, 0)),
        ([CLEAN, MISSED], "one", Scores(0.5, 0, 0.5, 0, 0, 0, 2, 1, 0, 0)),
    ],
)
def test_summary_of_degenerate_sets(rows: list[list[int]], rule: Empty, expected: Scores) -> None:
    scores = summarise(torch.tensor(rows), rule)
    assert dataclasses.astuple(scores) == pytest.approx(dataclasses.astuple(expected), nan_ok=True)


def test_counts_of_batches_add_up(masks: tuple[Tensor, Tensor]) -> None:
    predicted, target = masks
    parts = torch.cat([counts(predicted[:1], target[:1]), counts(predicted[1:], target[1:])])
    assert summarise(parts) == summarise(counts(predicted, target))


def test_dice_and_iou_are_tied(masks: tuple[Tensor, Tensor]) -> None:
    scores = per_image(counts(*masks))
    torch.testing.assert_close(scores["dice"], 2 * scores["iou"] / (1 + scores["iou"]))


def test_scores_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        summarise(torch.tensor([CLEAN])).dice_mean = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("predicted", "target", "message"),
    [
        (
            torch.zeros(2, 1, 4, 4),
            torch.zeros(2, 4, 4),
            "got shape (2, 1, 4, 4) for predicted and (2, 4, 4) for target; expected the same for both, (N, 1, "
            "H, W) or (N, H, W)",
        ),
        (
            torch.zeros(2, 2, 4, 4),
            torch.zeros(2, 2, 4, 4),
            "got shape (2, 2, 4, 4) for predicted and (2, 2, 4, 4) for target; expected the same for both, (N, "
            "1, H, W) or (N, H, W)",
        ),
        (
            torch.zeros(4, 4),
            torch.zeros(4, 4),
            "got shape (4, 4) for predicted and (4, 4) for target; expected the same for both, "
            "(N, 1, H, W) or (N, H, W)",
        ),
        (
            torch.tensor([[[0.0, 0.5]]]),
            torch.zeros(1, 1, 2),
            "got 0.5 in predicted; expected bool or only 0 and 1: threshold logits or "
            "probabilities, and convert a 0/255 mask first, for example with `mask > 127`",
        ),
        (
            torch.tensor([[[0.0, nan]]]),
            torch.zeros(1, 1, 2),
            "got nan in predicted; expected bool or only 0 and 1: threshold logits or "
            "probabilities, and convert a 0/255 mask first, for example with `mask > 127`",
        ),
        (
            torch.zeros(1, 1, 2, dtype=torch.bool),
            torch.tensor([[[0, 255]]], dtype=torch.uint8),
            "got 255 in target; expected bool or only 0 and 1: threshold logits or "
            "probabilities, and convert a 0/255 mask first, for example with `mask > 127`",
        ),
    ],
)
def test_wrong_masks_are_refused(predicted: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        counts(predicted, target)


@pytest.mark.parametrize("score", [per_image, summarise])
@pytest.mark.parametrize(
    ("table", "rule", "message"),
    [
        (
            torch.zeros(4, dtype=torch.int64),
            "one",
            "got counts of shape (4,) and dtype torch.int64; expected (N, 4), int64, as from `counts`",
        ),
        (
            torch.zeros(2, 4),
            "one",
            "got counts of shape (2, 4) and dtype torch.float32; expected (N, 4), int64, as from `counts`",
        ),
        (torch.tensor([CLEAN]), "background", "got empty='background'; expected one of one, zero, skip"),
    ],
)
def test_wrong_counts_are_refused(score: Callable[..., object], table: Tensor, rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        score(table, rule)


def test_no_image_is_refused() -> None:
    none = torch.zeros(0, 4, dtype=torch.int64)
    assert all(score.shape == (0,) for score in per_image(none).values())
    with pytest.raises(ValueError, match=r"^got counts of no image; expected at least one row$"):
        summarise(none)


def test_void_pixels_are_in_no_count(masks: tuple[Tensor, Tensor]) -> None:
    predicted, target = masks
    void = torch.rand(6, 1, 7, 9, generator=torch.Generator().manual_seed(1)) < 0.4
    labels = target.to(torch.uint8).masked_fill(void, VOID)
    found = counts(predicted, labels)
    assert found.sum(1).tolist() == (~void).flatten(1).sum(1).tolist()
    assert torch.equal(counts(predicted ^ void, labels), found)
    for row, one, truth in zip(found.tolist(), predicted.int(), labels.int(), strict=True):
        tp, fp, tn, fn, _ = tm.binary_stat_scores(one, truth, ignore_index=VOID).tolist()
        assert row == [tp, fp, fn, tn]
    by_hand = torch.tensor([[[1, 1, VOID, VOID]]]), torch.tensor([[[1, 0, 1, 0]]])
    assert counts(by_hand[1], by_hand[0]).tolist() == [[1, 0, 1, 0]]


def test_only_the_truth_may_be_void() -> None:
    labels = torch.tensor([[[0, 1, VOID]]], dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"^got {VOID} in predicted; expected bool or only 0 and 1: "):
        counts(labels, labels)
    labels[0, 0, 0] = 255
    with pytest.raises(ValueError, match=r"^got 255 in target; expected bool or only 0 and 1: "):
        counts(labels == 1, labels)


@pytest.mark.parametrize("rule", ["one", "zero", "skip"])
def test_wholly_void_images_have_no_scores_and_are_in_no_mean(rule: Empty) -> None:
    rows = [[2, 1, 3, 4], FALSE_ALARM, CLEAN]
    void = [0, 0, 0, 0]
    each = per_image(torch.tensor([void, *rows, void]), rule)
    expected = per_image(torch.tensor(rows), rule)
    for name, scores in each.items():
        assert scores[[0, 4]].isnan().all()
        assert torch.equal(scores[1:4].nan_to_num(-1), expected[name].nan_to_num(-1))
    assert summarise(torch.tensor([void, *rows, void]), rule) == summarise(torch.tensor(rows), rule)
    nothing = summarise(torch.tensor([void, void]), rule)
    assert (nothing.images, nothing.empty_images, nothing.predicted) == (0, 0, 0)
    assert all(math.isnan(score) for score in (nothing.dice_mean, nothing.iou_pooled, nothing.dice_object))
