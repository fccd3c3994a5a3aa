"""Per-epoch records: a row of `metrics.csv`, sample images, TensorBoard."""

from collections.abc import Mapping
from pathlib import Path

from segtune.data.overlays import RGBImage, png, stack
from segtune.evaluation.selection import predicted_kind
from segtune.metrics.overlap import Scores
from segtune.runtime.files import Row, write_atomically, write_csv
from segtune.training.tensorboard import TensorBoard


class EpochRecorder:
    """Writes the records of each epoch. `rows` holds all epochs so far, including those before a resume."""

    def __init__(self, folder: Path, rows: list[Row], board: TensorBoard) -> None:
        self.folder = folder
        self.rows = rows
        self.board = board

    def epoch(self, row: Row, samples: Mapping[str, RGBImage]) -> None:
        """Write an epoch's row and its sample images, which have one size."""
        self.rows.append(row)
        number = int(row["epoch"])
        write_csv(self.folder / "metrics.csv", self.rows)
        if samples:
            drawing = png(stack(list(samples.values())))
            write_atomically(self.folder / "samples" / f"epoch_{number:03d}.png", drawing)
        scalars = {name: value for name, value in row.items() if isinstance(value, float)}
        self.board.write("epoch", number, scalars, {f"samples/{name}": image for name, image in samples.items()})


def dice_text(row: Row, scores: Scores, *, better: bool) -> str:
    """Return the validation Dice of an epoch as text, with a star for the best epoch so far if it claims anything."""
    if scores.all_empty:
        return "no image with an object"
    if kind := predicted_kind(row["val_predicted"], scores.dice_object):
        return f"{kind} predicted"
    more = f" with an object, {scores.dice_mean:.4f} over all" if scores.empty_images else ""
    return f"Dice {scores.dice_object:.4f}{more}{' *' if better else ''}"
