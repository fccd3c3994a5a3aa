"""Find photos with their masks in a folder, and divide them into training, validation and test pictures."""

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segtune.config import UserError, some
from segtune.data.images import EXTENSIONS, read_mask, read_photo
from segtune.locate import find_data_folder

_JUNK = frozenset({"thumbs.db", "desktop.ini"})
# What other data sets call the two folders, to name the one to rename.
_ALIASES = {
    "images": ("image", "imgs", "img", "photos", "pictures", "jpegimages"),
    "masks": ("mask", "labels", "label", "annotations", "groundtruth", "ground_truth", "segmentationclass"),
}


@dataclass(frozen=True)
class Pair:
    """A photo and its mask; `name` is their common file stem. Whoever reads them need not know the format."""

    name: str
    photo: Path
    mask: Path

    def read_photo(self) -> NDArray[np.uint8]:
        """Return the photo as RGB, (H, W, 3).

        Raises:
            ImageError: The file is missing, damaged or no image.
        """
        return read_photo(self.photo)

    def read_mask(self) -> NDArray[np.integer[Any]]:
        """Return the ids in the mask, (H, W).

        Raises:
            ImageError: The file is missing, damaged or no mask.
        """
        return read_mask(self.mask)


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data; errors forbid training, warnings do not.

    What stands before the first colon of `text` is the kind of the problem; `where` is a file, list or split.
    """

    level: Literal["error", "warning"]
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.text}"


def find_pairs(root: Path) -> tuple[list[Pair], list[Problem]]:
    """Pair the files of `root/images` and `root/masks` by their stems.

    Returns:
        The pairs sorted by name, and what is wrong: files without a partner, two files of one stem (errors),
        files of other kinds (warnings). Hidden files and what Windows leaves in folders are passed over.

    Raises:
        UserError: a folder is missing, or there is not a single pair.
    """
    problems: list[Problem] = []
    photos, masks = (_by_stem(_folder(root, name), problems) for name in ("images", "masks"))
    if not photos.keys() & masks.keys():
        raise UserError(
            f"No photo in {root} has a mask: images/ holds {_contents(root / 'images')}; masks/ holds "
            f"{_contents(root / 'masks')}. Photo and mask need the same name up to the extension, directly "
            "in these folders, as in images/a.jpg and masks/a.png. "
            f"Extensions: {' '.join(sorted(EXTENSIONS))}."
        )
    for name in sorted(photos.keys() - masks.keys()):
        problems.append(Problem("error", _where(photos[name]), f"photo without mask: no masks/{name}.*"))
    for name in sorted(masks.keys() - photos.keys()):
        problems.append(Problem("error", _where(masks[name]), f"mask without photo: no images/{name}.*"))
    pairs = [Pair(name, photos[name], masks[name]) for name in sorted(photos.keys() & masks.keys())]
    return pairs, problems


def split_pairs(
    pairs: Sequence[Pair], root: Path, *, seed: int, fractions: tuple[float, float] = (0.15, 0.15)
) -> tuple[dict[str, list[Pair]], list[Problem]]:
    """Divide pairs by `root/train.txt`, `val.txt` and, if wanted, `test.txt`, or else by seed.

    A list names one picture a line, with or without extension; blank lines and lines that begin with # are
    skipped. Without lists, pictures are ranked by a hash of the seed and their name: the lowest are the test
    set, the highest the validation set, `round(fraction * pictures)` of each and at least one. So neither the
    order of the folder nor the machine matters, and added pictures move only the few that stand at the
    borders, never one from test to validation.

    Args:
        pairs: What `find_pairs` found.
        root: The data set's folder.
        seed: Of the hash.
        fractions: Shares of validation and test, each above 0 and together below 1.

    Returns:
        `train`, `val` and `test`, each sorted by name, and the problems of the lists.

    Raises:
        UserError: some lists are missing, or there are too few pictures.
    """
    found = [split for split in ("train", "val", "test") if (root / f"{split}.txt").is_file()]
    if not found:
        return _split_by_seed(pairs, seed, *fractions), []
    missing = [f"{split}.txt" for split in ("train", "val") if split not in found]
    if missing:
        there = ", ".join(f"{split}.txt" for split in found)
        raise UserError(
            f"{root} has {there} but not {', '.join(missing)}. Give train.txt and val.txt (test.txt may be "
            "left out), or no list at all for a split by seed."
        )
    return _split_by_lists(pairs, root, found)


def _split_by_seed(pairs: Sequence[Pair], seed: int, val: float, test: float) -> dict[str, list[Pair]]:
    count = len(pairs)
    if count < 3:
        raise UserError(f"{count} pairs cannot be split into train, val and test: at least 3 are needed.")
    tests, vals = max(1, round(test * count)), max(1, round(val * count))
    if tests + vals >= count:
        raise UserError(f"Shares of {val:g} (val) and {test:g} (test) leave none of {count} pairs to train on.")
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(f"{seed}/{pair.name}".encode()).digest())
    splits = {"train": ranked[tests:-vals], "val": ranked[-vals:], "test": ranked[:tests]}
    return {split: sorted(chosen, key=lambda pair: pair.name) for split, chosen in splits.items()}


def _split_by_lists(
    pairs: Sequence[Pair], root: Path, found: Sequence[str]
) -> tuple[dict[str, list[Pair]], list[Problem]]:
    problems: list[Problem] = []
    by_name = {pair.name: pair for pair in pairs}
    lists = {split: _entries(root / f"{split}.txt", problems) for split in found}
    first: dict[str, tuple[str, str]] = {}  # picture -> the split and the line that name it first
    for split in found:
        for where, entry in lists[split] or ():
            name = entry if entry in by_name or not _is_picture(Path(entry)) else Path(entry).stem
            if name not in by_name:
                text = f"no such pair: {entry!r} has no photo with a mask"
                problems.append(Problem("error", where, text))
            elif name not in first:
                first[name] = (split, where)
            elif first[name][0] == split:
                text = f"listed twice: {name!r} is also in {first[name][1]}"
                problems.append(Problem("warning", where, text))
            else:
                text = f"in two splits: {name!r} is also in {first[name][1]}"
                problems.append(Problem("error", where, text))
    splits: dict[str, list[Pair]] = {"train": [], "val": [], "test": []}
    for name in sorted(first):
        splits[first[name][0]].append(by_name[name])
    for split in found:
        if lists[split] is not None and not splits[split]:
            problems.append(Problem("error", f"{split}.txt", "empty list: it names no pair"))
    unlisted = [name for name in by_name if name not in first]
    if unlisted and None not in lists.values():
        problems.append(Problem("warning", str(root), f"pairs in no list, not used: {some(unlisted)}"))
    return splits, problems


def _entries(path: Path, problems: list[Problem]) -> list[tuple[str, str]] | None:
    """Read the entries of a list, each with its place; None if the file cannot be read as text."""
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
    lines = enumerate((unicodedata.normalize("NFC", line.strip()) for line in text.splitlines()), start=1)
    return [(f"{path.name}, line {number}", entry) for number, entry in lines if entry and not entry.startswith("#")]


def _folder(root: Path, name: str) -> Path:
    folder = root / name
    if folder.is_dir():
        return folder
    find_data_folder(root)
    folders = {path.name.lower(): path.name for path in _visible(root) if path.is_dir()}
    near = [alias for alias in (name, *_ALIASES[name]) if alias in folders]
    hint = f" Perhaps rename {folders[near[0]]}/ to {name}/." if near else ""
    raise UserError(
        f"No folder {name}/ in {root}. Expected images/ with the photos and masks/ with masks of the same "
        f"names; there is: {_contents(root)}.{hint}"
    )


def _by_stem(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    others = []
    for path in _visible(folder):
        # macOS writes accents as separate characters; photo and mask may come from different systems.
        name = unicodedata.normalize("NFC", path.stem)
        if not _is_picture(path) or path.is_dir():
            others.append(path)
        elif not _is_text(path.name):
            text = "not a name in UTF-8: results could not be written under it; rename the file"
            problems.append(Problem("error", f"{folder.name}/{os.fsencode(path.name)!r}", text))
        elif name in files:
            text = f"two files of one name: {_where(files[name])} is there as well"
            problems.append(Problem("error", _where(path), text))
        else:
            files[name] = path
    if others:
        text = f"ignored: {len(others)} that are no pictures ({some(map(_label, others))})"
        problems.append(Problem("warning", f"{folder.name}/", text))
    return files


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of another encoding, kept by Python as they are
        return False
    return True


def _visible(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read: {error.strerror or error}.") from error
    return [path for path in paths if not path.name.startswith(".") and path.name.lower() not in _JUNK]


def _contents(folder: Path) -> str:
    return some(map(_label, _visible(folder))) if _visible(folder) else "nothing"


def _where(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _label(path: Path) -> str:
    return f"{path.name}/" if path.is_dir() else path.name
