"""Scores, intervals and sentences as text."""

from typing import Any

import pytest

from segtune.reporting.wording import interval_text, number, score_names, sentences, shortened, signed

AGAINST = {"difference": 0.01, "interval": [-0.002, 0.021], "better": 3, "worse": 1, "images": 5}
FACTS: dict[str, Any] = {
    "empty": "one",
    "threshold": 0.5,
    "tolerance": 2.0,
    "empty_pictures": {"images": 2, "with_false_alarm": 1, "dice_mean_of_others": 0.76666},
    "tuned": {"threshold": 0.4, "chosen_on": "val", "dice_mean": 0.67, "against_usual": AGAINST},
}
EMPTY = (
    "An image without foreground counts as 1 if nothing is predicted, else 0 (train.empty=one): there are 2, 1 with a "
    "false alarm; the others have a mean Dice of 0.7667."
)


def test_sentences_of_a_comparison_with_a_threshold_from_val() -> None:
    compared = {"checkpoint": "b.pt", "dice_mean": 0.65} | AGAINST
    assert sentences(FACTS | {"compared": compared}) == [
        EMPTY,
        "Threshold 0.5. The best threshold on the val images is 0.4, with a mean Dice of 0.6700 here, a difference of "
        "+0.0100 (95 %: -0.0020 to +0.0210).",
        "b.pt has 0.6500: a difference of +0.0100 (95 %: -0.0020 to +0.0210) per image; better in 3, worse in 1 of 5.",
    ]


def test_void_is_said_where_there_is_some() -> None:
    assert sentences(FACTS | {"void": {"share": 0.0, "images": 0}}) == sentences(FACTS)
    assert sentences(FACTS | {"void": {"share": 0.0312, "images": 0}})[1] == (
        "Void: 3.1% of the pixels have no label and count nowhere (data.ignore)."
    )
    assert sentences(FACTS | {"void": {"share": 0.5, "images": 2}})[1] == (
        "Void: 50.0% of the pixels have no label and count nowhere (data.ignore); 2 of the images are wholly void, and "
        "in no mean."
    )


def test_a_threshold_chosen_on_the_scored_images_is_called_biased() -> None:
    tuned = FACTS["tuned"] | {"chosen_on": "the same images"}
    assert sentences(FACTS | {"tuned": tuned})[1] == (
        "Threshold 0.5. The best threshold on these images is 0.4, with a mean Dice of 0.6700 here, a difference of "
        "+0.0100 (95 %: -0.0020 to +0.0210): optimistically biased, since it is scored on the images it was chosen on."
    )


@pytest.mark.parametrize(
    ("clean", "what"),
    [
        ({"fill_holes": True, "min_area": 0.0, "largest": False}, "holes are filled"),
        (
            {"fill_holes": 20.0, "min_area": 0.0, "largest": True},
            "holes of less than 20 pixels are filled, the largest object alone is kept",
        ),
        (
            {"fill_holes": False, "min_area": 0.005, "largest": False},
            "objects of less than 0.5 % of the image are removed",
        ),
    ],
)
def test_what_is_corrected_before_scoring_is_said(clean: dict[str, Any], what: str) -> None:
    assert sentences(FACTS | {"clean": clean})[1] == (
        f"In predicted masks {what} before they are scored, as predict does with the same settings (clean.*). The "
        "curves, and what is said of other thresholds, are of masks before that."
    )
    assert len(sentences(FACTS | {"clean": {"fill_holes": False, "min_area": 0.0, "largest": False}})) == 2


@pytest.mark.parametrize(
    ("empty", "rule"), [("one", "1 if nothing is predicted, else 0"), ("zero", "0"), ("skip", "not at all")]
)
def test_the_rule_for_empty_images_is_always_stated(empty: str, rule: str) -> None:
    none = {"images": 0, "with_false_alarm": 0, "dice_mean_of_others": 0.9}
    found = sentences(FACTS | {"empty": empty, "empty_pictures": none, "tuned": None})
    assert found == [
        f"An image without foreground counts as {rule} (train.empty={empty}): there are none.",
        "Threshold 0.5. No better one can be chosen: no object is found at any.",
    ]


def test_what_is_not_defined_is_a_dash_or_nothing() -> None:
    assert (number(0.87654), number(None)) == ("0.8765", "–")
    assert (interval_text([0.8, 0.95]), interval_text([None, None])) == ("0.800 – 0.950", "")
    assert signed({"difference": -0.5, "interval": [None, None]}) == "-0.5000"
    assert signed({"difference": None, "interval": [None, None]}) == "–"


def test_scores_are_named_with_their_mean_and_their_pooled_value() -> None:
    assert score_names(FACTS)["precision"] == ("precision_mean", "precision")
    assert list(score_names(FACTS | {"tolerance": 1.5})) == ["Dice", "IoU", "precision", "recall", "boundary F, 1.5 px"]


def test_long_text_loses_its_middle() -> None:
    assert [shortened("0123456789", most) for most in (10, 9, 5)] == ["0123456789", "0123…6789", "01…89"]
