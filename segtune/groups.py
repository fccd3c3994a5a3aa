"""Groups of pictures: by a table of the user's, by the size of the object, by skin tone."""

import csv
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segtune.config import UserError, nearest, some
from segtune.skin_tone import TONES, tone

#: More different values than this, all numbers, are divided into quarters.
_MOST_VALUES = 12

Labels = list[str]
"""The group of each picture; empty where it is in none."""


def size_groups(shares: NDArray[np.float64]) -> Labels:
    """Divide pictures with foreground into thirds by its share of the picture (0 to 1)."""
    present = shares[shares > 0]
    if len(present) < 3:
        return [""] * len(shares)
    low, high = np.quantile(present, (1 / 3, 2 / 3))
    names = (f"small: up to {low:.1%}", f"medium: to {high:.1%}", f"large: over {high:.1%}")
    return [names[int(share > low) + int(share > high)] if share > 0 else "" for share in shares]


def tone_groups(angles: NDArray[np.float64]) -> Labels:
    """Divide pictures by the class of their skin's typology angle, in degrees."""
    return [tone(angle) for angle in angles]


def order(labels: Labels) -> list[str]:
    """Give the groups in the order in which they are read best: tones from the lightest, sizes upwards."""
    known = [name for name, _ in TONES] + ["small", "medium", "large"]

    def place(label: str) -> tuple[int, float, str]:
        stem = label.partition(":")[0]
        number = float(label.split(" to ")[0]) if _is_number(label.split(" to ")[0]) else 0.0
        return (known.index(stem) if stem in known else len(known), number, label)

    return sorted(set(labels) - {""}, key=place)


def table_groups(path: Path, names: Sequence[str], log: Callable[[str], None]) -> dict[str, Labels]:
    """Read the groups of pictures from a CSV file: a row a picture, its name in the first column.

    Columns of numbers with many values are divided into quarters.

    Args:
        path: The file, UTF-8, with a heading line; separated by commas, semicolons or tabs.
        names: The pictures, by the stem of their files; the table may say more than these.
        log: Told which pictures the table lacks.

    Returns:
        Labels for each further column.

    Raises:
        UserError: The file cannot be read, or says nothing of these pictures.
    """
    columns, rows = _read(path)
    known = {unicodedata.normalize("NFC", name): name for name in names}
    found: dict[str, Mapping[str, str]] = {}
    for number, row in enumerate(rows, start=2):
        name = unicodedata.normalize("NFC", row[columns[0]].strip())
        name = name if name in known else Path(name).stem
        if name in found and found[name] != row:
            raise UserError(f"{path}, line {number}: {name} is in the table twice, with other values. Keep one line.")
        found[name] = row
    if not found.keys() & known.keys():
        first = next(iter(found), "none")
        raise UserError(
            f"{path} holds none of the {len(names)} pictures. Its first column, {columns[0]}, must name them, with or "
            f"without extension; it begins with {first}, the pictures with {names[0]}.{nearest(first, names)}"
        )
    if lacking := sorted(known.keys() - found.keys()):
        log(f"{path} lacks {len(lacking)} of {len(names)} pictures; they are in no group: {some(lacking)}.")
    return {
        column: _labels([found[name][column].strip() if name in found else "" for name in known])
        for column in columns[1:]
    }


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"data.groups={path} cannot be read: {reason}.") from error
    heading = text.partition("\n")[0]
    separator = max(",;\t", key=heading.count)
    reader = csv.DictReader(text.splitlines(), delimiter=separator)
    columns = [str(name) for name in reader.fieldnames or []]
    if len(columns) < 2 or len(set(columns)) < len(columns):
        raise UserError(
            f"data.groups={path}: expected a heading line with the picture's column first and at least one more, each "
            f"named once; came {', '.join(columns) or 'an empty file'}."
        )
    rows = []
    for number, row in enumerate(reader, start=2):
        if None in row or None in row.values():
            raise UserError(f"{path}, line {number}: expected {len(columns)} values, as in the heading line.")
        rows.append({str(name): value for name, value in row.items()})
    return columns, rows


def _labels(values: list[str]) -> Labels:
    given = {value for value in values if value}
    if len(given) <= _MOST_VALUES or not all(_is_number(value) for value in given):
        return values
    numbers = np.array([float(value) if value else np.nan for value in values])
    edges = np.nanquantile(numbers, (0, 0.25, 0.5, 0.75, 1))
    place = np.searchsorted(edges[1:-1], numbers)
    return [f"{edges[k]:g} to {edges[k + 1]:g}" if value else "" for k, value in zip(place, values, strict=True)]


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
