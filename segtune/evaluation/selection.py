"""The choice of the best epoch, and warnings of scores that say nothing.

The best epoch is chosen by the mean Dice of the images with an object (`val_dice_object`): in a split of mostly empty
masks the mean over all images (`val_dice`) is highest for a model that predicts nothing.
"""

import math
from collections.abc import Mapping
from typing import Any

from segtune.metrics.overlap import Scores

Row = Mapping[str, Any]


def score_of(record: Row) -> float:
    """Return the Dice by which runs and epochs are compared; NaN where no validation image has an object.

    Args:
        record: A row of `metrics.csv` or the content of `summary.json`; those of earlier versions have only `val_dice`.
    """
    score = record.get("val_dice_object", "")
    if score == "":  # of an earlier version; also an empty cell of a file to which this version has added rows
        score = record["val_dice"]
    return math.nan if score is None else float(score)


def rank(row: Row) -> tuple[bool, float] | None:
    """Return what orders epochs, the best last; None if no validation image has an object, so none is best.

    An epoch that predicts nothing, or everything, comes before all that do not, whatever its Dice.
    """
    score = score_of(row)
    return None if math.isnan(score) else (not degenerate(row), score)


def degenerate(row: Row) -> bool:
    """Return whether the model of an epoch predicts nothing, or every pixel, in the images with an object."""
    return predicted_kind(row.get("val_predicted"), score_of(row)) != ""


def predicted_kind(predicted: Any, dice: float | None) -> str:
    """Return "nothing" or "everything" if that is all a model predicts, otherwise "".

    Args:
        predicted: Predicted fraction of the pixels, 0 to 1, in the images with an object; no number if unknown.
        dice: Mean Dice of these images; None or NaN without any. Where it is 1, predicting everything is right.
    """
    if not isinstance(predicted, float | int):
        return ""
    perfect = dice is not None and dice == 1
    return "nothing" if predicted == 0 else "everything" if predicted == 1 and not perfect else ""


_CAUSES = {
    "nothing": (
        "nothing predicted on any picture: every pixel of every image with an object is predicted as background.\n"
        "Likely causes: too few steps or a learning rate that is too low or too high (see the losses in metrics.csv); "
        "objects that are a tiny part of the images (loss=dice, a larger data.image_size); masks that do not mark the "
        "object (`check` shows them); a threshold above all probabilities (train.threshold)."
    ),
    "everything": (
        "everything predicted: every pixel of every image with an object is predicted as object.\n"
        "Likely causes: masks whose foreground is the background (data.invert, data.foreground; `check` shows them); a "
        "learning rate that is too high; a threshold below all probabilities (train.threshold)."
    ),
}


def warnings_of(scores: Scores) -> list[str]:
    """Return warnings of scores that say nothing about how well objects are found."""
    if not scores.all_empty:
        kind = predicted_kind(scores.predicted, scores.dice_object)
        return [_CAUSES[kind]] if kind else []
    if not scores.images:
        return ["every image is wholly void, so there is nothing to score. Check data.ignore."]
    return [
        f"none of the {scores.images} images has an object: the scores say only whether there are false alarms, and "
        "nothing about how well objects are found. Use images with objects, or check data.foreground and data.invert."
    ]
