"""The records of a run: `config.yaml`, `metrics.csv`, `summary.json`, `samples/`, `tensorboard/`."""

import csv
import io
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import BaseFileLock, FileLock, Timeout
from torch.utils.tensorboard import SummaryWriter

from segtune import distributed
from segtune.config import UserError
from segtune.files import write_atomically
from segtune.pictures import Picture, png

log = logging.getLogger(__name__)

Row = dict[str, Any]


@contextmanager
def claim(folder: Path, *, resume: bool) -> Iterator[None]:
    """Hold a run's folder for this process, and those beside it, while the block runs; it is made if it is not there.

    The lock is the operating system's: it ends with the process, however that ends.

    Raises:
        UserError: Another process holds it, a run is there already and is not resumed, or the disk refuses.
    """
    lock = FileLock(folder / ".lock")
    distributed.on_first(lambda: _take(lock, folder, resume=resume))
    try:
        yield
    finally:
        if distributed.rank() == 0:
            begun = (folder / "config.yaml").exists()
            with suppress(OSError):
                if not begun:  # the run failed before it began: an empty folder is of no use
                    (folder / ".lock").unlink(missing_ok=True)
                    folder.rmdir()
            lock.release()


def _take(lock: BaseFileLock, folder: Path, *, resume: bool) -> None:
    def refuse_a_run() -> None:
        if not resume and ((folder / "config.yaml").exists() or (folder / "checkpoints").exists()):
            raise UserError(
                f"There is a run in {folder} already. Go on with it (resume={folder}), or give another folder "
                "(run_dir=…)."
            )

    refuse_a_run()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        refuse_a_run()  # one that began, and ended, just now
        for leftover in folder.glob("**/.*.partial"):  # of a process that was killed while it wrote
            leftover.unlink()
    except Timeout as error:
        raise UserError(
            f"Another process is training in {folder} just now. Wait for it, or give another folder (run_dir=…)."
        ) from error
    except OSError as error:
        raise UserError(f"Cannot write to the run's folder {folder}: {error.strerror or error}.") from error


def keep_settings(folder: Path, settings: Mapping[str, Any], command: str = "") -> None:
    """Keep the resolved settings in a run's folder, under the command that asked for them.

    A resume that changes something has a command of its own, which follows the first.
    """
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    kept = kept_command(folder)
    command = f"{kept} && {command}" if kept and command else kept or command
    if "\n" in command or "\r" in command:
        command = ""  # it would not stay a comment
    write_atomically(folder / "config.yaml", (f"# {command}\n{text}" if command else text).encode())


def kept_command(folder: Path) -> str:
    """Give the command that a run began with; nothing if it is not known."""
    path = folder / "config.yaml"
    first = path.read_text(encoding="utf-8").partition("\n")[0] if path.is_file() else ""
    return first[2:] if first.startswith("# ") else ""


def read_rows(path: Path) -> list[Row]:
    """Read what `write_csv` wrote: names and phases as text, numbers as numbers."""

    def value(name: str, text: str) -> Any:
        if name in ("name", "phase"):
            return text
        try:
            return int(text) if text.lstrip("-").isdecimal() else float(text)
        except ValueError:
            return text

    with path.open(encoding="utf-8", newline="") as file:
        return [{name: value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; what is not finite becomes null, for JSON has no NaN."""
    write_atomically(path, (json.dumps(without_nan(content), indent=2, ensure_ascii=False) + "\n").encode())


def without_nan(value: Any) -> Any:
    """Put None in the place of NaN and infinity, in values of any depth."""
    if isinstance(value, Mapping):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
        self.writer: SummaryWriter | None = None
        with self._going_on_without():
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=len(rows) + 1 if rows else None)

    def epoch(self, row: Row, samples: Picture | None) -> None:
        """Add an epoch's row and its picture of samples."""
        self.rows.append(row)
        number = int(row["epoch"])
        write_csv(self.folder / "metrics.csv", self.rows)
        if samples is not None:
            write_atomically(self.folder / "samples" / f"epoch_{number:03d}.png", png(samples))
        with self._going_on_without():
            if self.writer:
                _write(self.writer, row, samples)

    def close(self) -> None:
        """Close the TensorBoard file."""
        with self._going_on_without():
            if self.writer:
                self.writer.close()

    @contextmanager
    def _going_on_without(self) -> Iterator[None]:
        """Where the disk refuses TensorBoard's file, let the run go on: its curves are in `metrics.csv` too."""
        try:
            yield
        except OSError as error:
            log.warning("The TensorBoard file cannot be written (%s); metrics.csv goes on.", error)
            self.writer = None


def _write(writer: SummaryWriter, row: Row, samples: Picture | None) -> None:
    for name, value in row.items():
        if isinstance(value, float):
            writer.add_scalar(name, value, row["epoch"])
    if samples is not None:
        writer.add_image("samples: photo, truth, prediction", samples, row["epoch"], dataformats="HWC")
    writer.flush()
