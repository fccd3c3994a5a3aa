"""Subgroups of images: by object size, by skin tone, or by a table of the user."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segtune.errors import UserError, nearest, some
from segtune.evaluation.skin_tone import TONES, tone
from segtune.runtime.tables import read_table

#: More distinct numbers than the first are divided into quarters; a column of more groups than the second is ignored.
_MOST_VALUES, _MOST_GROUPS = 12, 50
#: Groups that need no table.
OWN = ("object size", "skin tone")

Labels = list[str]
"""The group of each image; an empty string for no group."""


def groups_by_size(fractions: NDArray[np.float64]) -> Labels:
    """Return labels that divide the images with foreground into thirds by its fraction (0 to 1)."""
    present = fractions[fractions > 0]
    if len(present) < 3:
        return [""] * len(fractions)
    low, high = np.quantile(present, (1 / 3, 2 / 3))
    names = (f"small: up to {low:.1%}", f"medium: to {high:.1%}", f"large: over {high:.1%}")
    return [names[int(part > low) + int(part > high)] if part > 0 else "" for part in fractions]


def groups_by_tone(angles: NDArray[np.float64]) -> Labels:
    """Return labels by the class of the skin's typology angle, in degrees."""
    return [tone(angle) for angle in angles]


def order(labels: Labels) -> list[str]:
    """Return the groups in reading order: tones from the lightest, sizes and numbers in ascending order."""
    known = [name for name, _ in TONES] + ["small", "medium", "large"]

    def place(label: str) -> tuple[int, float, str]:
        stem = label.partition(":")[0]
        number = float(label.split(" to ")[0]) if _is_number(label.split(" to ")[0]) else 0.0
        return (known.index(stem) if stem in known else len(known), number, label)

    return sorted(set(labels) - {""}, key=place)


def groups_of_table(path: Path, names: Sequence[str], log: Callable[[str], None]) -> dict[str, Labels]:
    """Return groups of images from a CSV file with one row per image, whose name is in the first column.

    Columns of numbers with many values are divided into quarters.

    Args:
        path: The file, UTF-8, with a header line; separated by commas, semicolons or tabs.
        names: The images, by the stem of their files; the table may contain others too.
        log: Called with warnings, such as images that the table lacks.

    Returns:
        The labels of each further column.

    Raises:
        UserError: The file cannot be read, is invalid, or has none of these images.
    """
    columns, rows = _read(path)
    if taken := set(columns) & set(OWN):
        raise UserError(
            f"{path}: the column name {some(sorted(taken))} is reserved for segtune's own groups. Rename the column."
        )
    known = {unicodedata.normalize("NFC", name): name for name in names}
    found: dict[str, list[str]] = {}
    for number, row in rows:
        name = unicodedata.normalize("NFC", row[0].strip())
        name = next((each for each in (name, os.path.splitext(name)[0], Path(name).stem) if each in known), "")
        if name in known and found.setdefault(name, row[1:]) != row[1:]:
            raise UserError(
                f"{path}, line {number}: {name} is in the table twice, with different values. Keep one line."
            )
    if not found:
        first = rows[0][1][0] if rows else "none"
        raise UserError(
            f"{path} has none of the {len(names)} images. Its first column, {columns[0]}, must name them, with or "
            f"without extension; the first name is {first}, the first image {names[0]}.{nearest(first, names)}"
        )
    if lacking := sorted(known.keys() - found.keys()):
        log(f"{path} lacks {len(lacking)} of {len(names)} images, which are in no group: {some(lacking)}.")
    groups = {}
    for index, column in enumerate(columns[1:]):
        labels = _labels([found[name][index].strip() if name in found else "" for name in known])
        if len(set(labels)) > _MOST_GROUPS:
            log(f"{path}: {column} has {len(set(labels))} distinct values, too many for groups; it is ignored.")
        elif column:
            groups[column] = labels
    return groups


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and the rows with their line numbers."""
    rows = read_table(path, "data.groups")
    columns = rows[0][1] if rows else []
    named = [column for column in columns if column]
    if len(named) < 2 or len(set(named)) < len(named) or not columns[0]:
        raise UserError(
            f"data.groups={path}: got the header {', '.join(columns) or '(none: the file is empty)'}; expected the "
            "column of image names and at least one other, with distinct names."
        )
    for number, row in rows[1:]:
        if len(row) != len(columns):
            raise UserError(f"{path}, line {number}: got {len(row)} values; expected {len(columns)}, as in the header.")
    return columns, rows[1:]


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
