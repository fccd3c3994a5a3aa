"""Per-epoch records: a row of `metrics.csv`, sample images, what trackers are told."""

from collections.abc import Mapping
from pathlib import Path

from segtune.data.overlays import RGBImage, png, stack
from segtune.evaluation.selection import predicted_kind
from segtune.metrics.overlap import Scores
from segtune.runtime.files import Row, write_atomically, write_csv
from segtune.training.tracking import Tracking


class EpochRecorder:
    """Writes the records of each epoch. `rows` holds all epochs so far, including those before a resume."""

    def __init__(self, folder: Path, rows: list[Row], tracking: Tracking) -> None:
        self.folder = folder
        self.rows = rows
        self.tracking = tracking

    def epoch(self, row: Row, step: int, samples: Mapping[str, RGBImage]) -> None:
        """Write an epoch's row and its sample images, which have one size; it has ended with a step of the run."""
        self.rows.append(row)
        number = int(row["epoch"])
        write_csv(self.folder / "metrics.csv", self.rows)
        if samples:
            drawing = png(stack(list(samples.values())))
            write_atomically(self.folder / "samples" / f"epoch_{number:03d}.png", drawing)
        scalars = {name: value for name, value in row.items() if isinstance(value, float)}
        self.tracking.epoch(number, step, scalars, samples)


def dice_text(row: Row, scores: Scores, *, better: bool) -> str:
    """Return the validation Dice of an epoch as text, with a star for the best epoch so far if it claims anything."""
    if scores.all_empty:
        return "no image with an object"
    if kind := predicted_kind(row["val_predicted"], scores.dice_object):
        return f"{kind} predicted"
    more = f" with an object, {scores.dice_mean:.4f} over all" if scores.empty_images else ""
    return f"Dice {scores.dice_object:.4f}{more}{' *' if better else ''}"
