"""Which epoch is the best, and which scores say nothing."""

from math import isnan, nan

import pytest
import torch

from segtune.evaluation.selection import degenerate, rank, score_of, warnings_of
from segtune.metrics.overlap import summarise

#: TP, FP, FN, TN of an image with an object: found, missed, all pixels predicted; without: clean, all predicted.
FOUND, MISSED, FULL, CLEAN, ALARM = [8, 2, 2, 88], [0, 0, 10, 90], [10, 90, 0, 0], [0, 0, 0, 100], [0, 100, 0, 0]


def row(*counts: list[int]) -> dict[str, float]:
    scores = summarise(torch.tensor(counts))
    return {
        "val_dice": scores.dice_mean,
        "val_dice_object": scores.dice_object,
        "val_predicted": scores.predicted,
    }


def test_nine_in_ten_empty_masks_do_not_make_an_empty_prediction_the_best() -> None:
    black, seeing = row(MISSED, *[CLEAN] * 9), row(FOUND, *[ALARM] * 5, *[CLEAN] * 4)
    assert black["val_dice"] == 0.9 > seeing["val_dice"]
    assert score_of(black) == 0
    assert score_of(seeing) == pytest.approx(0.8)
    assert rank(black) < rank(seeing)  # type: ignore[operator]


@pytest.mark.parametrize("alone", [MISSED, FULL])
def test_nothing_and_everything_are_never_better_than_something(alone: list[int]) -> None:
    wrong = row([0, 5, 10, 85])  # predicts something, all of it wrong
    assert (degenerate(row(alone)), degenerate(wrong)) == (True, False)
    assert rank(row(alone)) < rank(wrong)  # type: ignore[operator]


def test_everything_is_right_where_every_pixel_is_object() -> None:
    full = row([100, 0, 0, 0])
    assert rank(full) == (True, 1)
    assert warnings_of(summarise(torch.tensor([[100, 0, 0, 0]]))) == []


@pytest.mark.parametrize("empty", ["one", "zero", "skip"])
def test_without_an_object_no_epoch_is_the_best(empty: str) -> None:
    scores = summarise(torch.tensor([CLEAN, CLEAN]), empty)  # type: ignore[arg-type]
    assert isnan(scores.dice_object)
    assert rank({"val_dice": 1.0, "val_dice_object": scores.dice_object, "val_predicted": scores.predicted}) is None
    (warning,) = warnings_of(scores)
    assert warning.startswith("none of the 2 images has an object: the scores say only whether there are false alarms")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"val_dice": 0.5}, 0.5),  # of an earlier version
        ({"val_dice": 0.5, "val_dice_object": ""}, 0.5),  # its row in a file that has the column
        ({"val_dice": 0.5, "val_dice_object": 0.25}, 0.25),
        ({"val_dice": 1.0, "val_dice_object": None}, nan),  # in JSON
    ],
)
def test_the_score_of_rows_and_summaries(record: dict[str, float], expected: float) -> None:
    assert score_of(record) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([FOUND, MISSED], []),
        ([MISSED, ALARM], ["nothing predicted on any picture: every pixel of every image with an object"]),
        ([MISSED, MISSED, CLEAN], ["nothing predicted on any picture: every pixel of every image with an object"]),
        ([FULL, FULL, ALARM], ["everything predicted: every pixel of every image with an object is predicted"]),
    ],
)
def test_warnings_name_what_is_predicted_and_the_likely_causes(counts: list[list[int]], expected: list[str]) -> None:
    found = warnings_of(summarise(torch.tensor(counts)))
    assert [warning[: len(start)] for warning, start in zip(found, expected, strict=True)] == expected
    assert all("Likely causes: " in warning and "train.threshold" in warning for warning in found)
