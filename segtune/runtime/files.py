"""Atomic file writes; JSON and CSV."""

import csv
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from segtune.runtime.write_errors import naming_write_errors


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
    then = "The old file is untouched." if os.path.isfile(path) else ""
    try:
        with naming_write_errors(str(path), then):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
            os.close(handle)
            temporary = Path(name)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes files readable by their owner only
            temporary.replace(path)
    finally:
        if temporary:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


Row = dict[str, Any]

#: What makes a spreadsheet run a cell as a formula; some also take the wide forms of East Asian keyboards.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def without_formula(text: str) -> str:
    """Return text that no spreadsheet runs as a formula: behind an apostrophe, which it hides, if need be."""
    return f"'{text}" if _FORMULA.match(text) else text


def with_formula(text: str) -> str:
    """Return the text of which `without_formula` made this one."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def csv_text(rows: Sequence[Row]) -> str:
    """Return rows as CSV; a key that a row lacks is an empty cell.

    Text is neutralised, see `without_formula`; numbers stay as they are.
    """

    def cell(value: Any) -> Any:
        return without_formula(value) if isinstance(value, str) else value

    lines: list[str] = []
    # Python puts only what ends its own lines in quotes, so these end with both characters until they are joined.
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer.writerow(map(cell, names))
    writer.writerows([cell(row.get(name, "")) for name in names] for row in rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV, atomically; see `csv_text`."""
    write_atomically(path, csv_text(rows).encode())


#: Columns that are text even where it looks like a number.
_TEXTS = ("name", "phase", "layers", "note")


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file of `write_csv`: names and neutralised text as text, numbers as numbers.

    Raises:
        csv.Error: A row has more or fewer cells than the header.
    """

    def value(name: str, text: str) -> Any:
        if name in _TEXTS or text.startswith("'"):
            return with_formula(text)
        try:
            return int(text) if text.lstrip("-").isdecimal() else float(text)
        except ValueError:
            return text

    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if any(None in row or None in row.values() for row in rows):
        raise csv.Error(f"{path}: a row has more or fewer cells than the header")
    return [{with_formula(name): value(name, text) for name, text in row.items()} for row in rows]


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
