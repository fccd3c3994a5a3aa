"""Lists of names that fix the split: `train.txt`, `val.txt` and optionally `test.txt`."""

import os
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from segtune.data.sources.base import Pair, Problem
from segtune.data.sources.listing import is_image_name
from segtune.data.sources.places import fixed_part
from segtune.errors import UserError, some
from segtune.runtime.paths import special_kind

SPLITS = ("train", "val", "test")


def find_lists(root: Path, images: str | None = None) -> Path | None:
    """Return the folder of the lists of a data set, None if it has none.

    They are in `root`, beside the folder `images` in it, or where PASCAL VOC has them, in `ImageSets/Segmentation`.
    """
    beside = root / fixed_part(images or "").rpartition("/")[0]
    for folder in dict.fromkeys((root, beside, beside / "ImageSets" / "Segmentation")):
        if any(os.path.lexists(folder / f"{split}.txt") for split in SPLITS):
            return folder
    return None


def split_by_lists(
    pairs: Sequence[Pair], folder: Path, skipped: Collection[str] = ()
) -> tuple[dict[str, list[Pair]], list[Problem]]:
    """Return pairs split by the lists in a folder.

    A list names one image per line, with or without extension and folders; blank lines and lines that begin with # are
    skipped.

    Args:
        pairs: The pairs of the data set.
        folder: Where the lists are.
        skipped: Names of images that are left out; lists may name them.

    Returns:
        `train`, `val` and `test`, each sorted by name, and the problems of the lists.

    Raises:
        UserError: `train.txt` or `val.txt` is missing.
    """
    found = [split for split in SPLITS if os.path.lexists(folder / f"{split}.txt")]
    missing = [f"{split}.txt" for split in ("train", "val") if split not in found]
    if missing:
        there = ", ".join(f"{split}.txt" for split in found)
        raise UserError(
            f"{folder} has {there} but not {', '.join(missing)}. Add train.txt and val.txt (test.txt is "
            "optional), or remove all lists for a split by seed."
        )
    problems: list[Problem] = []
    by_name, left_out = {pair.name: pair for pair in pairs}, dict.fromkeys(skipped)
    lists = {split: _entries(folder / f"{split}.txt", problems) for split in found}
    first: dict[str, tuple[str, str]] = {}  # image -> split and line that first name it
    for split in found:
        for where, entry in lists[split] or ():
            name = _named(entry, by_name)
            if name is None:
                if _named(entry, left_out) is None:
                    text = f"no such pair: {entry[:100]!r} has no photo with a mask"
                    problems.append(Problem("error", where, text))
            elif name not in first:
                first[name] = (split, where)
            elif first[name][0] == split:
                text = f"listed twice: {name!r} is also in {first[name][1]}"
                problems.append(Problem("warning", where, text))
            else:
                text = f"in two splits: {name!r} is also in {first[name][1]}"
                problems.append(Problem("error", where, text))
    splits: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for name in sorted(first):
        splits[first[name][0]].append(by_name[name])
    for split in found:
        if lists[split] is not None and not splits[split]:
            problems.append(Problem("error", f"{split}.txt", "empty list: it names no pair"))
    unlisted = [name for name in by_name if name not in first]
    if unlisted and None not in lists.values():
        problems.append(Problem("warning", str(folder), f"pairs in no list, not used: {some(unlisted)}"))
    return splits, problems


def _named(entry: str, names: Mapping[str, object]) -> str | None:
    """Return the name that an entry of a list means, None if it is none of the known ones."""
    return next((each for each in _readings(entry) if each in names), None)


def _readings(entry: str) -> Iterator[str]:
    """Yield what an entry may mean: a name, a file, a path to it, or a path with that of the mask behind it."""
    yield entry
    for text in dict.fromkeys((entry, *entry.split()[:1])):
        path = PurePosixPath(text.replace("\\", "/"))
        whole = path.with_suffix("") if is_image_name(path.name) else path
        for start in range(len(whole.parts)):
            yield "/".join(whole.parts[start:])


def _entries(path: Path, problems: list[Problem]) -> list[tuple[str, str]] | None:
    """Return the entries of a list, each with its line; None if the file cannot be read as text."""
    if kind := special_kind(path):
        problems.append(Problem("error", path.name, f"not a list: it is {kind}; expected a text file of names"))
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        reason = f"not UTF-8: line {line} holds the byte 0x{byte:02x}; save the list as UTF-8"
        problems.append(Problem("error", path.name, reason))
        return None
    except OSError as error:
        problems.append(Problem("error", path.name, f"unreadable: {error.strerror or error}"))
        return None
    if "\0" in text:
        problems.append(Problem("error", path.name, "not a list: it holds zero bytes, so it is no text of names"))
        return None
    lines = enumerate((unicodedata.normalize("NFC", line.strip()) for line in text.splitlines()), start=1)
    return [(f"{path.name}, line {number}", entry) for number, entry in lines if entry and not entry.startswith("#")]
