"""Groups of pictures: by a table of the user's, by the size of the object, by skin tone."""

import csv
import io
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segtune.errors import UserError, nearest, some
from segtune.evaluation.skin_tone import TONES, tone

#: More different values than this, all numbers, are divided into quarters; more than that, other ones, tell nothing.
_MOST_VALUES, _MOST_GROUPS = 12, 50
#: Groups that need no table.
OWN = ("object size", "skin tone")

Labels = list[str]
"""The group of each picture; empty where it is in none."""


def groups_by_size(shares: NDArray[np.float64]) -> Labels:
    """Divide pictures with foreground into thirds by its share of the picture (0 to 1)."""
    present = shares[shares > 0]
    if len(present) < 3:
        return [""] * len(shares)
    low, high = np.quantile(present, (1 / 3, 2 / 3))
    names = (f"small: up to {low:.1%}", f"medium: to {high:.1%}", f"large: over {high:.1%}")
    return [names[int(share > low) + int(share > high)] if share > 0 else "" for share in shares]


def groups_by_tone(angles: NDArray[np.float64]) -> Labels:
    """Divide pictures by the class of their skin's typology angle, in degrees."""
    return [tone(angle) for angle in angles]


def order(labels: Labels) -> list[str]:
    """Return the groups in the order in which they are read best: tones from the lightest, sizes upwards."""
    known = [name for name, _ in TONES] + ["small", "medium", "large"]

    def place(label: str) -> tuple[int, float, str]:
        stem = label.partition(":")[0]
        number = float(label.split(" to ")[0]) if _is_number(label.split(" to ")[0]) else 0.0
        return (known.index(stem) if stem in known else len(known), number, label)

    return sorted(set(labels) - {""}, key=place)


def groups_of_table(path: Path, names: Sequence[str], log: Callable[[str], None]) -> dict[str, Labels]:
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
    if taken := set(columns) & set(OWN):
        raise UserError(f"{path}: segtune itself makes groups by {some(sorted(taken))}. Call the column otherwise.")
    known = {unicodedata.normalize("NFC", name): name for name in names}
    found: dict[str, list[str]] = {}
    for number, row in rows:
        name = unicodedata.normalize("NFC", row[0].strip())
        name = name if name in known else Path(name).stem
        if name in known and found.setdefault(name, row[1:]) != row[1:]:
            raise UserError(f"{path}, line {number}: {name} is in the table twice, with other values. Keep one line.")
    if not found:
        first = rows[0][1][0] if rows else "none"
        raise UserError(
            f"{path} holds none of the {len(names)} pictures. Its first column, {columns[0]}, must name them, with or "
            f"without extension; it begins with {first}, the pictures with {names[0]}.{nearest(first, names)}"
        )
    if lacking := sorted(known.keys() - found.keys()):
        log(f"{path} lacks {len(lacking)} of {len(names)} pictures; they are in no group: {some(lacking)}.")
    groups = {}
    for index, column in enumerate(columns[1:]):
        labels = _labels([found[name][index].strip() if name in found else "" for name in known])
        if len(set(labels)) > _MOST_GROUPS:
            log(
                f"{path}: {column} has {len(set(labels))} different values, too many to make groups by; it is left out."
            )
        elif column:
            groups[column] = labels
    return groups


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read the heading, and the rows with their line numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"data.groups={path} cannot be read: {reason}.") from error
    try:
        columns, rows = max((_parse(text, separator) for separator in ",;\t"), key=lambda parsed: len(parsed[0]))
    except csv.Error as error:
        raise UserError(f"data.groups={path} cannot be read: {error}.") from error
    named = [column for column in columns if column]
    if len(named) < 2 or len(set(named)) < len(named) or not columns[0]:
        raise UserError(
            f"data.groups={path}: expected a heading line with the picture's column first and at least one more, each "
            f"named once; came {', '.join(columns) or 'an empty file'}."
        )
    for number, row in rows:
        if len(row) != len(columns):
            raise UserError(f"{path}, line {number}: expected {len(columns)} values, as in the heading line.")
    return columns, rows


def _parse(text: str, separator: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows = [(reader.line_num, row) for row in reader if row]
    return ([name.strip() for name in rows[0][1]], rows[1:]) if rows else ([], [])


def _labels(values: list[str]) -> Labels:
    given = {value for value in values if value}
    if len(given) <= _MOST_VALUES or not all(_is_number(value) for value in given):
        return values
    numbers = np.array([float(value) if value else np.nan for value in values])
    edges = np.nanquantile(numbers, (0, 0.25, 0.5, 0.75, 1))
    place = np.searchsorted(edges[1:-1], numbers)
    ends = next(
        (
            short
            for digits in (3, 6, 9, 12)
            if len(set(short := [f"{edge:.{digits}g}" for edge in edges])) == len(edges)
        ),
        [str(edge) for edge in edges],
    )
    return [f"{ends[k]} to {ends[k + 1]}" if value else "" for k, value in zip(place, values, strict=True)]


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
