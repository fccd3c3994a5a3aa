"""What an evaluation says, by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from segtune.evaluation.evaluator import Details, Evaluation
from segtune.evaluation.summary import assess, choose_threshold, compare_paired, dice_at, scores_per_image
from segtune.metrics.curves import BINS, histogram
from segtune.metrics.overlap import summarise
from segtune.runtime.files import without_nan

#: TP, FP, FN, TN: Dice 0.8, 0.5, empty and clean, empty with a false alarm, 1.
COUNTS = torch.tensor([[4, 1, 1, 94], [2, 2, 2, 94], [0, 0, 0, 100], [0, 5, 0, 95], [7, 0, 0, 93]])


def evaluation(counts: torch.Tensor = COUNTS, void: torch.Tensor | None = None) -> Evaluation:
    """An evaluation with these counts, all probabilities 0.9 or 0.1."""
    found = []
    for tp, fp, fn, tn in counts.tolist():
        probability = torch.tensor([0.9] * (tp + fp) + [0.1] * (fn + tn))
        found.append(histogram(probability, torch.tensor([1] * tp + [0] * fp + [1] * fn + [0] * tn)))
    boundaries = torch.tensor([[3, 4, 3, 4], [1, 4, 1, 4], [0, 0, 0, 0], [0, 5, 0, 0], [6, 6, 6, 6]])
    boundaries = torch.cat([boundaries, boundaries])[: len(counts)]
    boundaries = torch.where((counts[:, :3].sum(1) > 0)[:, None], boundaries, 0)
    zeros = torch.zeros(len(counts))
    details = Details(torch.stack(found), boundaries, zeros, zeros, zeros.long() if void is None else void)
    return Evaluation(summarise(counts), 0.1, counts, None, details)


def test_scores_with_both_means() -> None:
    facts = assess(evaluation(), "one", 200)
    assert facts["dice_mean"] == pytest.approx((0.8 + 0.5 + 1 + 0 + 1) / 5)
    assert facts["boundary_f_mean"] == pytest.approx((0.75 + 0.25 + 1 + 0 + 1) / 5)
    assert facts["dice_pooled"] == pytest.approx(26 / (26 + 8 + 3))
    assert facts["precision"] == pytest.approx(13 / 21)
    precision, recall = 10 / 19, 10 / 14
    assert facts["boundary_f_pooled"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert facts["intervals"].keys() == {
        *(f"{name}_mean" for name in ("dice", "iou", "precision", "recall", "boundary_f")),
        *("dice_pooled", "iou_pooled", "precision", "recall", "boundary_f_pooled", "dice_object"),
    }
    for name, (low, high) in facts["intervals"].items():
        assert low <= facts[name] <= high


def test_empty_images_are_counted_apart() -> None:
    facts = assess(evaluation(), "one", 200)
    assert facts["empty_pictures"] == {
        "images": 2,
        "with_false_alarm": 1,
        "dice_mean_of_others": pytest.approx((0.8 + 0.5 + 1) / 3),
    }


@pytest.mark.parametrize(("empty", "boundary"), [("one", [1, 0]), ("zero", [0, 0]), ("skip", [np.nan, np.nan])])
def test_the_rule_for_empty_images_holds_for_boundaries_too(empty: str, boundary: list[float]) -> None:
    scores = scores_per_image(evaluation(), empty)["boundary_f"]  # type: ignore[arg-type]
    assert scores[2:4].tolist() == pytest.approx(boundary, nan_ok=True)
    assert scores[4] == 1


@pytest.mark.parametrize(("empty", "score"), [("one", 1.0), ("zero", 0.0), ("skip", None)])
def test_of_empty_images_alone_every_score_follows_the_rule(empty: str, score: float | None) -> None:
    facts = without_nan(assess(evaluation(COUNTS[[2, 2, 2]]), empty, 100, {"all": ["x"] * 3}))  # type: ignore[arg-type]
    assert (facts["dice_object"], facts["intervals"].pop("dice_object")) == (None, [None, None])
    names = facts["intervals"].keys()
    assert {name: facts[name] for name in names} == dict.fromkeys(names, score)
    assert facts["intervals"] == {name: [score, score] for name in names}
    assert facts["groups"]["all"][0]["dice_pooled"] == score
    assert facts["gaps"] == {}
    assert choose_threshold(evaluation(COUNTS[[2, 2]]), empty) is None  # type: ignore[arg-type]
    assert facts["warnings"][0].startswith("none of the 3 images has an object")


def test_groups_and_the_gap_between_them() -> None:
    counts = COUNTS[[0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 4]]
    result = evaluation(counts[:5])
    result = replace(
        evaluation(COUNTS[:1]),
        counts=counts,
        details=Details(
            torch.zeros(11, 2, BINS, dtype=torch.int64),
            torch.zeros(11, 4, dtype=torch.int64),
            torch.zeros(11),
            torch.zeros(11),
            torch.zeros(11, dtype=torch.int64),
        ),
    )
    labels = ["x"] * 5 + ["y"] * 5 + ["few"]
    facts = assess(result, "one", 200, {"camera": labels, "nothing": [""] * 11})
    assert [(row["group"], row["images"], row["dice_mean"]) for row in facts["groups"]["camera"]] == [
        ("few", 1, 1.0),
        ("x", 5, pytest.approx(0.8)),
        ("y", 5, pytest.approx(0.5)),
    ]
    assert [np.isnan(row["interval"]).any() for row in facts["groups"]["camera"]] == [True, False, False]
    assert facts["gaps"] == {"camera": {"gap": pytest.approx(0.3), "best": "x", "worst": "y"}}  # one image is too few
    assert "nothing" not in facts["groups"]


def test_a_threshold_is_chosen_and_applied_elsewhere() -> None:
    truth = torch.tensor([1] * 30 + [0] * 70)
    shy = torch.tensor([0.35] * 30 + [0.2] * 70)  # right from a threshold of 0.205 to one of 0.35
    details = Details(histogram(shy, truth)[None], torch.zeros(1, 4), *[torch.zeros(1)] * 3)
    result = replace(evaluation(COUNTS[:1]), details=details)
    threshold, dice = choose_threshold(result, "one")
    assert dice == 1
    assert 0.27 <= threshold <= 0.29  # the middle
    assert dice_at(result, 0.5, "one").tolist() == [0]
    assert dice_at(result, threshold, "one").tolist() == [1]


def test_images_compared_in_pairs() -> None:
    first, second = np.array([0.5, 0.6, 0.7, np.nan, 0.9]), np.array([0.6, 0.7, 0.8, 0.9, 0.9])
    found = compare_paired(first, second, 500)
    assert found["difference"] == pytest.approx(0.075)
    assert (found["better"], found["worse"], found["images"]) == (3, 0, 4)
    low, high = found["interval"]
    assert 0 < low <= 0.075 <= high <= 0.1  # though the images differ by more than that


def test_no_threshold_is_chosen_for_predicting_nothing() -> None:
    """Nine clean images would have the best mean Dice where the one object is missed."""
    object_, clean = torch.tensor([1] * 30 + [0] * 70), torch.zeros(100, dtype=torch.int64)
    histograms = [histogram(torch.tensor([0.6] * 25 + [0.3] * 75), object_)]
    histograms += [histogram(torch.tensor([0.7] * 5 + [0.3] * 95), clean)] * 9
    details = Details(torch.stack(histograms), torch.zeros(10, 4), *[torch.zeros(10)] * 3)
    threshold, dice = choose_threshold(replace(evaluation(COUNTS[:1]), details=details), "one")  # type: ignore[misc]
    assert 0.3 < threshold <= 0.6
    assert dice == pytest.approx(0.1 * 50 / 55)


@pytest.mark.parametrize("empty", ["one", "zero", "skip"])
def test_wholly_void_images_change_no_score(empty: str) -> None:
    """Neither means nor intervals, thresholds, curves, groups and gaps; only what is said of void."""
    labels = ["x", "x", "y", "y", "y"]
    plain = assess(evaluation(), empty, 200, {"camera": labels})  # type: ignore[arg-type]
    void = torch.tensor([50, 0, 0, 0, 0, 0, 100])
    result = evaluation(torch.cat([torch.zeros(1, 4, dtype=torch.int64), COUNTS, torch.zeros(1, 4, dtype=torch.int64)]))
    boundaries = torch.cat([torch.zeros(1, 4), evaluation().detailed.boundaries, torch.zeros(1, 4)]).long()
    result = replace(result, details=replace(result.detailed, boundaries=boundaries, void=void))
    found = assess(result, empty, 200, {"camera": ["only void", *labels, "x"]})  # type: ignore[arg-type]
    assert found.pop("void") == {"share": 150 / 650, "images": 2}
    assert plain.pop("void") == {"share": 0, "images": 0}
    assert without_nan(found) == without_nan(plain)
    expected = choose_threshold(evaluation(), empty)  # type: ignore[arg-type]
    assert choose_threshold(result, empty) == pytest.approx(expected)  # type: ignore[arg-type]
    for scores in scores_per_image(result, empty).values():  # type: ignore[arg-type]
        assert np.isnan(scores[[0, 6]]).all()


def test_of_nothing_but_void_nothing_is_scored() -> None:
    nothing = torch.zeros(3, 4, dtype=torch.int64)
    facts = without_nan(assess(evaluation(nothing), "one", 100, {"all": ["x"] * 3}))
    names = facts["intervals"].keys()
    assert {name: facts[name] for name in names} == dict.fromkeys(names)
    assert facts["groups"] == {}
    assert facts["warnings"] == ["every image is wholly void, so there is nothing to score. Check data.ignore."]
    assert choose_threshold(evaluation(nothing), "one") is None
