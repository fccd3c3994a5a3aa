"""The words of an evaluation: names of scores, formatted values, and sentences beside the tables."""

from collections.abc import Sequence
from typing import Any

Facts = dict[str, Any]


def score_names(facts: Facts) -> dict[str, tuple[str, str]]:
    """Return the displayed names of the scores, with the keys of the mean and of the pooled (micro-averaged) value."""
    return {
        "Dice": ("dice_mean", "dice_pooled"),
        "IoU": ("iou_mean", "iou_pooled"),
        "precision": ("precision_mean", "precision"),
        "recall": ("recall_mean", "recall"),
        f"boundary F, {facts['tolerance']:g} px": ("boundary_f_mean", "boundary_f_pooled"),
    }


def sentences(facts: Facts) -> list[str]:
    """Return sentences on what the tables do not show: empty images, void, the threshold, a compared model."""
    empty, tuned = facts["empty_pictures"], facts["tuned"]
    rules = {"one": "1 if nothing is predicted, else 0", "zero": "0", "skip": "not at all"}
    said = [
        f"An image without foreground counts as {rules[facts['empty']]} (train.empty={facts['empty']}): there "
        + (f"are {empty['images']}, {empty['with_false_alarm']} with a false alarm" if empty["images"] else "are none")
        + (f"; the others have a mean Dice of {number(empty['dice_mean_of_others'])}." if empty["images"] else ".")
    ]
    if cleaned := _cleaned(facts.get("clean", {})):
        said.append(
            f"In predicted masks {cleaned} before they are scored, as predict does with the same settings (clean.*). "
            "The curves, and what is said of other thresholds, are of masks before that."
        )
    void = facts.get("void", {})
    if void.get("share"):
        whole = f"; {void['images']} of the images are wholly void, and in no mean" if void["images"] else ""
        said.append(f"Void: {void['share']:.1%} of the pixels have no label and count nowhere (data.ignore){whole}.")
    if not tuned:
        return [*said, f"Threshold {facts['threshold']:g}. No better one can be chosen: no object is found at any."]
    against = tuned["against_usual"]
    elsewhere = tuned["chosen_on"] == "val"
    where = "the val images" if elsewhere else "these images"
    said.append(
        f"Threshold {facts['threshold']:g}. The best threshold on {where} is {tuned['threshold']:g}, with a mean Dice "
        f"of {number(tuned['dice_mean'])} here, a difference of {signed(against)}"
        + ("." if elsewhere else ": optimistically biased, since it is scored on the images it was chosen on.")
    )
    if compared := facts.get("compared"):
        said.append(
            f"{compared['checkpoint']} has {number(compared['dice_mean'])}: a difference of {signed(compared)} per "
            f"image; better in {compared['better']}, worse in {compared['worse']} of {compared['images']}."
        )
    return said


def _cleaned(clean: Facts) -> str:
    """Return what is corrected in predicted masks, in words; an empty text if nothing is."""

    def area(value: float) -> str:
        return f"{value:g} pixels" if value >= 1 else f"{100 * value:g} % of the image"

    done = []
    if holes := clean.get("fill_holes"):
        done.append("holes are filled" if holes is True else f"holes of less than {area(holes)} are filled")
    if least := clean.get("min_area"):
        done.append(f"objects of less than {area(least)} are removed")
    if clean.get("largest"):
        done.append("the largest object alone is kept")
    return ", ".join(done)


def number(value: float | None) -> str:
    """Return a score as text, a dash where it is not defined."""
    return "–" if value is None else f"{value:.4f}"


def interval_text(ends: Sequence[float | None]) -> str:
    """Return an interval as text, empty where it is not defined."""
    return " – ".join("" if end is None else f"{end:.3f}" for end in ends) if None not in ends else ""


def signed(compared: Facts) -> str:
    """Return a difference with its 95 % interval as text."""
    if compared["difference"] is None:
        return number(None)
    low, high = compared["interval"]
    return f"{compared['difference']:+.4f}" + (f" (95 %: {low:+.4f} to {high:+.4f})" if low is not None else "")


def shortened(text: str, most: int) -> str:
    """Return a text of at most `most` characters: its middle left out if need be."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
