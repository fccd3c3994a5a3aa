"""An evaluation in words: what a table of scores does not say."""

from collections.abc import Sequence
from typing import Any

Facts = dict[str, Any]


def score_names(facts: Facts) -> dict[str, tuple[str, str]]:
    """Return the names of the scores as they are shown, with the keys of mean and pooled value."""
    return {
        "Dice": ("dice_mean", "dice_pooled"),
        "IoU": ("iou_mean", "iou_pooled"),
        "precision": ("precision_mean", "precision"),
        "recall": ("recall_mean", "recall"),
        f"boundary F, {facts['tolerance']:g} px": ("boundary_f_mean", "boundary_f_pooled"),
    }


def sentences(facts: Facts) -> list[str]:
    """Say in sentences what a table does not: the empty pictures, the threshold, what was compared."""
    empty, tuned = facts["empty_pictures"], facts["tuned"]
    rules = {"one": "1 if nothing is predicted, else 0", "zero": "0", "skip": "not at all"}
    said = [
        f"A picture without foreground counts as {rules[facts['empty']]} (train.empty={facts['empty']}): there "
        + (f"are {empty['images']}, {empty['with_false_alarm']} with a false alarm" if empty["images"] else "is none")
        + (f"; the others have a mean Dice of {number(empty['dice_mean_of_others'])}." if empty["images"] else ".")
    ]
    if not tuned:
        return [*said, f"Threshold {facts['threshold']:g}. Without foreground there is no better one to be found."]
    against = tuned["against_usual"]
    where = f"the {tuned['chosen_on']} pictures" if tuned["chosen_on"] == "val" else "these very pictures"
    said.append(
        f"Threshold {facts['threshold']:g}. The best on {where} is {tuned['threshold']:g}; here it gives "
        f"{number(tuned['dice_mean'])}, a difference of {signed(against)}"
        + ("." if tuned["chosen_on"] == "val" else ": too good to be expected of others.")
    )
    if compared := facts.get("compared"):
        said.append(
            f"{compared['checkpoint']} has {number(compared['dice_mean'])}: a difference of {signed(compared)} per "
            f"picture; better in {compared['better']}, worse in {compared['worse']} of {compared['images']}."
        )
    return said


def number(value: float | None) -> str:
    """Show a score; one that is not defined as a dash."""
    return "–" if value is None else f"{value:.4f}"


def interval_text(ends: Sequence[float | None]) -> str:
    """Show an interval."""
    return " – ".join("" if end is None else f"{end:.3f}" for end in ends) if None not in ends else ""


def signed(compared: Facts) -> str:
    """Show a difference with its interval."""
    if compared["difference"] is None:
        return "nothing that could be measured"
    low, high = compared["interval"]
    return f"{compared['difference']:+.4f}" + (f" (95 %: {low:+.4f} to {high:+.4f})" if low is not None else "")
