"""Per-epoch records: a row of `metrics.csv`, sample images, TensorBoard."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from segtune.data.overlays import RGBImage, png
from segtune.evaluation.selection import predicted_kind
from segtune.metrics.overlap import Scores
from segtune.runtime.files import Row, write_atomically, write_csv

log = logging.getLogger(__name__)


class EpochRecorder:
    """Writes the records of each epoch. `rows` holds all epochs so far, including those before a resume."""

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        self.folder = folder
        self.rows = rows
        self.writer: SummaryWriter | None = None
        with self._disabled_on_error():
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=len(rows) + 1 if rows else None)

    def epoch(self, row: Row, samples: RGBImage | None) -> None:
        """Write an epoch's row and its sample images."""
        self.rows.append(row)
        number = int(row["epoch"])
        write_csv(self.folder / "metrics.csv", self.rows)
        if samples is not None:
            write_atomically(self.folder / "samples" / f"epoch_{number:03d}.png", png(samples))
        with self._disabled_on_error():
            if self.writer:
                _write(self.writer, row, samples)

    def close(self) -> None:
        """Close the TensorBoard file."""
        with self._disabled_on_error():
            if self.writer:
                self.writer.close()

    @contextmanager
    def _disabled_on_error(self) -> Iterator[None]:
        """Disable TensorBoard if its file cannot be written; its curves are in `metrics.csv` too."""
        try:
            yield
        except OSError as error:
            log.warning("The TensorBoard file cannot be written (%s); metrics.csv is still written.", error)
            self.writer = None


def dice_text(row: Row, scores: Scores, *, better: bool) -> str:
    """Return the validation Dice of an epoch as text, with a star for the best epoch so far if it claims anything."""
    if scores.all_empty:
        return "no image with an object"
    if kind := predicted_kind(row["val_predicted"], scores.dice_object):
        return f"{kind} predicted"
    more = f" with an object, {scores.dice_mean:.4f} over all" if scores.empty_images else ""
    return f"Dice {scores.dice_object:.4f}{more}{' *' if better else ''}"


def _write(writer: SummaryWriter, row: Row, samples: RGBImage | None) -> None:
    for name, value in row.items():
        if isinstance(value, float):
            writer.add_scalar(name, value, row["epoch"])
    if samples is not None:
        writer.add_image("samples: photo, truth, prediction", samples, row["epoch"], dataformats="HWC")
    writer.flush()
