"""The input of `predict`: the images it names, and the names of their results."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segtune.data.file_formats import EXTENSIONS
from segtune.data.unread_files import VIDEOS, is_junk, told_by_name
from segtune.errors import UserError
from segtune.runtime.paths import expanded, special_kind

#: The endings of results; see `unique_names`.
_RESULTS = (".png", ".jpg")

_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Source:
    """An image file, and the name of its results: a path with / and without extension."""

    path: Path
    name: str


def find_video(text: str) -> int | Path | None:
    """Return the number of a camera, the path of a video, or None if `text` names neither.

    Raises:
        UserError: `camera:` is not followed by a number.
    """
    if text.startswith("camera:"):
        number = text.removeprefix("camera:")
        if not number.isdecimal():
            raise UserError(f"input={text}: expected a camera by its number, such as camera:0.")
        return int(number)
    path = expanded(text, "input")
    return path if path.suffix.lower() in VIDEOS and path.is_file() else None


def find_images(text: str, own: Collection[Path] = (), others: Counter[str] | None = None) -> list[Source]:
    """Return the images of a file, a folder (recursively) or a glob pattern, sorted and without hidden ones.

    A GIF among others is an image; alone it is a video, see `find_video`.

    Args:
        text: The file, folder or pattern.
        own: Folders of results, which are skipped.
        others: Counts the files that are left out because they are no images, by extension.

    Raises:
        UserError: There are none.
    """
    others = Counter() if others is None else others
    if not text.strip():
        raise UserError("input is empty. Expected a photo, a folder, a pattern, a video, or camera:0.")
    path, results = expanded(text, "input"), {os.path.realpath(folder) for folder in own}
    if path.is_file():
        return [Source(path, path.stem)]
    if path.is_dir():
        root, found = path, list(_in_folder(path, results))
    elif _MAGIC.search(text):
        root, found = _matching(path, results)
    elif kind := special_kind(path):
        raise UserError(f"input={text}: it is {kind}, not a file.")
    else:
        raise UserError(
            f"input={text}: no such file or folder. "
            "Expected a photo, a folder, a pattern such as 'photos/*.jpg', a video, or camera:0."
        )
    images = sorted(each for each in found if each.suffix.lower() in EXTENSIONS)
    others.update(extension for each in found if (extension := each.suffix.lower()) not in EXTENSIONS)
    if not images:
        where = "in this folder and its subfolders" if path.is_dir() else "that match"
        raise UserError(
            f"input={text}: no images found {where}. Expected files that end in {' '.join(sorted(EXTENSIONS))}; "
            f"hidden files, and results in the output folder, are skipped.{f' {left_out(others)}' if others else ''}"
        )
    names = unique_names([image.relative_to(root) for image in images])
    return [Source(image, name) for image, name in zip(images, names, strict=True)]


def left_out(others: Mapping[str, int]) -> str:
    """Return how many files of which extensions are left out, in words, and what to do with those of known kinds."""
    number, kinds = sum(others.values()), sorted(others, key=lambda kind: kind or "~")
    counts = ", ".join(f"{others[kind]} {kind or 'without extension'}" for kind in kinds)
    advice = "".join(f" {kind}: {text}." for kind in kinds if (text := told_by_name(kind)))
    return f"{number} file{'' if number == 1 else 's'} left out: {counts}.{advice}"


def unique_names(paths: Iterable[Path]) -> list[str]:
    """Return paths without their extensions, except where that would make two equal: a.jpg and a.png keep theirs.

    So does a.jpg beside a folder a.png, which the folder's results need for themselves.
    """
    full = [path.as_posix() for path in paths]
    folders = {folder.as_posix().casefold() for name in full for folder in Path(name).parents}
    names = [name.removesuffix(Path(name).suffix) for name in full]
    while True:
        # Some file systems ignore case. A name that keeps its extension can equal another one without (a.png.jpg).
        counts = Counter(name.casefold() for name in names)
        kept = [
            whole if counts[name.casefold()] > 1 or _is_folder(name, folders) else name
            for whole, name in zip(full, names, strict=True)
        ]
        if kept == names:
            return names
        names = kept


def _is_folder(name: str, folders: Collection[str]) -> bool:
    return any(f"{name}{ending}".casefold() in folders for ending in _RESULTS)


def _in_folder(root: Path, results: Collection[str]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error

    seen = set[str]()
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or (real in results and Path(folder) != root):  # also ends a cycle of links
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_junk(name))
        # What iCloud has moved away leaves a hidden placeholder, which counts among those that are left out.
        yield from (Path(folder, name) for name in files if not is_junk(name) or name.endswith(".icloud"))


def _matching(pattern: Path, results: Collection[str]) -> tuple[Path, list[Path]]:
    """Return the part of a pattern without wildcards, and the files that match."""
    fixed = next(number for number, part in enumerate(pattern.parts) if _MAGIC.search(part))
    root, wild = Path(*pattern.parts[:fixed]), "/".join(pattern.parts[fixed:])
    try:
        found = [path for path in root.glob(f"{wild}/*" if wild.endswith("**") else wild) if not path.is_dir()]
    except ValueError as error:
        raise UserError(f"input={pattern}: {error}.") from error
    inside = [Path(folder) for folder in results if Path(folder).is_relative_to(os.path.realpath(root))]
    return root, [
        path
        for path in found
        if not any(is_junk(part) for part in path.relative_to(root).parts)
        and not any(Path(os.path.realpath(path)).is_relative_to(folder) for folder in inside)
    ]
