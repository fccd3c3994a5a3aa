"""The charts of a report, drawn with matplotlib as SVG in the text colour of the page."""

import io
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from segtune.evaluation.selection import score_of
from segtune.metrics.curves import THRESHOLDS

Facts = dict[str, Any]

#: Placeholder that becomes the page's text colour once the chart is drawn.
_INK = "#010203"
BLUE, ORANGE, GREEN, GREY = "#4c8df6", "#e8833a", "#3fa35c", "#8a8f98"
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, and in the page's font
    "svg.hashsalt": "segtune",
    "text.parse_math": False,  # a $ in a name is a plain character
    "font.size": 9.0,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def svg(draw: Callable[[Any], None], width: float = 5.2, height: float = 3.1, title: str = "") -> str:
    """Return what a function draws on matplotlib's axes as SVG, `width` x `height` inches."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
        axes.set_title(title)
        draw(axes)
        FigureCanvasSVG(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :].replace(_INK, "currentColor")


def training_chart(rows: Sequence[Facts], best_epoch: int) -> str:
    """Return a chart of the losses and the validation Dice by epoch, with the phases shaded."""
    epochs = [row["epoch"] for row in rows]

    def draw(axes: Any) -> None:
        for number, (phase, members) in enumerate(groupby(rows, key=lambda row: row["phase"])):
            inside = [row["epoch"] for row in members]
            axes.axvspan(inside[0] - 0.5, inside[-1] + 0.5, color=GREY, alpha=0.08 + 0.1 * (number % 2), linewidth=0)
            axes.annotate(phase, (inside[0] - 0.45, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8)
        mark = "." if len(epochs) < 60 else ""
        axes.plot(epochs, [score_of(row) for row in rows], color=BLUE, marker=mark, label="validation Dice")
        axes.axvline(best_epoch, color=BLUE, linestyle=":", linewidth=1)
        axes.plot(epochs, [row["train_loss"] for row in rows], color=ORANGE, marker=mark, label="training loss")
        axes.plot(epochs, [row["val_loss"] for row in rows], color=GREEN, marker=mark, label="validation loss")
        axes.set(xlabel="epoch", xlim=(0.5, epochs[-1] + 0.5), ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.legend(loc="center right", fontsize=8)

    return svg(draw, 8.4, 3.3)


def threshold_chart(facts: Facts) -> str:
    """Return a chart of mean Dice by threshold, with the threshold in use and the best one."""

    def draw(axes: Any) -> None:
        axes.plot(THRESHOLDS, [np.nan if dice is None else dice for dice in facts["curves"]["dice"]], color=BLUE)
        axes.axvline(facts["threshold"], color=GREY, linewidth=1, label=f"in use: {facts['threshold']:g}")
        if tuned := facts["tuned"]:
            label = f"best on {tuned['chosen_on']}: {tuned['threshold']:g}"
            axes.axvline(tuned["threshold"], color=ORANGE, linewidth=1, linestyle="--", label=label)
        axes.set(xlabel="threshold", ylabel="mean Dice", xlim=(0, 1))
        axes.legend(fontsize=8, loc="lower center")

    return svg(draw, title="Dice by threshold")


def precision_recall_chart(facts: Facts) -> str:
    """Return the precision-recall curve over all pixels, with the point of the threshold in use."""
    curves = facts["curves"]

    def draw(axes: Any) -> None:
        axes.plot(curves["recall"], curves["precision"], color=BLUE)
        if None not in (facts["recall"], facts["precision"]):
            label = f"threshold {facts['threshold']:g}"
            axes.plot(facts["recall"], facts["precision"], "o", color=ORANGE, label=label)
            axes.legend(fontsize=8, loc="lower left")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(min(0.5, *curves["precision"]), 1.01))

    area = curves["average_precision"]
    return svg(draw, title="Precision by recall" + (f", average precision {area:.3f}" if area is not None else ""))


def calibration_chart(facts: Facts) -> str:
    """Return a reliability diagram: the fraction of foreground pixels by predicted probability."""
    calibration = facts["curves"]["calibration"]

    def draw(axes: Any) -> None:
        used = np.array(calibration["pixels"]) > 0
        axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--")
        probability, fraction = (np.array(calibration[key])[used] for key in ("probability", "share"))
        axes.plot(probability, fraction, color=BLUE, marker="o")
        axes.set(xlabel="predicted probability", ylabel="fraction of foreground pixels", xlim=(0, 1), ylim=(0, 1.02))

    return svg(draw, title=f"Calibration, expected error {calibration['error']:.3f}")


def dice_chart(dices: Sequence[float]) -> str:
    """Return a histogram of the images' Dice."""

    def draw(axes: Any) -> None:
        axes.hist(dices, bins=np.linspace(0, 1, 21).tolist(), color=BLUE)
        axes.set(xlabel="Dice", ylabel="images", xlim=(0, 1))
        axes.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)

    return svg(draw, title="Dice of the images")


def group_chart(name: str, rows: Sequence[Facts]) -> str:
    """Return a chart of mean Dice by group, with 95 % intervals."""

    def draw(axes: Any) -> None:
        for position, row in enumerate(rows):
            low, high = row["interval"]
            if low is not None:
                axes.plot((low, high), (position, position), color=BLUE, linewidth=2, alpha=0.5)
            if row["dice_mean"] is not None:
                axes.plot(row["dice_mean"], position, "o", color=BLUE)
        axes.set_yticks(range(len(rows)), [f"{row['group']} ({row['images']})" for row in rows])
        axes.locator_params(axis="x", nbins=5)
        axes.set(xlabel="mean Dice, 95 % interval", xlim=(None, 1), ylim=(len(rows) - 0.5, -0.5))

    return svg(draw, 5.2, 1.1 + 0.3 * len(rows), title=f"By {name}")
