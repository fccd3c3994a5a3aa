"""Tables of the user: CSV files as spreadsheets and people write them."""

import csv
import io
from pathlib import Path

from segtune.errors import UserError
from segtune.runtime.files import with_formula
from segtune.runtime.paths import special_kind


def read_table(path: Path, setting: str) -> list[tuple[int, list[str]]]:
    """Return the rows of a CSV file, each with its line number, without empty ones; cells without spaces around them.

    UTF-8 with or without a byte order mark, or UTF-16 with one; separated by commas, semicolons or tabs, whichever
    gives the first row most columns.

    Args:
        path: The file.
        setting: The setting that names it, for messages.

    Raises:
        UserError: It cannot be read.
    """
    if kind := special_kind(path):
        raise UserError(f"{setting}={path} cannot be read: it is {kind}, not a file.")
    try:
        content = path.read_bytes()
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if utf16 else "utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{setting}={path} cannot be read: {reason}.") from error
    try:
        return max((_parse(text, separator) for separator in ",;\t"), key=lambda rows: len(rows[0][1]) if rows else 0)
    except csv.Error as error:
        raise UserError(f"{setting}={path} cannot be read: {error}.") from error


def _parse(text: str, separator: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return [
        (reader.line_num, [with_formula(cell.strip()) for cell in row]) for row in reader if any(map(str.strip, row))
    ]
