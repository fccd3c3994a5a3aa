"""Atomic file writes; JSON and CSV."""

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segtune.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader finds the old content or the new, never a part.

    Raises:
        UserError: The file cannot be written; the old one is untouched.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` that replaces it when the block succeeds, and is removed when it fails.

    Raises:
        UserError: The file cannot be written; the old one is untouched.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files readable by their owner only
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save raises a RuntimeError on a full disk
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(
            f"Cannot write {path}: {reason}\n"
            "The old file is untouched. If the disk is full, free some space; a run can then be resumed."
        ) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file of `write_csv`: names and phases as text, numbers as numbers."""

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
    """Write a JSON file atomically; NaN and infinity become null, as JSON has neither."""
    write_atomically(path, (json.dumps(without_nan(content), indent=2, ensure_ascii=False) + "\n").encode())


def without_nan(value: Any) -> Any:
    """Return nested values with NaN and infinity replaced by None."""
    if isinstance(value, Mapping):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV, atomically; a key that a row lacks is an empty cell."""
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
