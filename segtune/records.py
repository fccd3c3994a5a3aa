"""The records of a run: `config.yaml`, `metrics.csv`, `summary.json`, `samples/`, `tensorboard/`."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch.utils.tensorboard import SummaryWriter

from segtune.checkpoint import write_atomically
from segtune.config import UserError
from segtune.pictures import Picture, png

Row = dict[str, Any]


def start_run_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a run's folder and keep the resolved settings in it.

    Raises:
        UserError: A run is there already.
    """
    if (folder / "config.yaml").exists() or (folder / "checkpoints").exists():
        raise UserError(
            f"There is a run in {folder} already. Go on with it (resume={folder}), or give another folder (run_dir=…)."
        )
    write_atomically(
        folder / "config.yaml", yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).encode()
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; a score that is not defined (NaN) becomes null, for JSON has no NaN."""
    content = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in content.items()}
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows with one set of keys as CSV, atomically."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


class EpochRecorder:
    """Writes what an epoch leaves behind. `rows` holds all epochs so far, those before a resume too."""

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        self.folder = folder
        self.rows = rows
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=len(rows) + 1 if rows else None)

    def epoch(self, row: Row, samples: Picture | None) -> None:
        """Add an epoch's row and its picture of samples."""
        self.rows.append(row)
        number = int(row["epoch"])
        write_csv(self.folder / "metrics.csv", self.rows)
        for name, value in row.items():
            if isinstance(value, float):
                self.writer.add_scalar(name, value, number)
        if samples is not None:
            write_atomically(self.folder / "samples" / f"epoch_{number:03d}.png", png(samples))
            self.writer.add_image("samples: photo, truth, prediction", samples, number, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Close the TensorBoard file."""
        self.writer.close()
