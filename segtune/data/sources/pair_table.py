"""A CSV file that names images and masks, and perhaps their splits and groups: `data.pairs`."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segtune.config.data_settings import DataSettings
from segtune.data.sources.base import Found, Pair, Problem
from segtune.data.sources.folder_words import split_of
from segtune.data.sources.listing import is_image_name
from segtune.errors import UserError, some
from segtune.runtime.paths import expanded, find_data_folder
from segtune.runtime.tables import read_table

#: What the columns are called, without what is no letter, in lower case; the first names come before the others.
_COLUMNS = {
    "image": "image images imagepath imagefile imagefilename imagename img imgs imgpath imgfile photo photos photopath "
    "picture picturepath rgb input file filename filepath path",
    "mask": "mask masks maskpath maskfile maskfilename maskname label labels labelpath labelfile annotation "
    "annotationpath segmentation segmentationpath seg segpath groundtruth gt gtpath target",
    "split": "split set subset partition phase usage",
    "group": "group patient patientid subject subjectid person personid video videoid sequence scene study site",
}


#: Problems that are shown where no row can be used.
_SHOWN = 5


@dataclass(frozen=True)
class _Table:
    """A table: its file, the index of each column, the names of all columns (none without a header), and its rows."""

    path: Path
    columns: Mapping[str, int]
    header: Sequence[str]
    rows: Sequence[tuple[int, list[str]]]

    def cell(self, row: Sequence[str], column: str) -> str:
        index = self.columns.get(column, len(row))
        return row[index] if index < len(row) else ""

    def words(self) -> str:
        """Return the file and its columns in words."""
        names = [self.header[index] if self.header else str(index + 1) for index in self.columns.values()]
        return f"{self.path.name} (columns {', '.join(names)})"


@dataclass(frozen=True)
class _Row:
    """A pair in a table; `split` and `group` are "" for none."""

    line: int
    photo: Path
    mask: Path
    split: str
    group: str


def find_listed_pairs(settings: DataSettings) -> Found:
    """Return the pairs that a CSV file lists.

    Paths are relative to the file, or else to `data.root`; backslashes count as slashes. The name of a pair is the
    path of its image below the folder that all images share, without extension unless two would be equal.

    Raises:
        UserError: The file cannot be read, or has no columns of images and masks, or lists none.
    """
    root = find_data_folder(settings.root)
    path = _file(str(settings.pairs), root)
    table = _read(path, settings)
    finder = _Finder(
        [path.parent, *(root / each for each in ("", settings.images, settings.masks) if each is not None)]
    )
    problems: list[Problem] = []
    rows, skipped = _rows(table, finder, problems, skip=settings.missing == "skip")
    if not rows:
        lines = [f"data.pairs={path} names no image and mask that are there.", *map(str, problems[:_SHOWN])]
        raise UserError("\n".join(lines))
    names = _names([*(row.photo for row in rows), *skipped])
    pairs = [Pair(names[row.photo], row.photo, row.mask, channel=settings.mask_channel) for row in rows]
    splits = _splits(table, rows, names, problems)
    used = set(names.values()) if splits is None else {name for chosen in splits.values() for name in chosen}
    notes = [table.words()]
    if skipped:
        notes.append(f"{len(skipped)} photo{'' if len(skipped) == 1 else 's'} without mask left out")
    column = table.header[table.columns["group"]] if "group" in table.columns and table.header else None
    return Found(
        sorted((pair for pair in pairs if pair.name in used), key=lambda pair: pair.name),
        problems,
        ", ".join(notes),
        splits,
        f"column {table.header[table.columns['split']]}" if splits and table.header else "table",
        {"pairs": str(path)} | ({"group": column} if column else {}),
        [names[photo] for photo in skipped],
        {names[row.photo]: row.group or names[row.photo] for row in rows} if "group" in table.columns else None,
    )


def _rows(table: _Table, finder: "_Finder", problems: list[Problem], *, skip: bool) -> tuple[list[_Row], list[Path]]:
    """Return the pairs of a table, and its images without a mask if these are to be left out."""
    rows: dict[Path, _Row] = {}
    skipped: list[Path] = []
    for line, cells in table.rows:
        where = f"{table.path.name}, line {line}"
        image, mask, split, group = (table.cell(cells, column) for column in _COLUMNS)
        photo, drawn = finder.find(image), finder.find(mask)
        if photo is None:
            problems.append(Problem("error", where, f"no such image: {finder.lacks(image)}"))
        elif drawn is None and skip:
            skipped.append(photo)
        elif drawn is None:
            text = f"photo without mask: {finder.lacks(mask) if mask else 'it names none'}"
            problems.append(Problem("error", where, f"{text}; data.missing=skip leaves it out"))
        elif split and split_of(split) is None:
            problems.append(Problem("error", where, f"unknown split: got {split!r}; expected train, val or test"))
        elif photo in rows:
            text = f"listed twice: {image!r} is also in line {rows[photo].line}"
            same = rows[photo].mask == drawn and rows[photo].split == (split_of(split) or "")
            problems.append(Problem("warning" if same else "error", where, text))
        else:
            rows[photo] = _Row(line, photo, drawn, split_of(split) or "", group)
    return list(rows.values()), skipped


def _splits(
    table: _Table, rows: Sequence[_Row], names: Mapping[Path, str], problems: list[Problem]
) -> dict[str, list[str]] | None:
    """Return the names of pairs by split; None where the table does not tell it."""
    splits: dict[str, list[str]] = {}
    for row in rows:
        splits.setdefault(row.split, []).append(names[row.photo])
    if splits.keys() <= {"", "train"} and len(splits) <= 1:
        return None
    if unused := splits.pop("", []):
        text = f"pairs without a split, not used: {some(unused)}"
        problems.append(Problem("warning", table.path.name, text))
    return splits


def _names(photos: Sequence[Path]) -> dict[Path, str]:
    """Return the names of images; those that would be equal keep their extensions."""
    top = os.path.commonpath([os.path.abspath(photo.parent) for photo in photos]) if photos else ""
    inside = {photo: PurePosixPath(os.path.relpath(os.path.abspath(photo), top)) for photo in photos}
    short = {photo: unicodedata.normalize("NFC", str(name.with_suffix(""))) for photo, name in inside.items()}
    counts = Counter(short.values())
    return {photo: name if counts[name] == 1 else str(inside[photo]) for photo, name in short.items()}


def _file(text: str, root: Path) -> Path:
    """Return the file of a table: relative to the current folder as other paths, or where it is not there to `root`."""
    path = expanded(text, "data.pairs")
    return root / path if not os.path.lexists(path) and os.path.lexists(root / path) else path


def _read(path: Path, settings: DataSettings) -> _Table:
    """Return a table. A column of groups is needed only where the images are still to be divided.

    Raises:
        UserError: It has no columns of images and masks, or several that might be one of them.
    """
    rows = read_table(path, "data.pairs")
    first = rows[0][1] if rows else []
    if any(map(is_image_name, first)):
        return _Table(path, _by_position(first), [], rows)
    columns = {}
    for column, words in _COLUMNS.items():
        if column == "group" and settings.group is not None:
            if settings.group in first:  # else it is a pattern of names
                columns[column] = first.index(settings.group)
        elif column == "group" and "split" in columns and settings.folds is None:
            continue
        elif (index := _column(path, first, column, words.split())) is not None:
            columns[column] = index
    lacking = [column for column in ("image", "mask") if column not in columns]
    if lacking:
        raise UserError(
            f"data.pairs={path}: no column {' and none '.join(lacking)}; got {', '.join(first) or 'an empty file'}. "
            "Expected a header with image and mask, and perhaps split and group; or rows of paths without a header."
        )
    return _Table(path, columns, first, rows[1:])


def _column(path: Path, header: Sequence[str], column: str, words: Sequence[str]) -> int | None:
    """Return the index of a column by its usual names.

    Raises:
        UserError: Several columns have one, and none the first.
    """
    plain = [re.sub(r"[\W_]", "", name.casefold()) for name in header]
    if column in plain:
        return plain.index(column)
    found = [index for index, name in enumerate(plain) if name in words]
    if len(found) > 1:
        names = [header[index] for index in found]
        choice = f"set data.group={names[0]}" if column == "group" else f"rename that to {column}"
        raise UserError(f"data.pairs={path}: {' and '.join(names)} might be the column {column}; {choice}.")
    return found[0] if found else None


def _by_position(row: Sequence[str]) -> dict[str, int]:
    """Return the columns of a table without a header: image, mask, and then a split or a group."""
    columns = {"image": 0, "mask": 1}
    for index in range(2, len(row)):
        columns.setdefault("split" if split_of(row[index]) else "group", index)
    return columns


class _Finder:
    """Finds files that a table names; every folder is listed once."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(dict.fromkeys(folders))
        self._names: dict[Path, dict[str, str]] = {}

    def find(self, text: str) -> Path | None:
        """Return the file that a cell names, or None."""
        text = text.replace("\\", "/")
        name = unicodedata.normalize("NFC", text.rpartition("/")[2])
        if name in ("", ".", ".."):
            return None
        for folder in self.folders:
            parent = folder / os.path.expanduser(text.rpartition("/")[0] + "/" * text.startswith("/"))
            if found := self._inside(parent).get(name):
                return parent / found
        return None

    def lacks(self, text: str) -> str:
        """Return that a file is in none of the folders, in words."""
        return f"got {text!r}; it is not in {' nor in '.join(map(str, self.folders))}"

    def _inside(self, folder: Path) -> dict[str, str]:
        if folder not in self._names:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            self._names[folder] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._names[folder]
