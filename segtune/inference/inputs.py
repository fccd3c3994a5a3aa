"""What `predict` is given: which pictures, and under which names their results are written."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from segtune.data.images import EXTENSIONS
from segtune.errors import UserError

VIDEOS = frozenset({".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})

_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Source:
    """A picture, and the name of its results: a path with / and without ending."""

    path: Path
    name: str


def find_video(text: str) -> int | Path | None:
    """Return a camera's number, a video's file, or None where `text` is something else.

    Raises:
        UserError: The camera has no number.
    """
    if text.startswith("camera:"):
        number = text.removeprefix("camera:")
        if not number.isdecimal():
            raise UserError(f"input={text}: expected a camera by its number, such as camera:0.")
        return int(number)
    path = Path(text).expanduser()
    return path if path.suffix.lower() in VIDEOS and path.is_file() else None


def find_images(text: str, own: Collection[Path] = ()) -> list[Source]:
    """Find the pictures of a file, a folder with all folders in it, or a pattern; sorted, hidden ones left out.

    Args:
        text: The file, folder or pattern.
        own: Folders of results, which are passed over where they lie inside what is searched.

    Raises:
        UserError: There are none.
    """
    path, results = Path(text).expanduser(), {os.path.realpath(folder) for folder in own}
    if path.is_file():
        return [Source(path, path.stem)]
    if path.is_dir():
        root, found = path, list(_in_folder(path, results))
    elif _MAGIC.search(text):
        root, found = _matching(path, results)
    else:
        raise UserError(
            f"input={text}: there is no such file or folder. "
            "Expected a photo, a folder, a pattern such as 'photos/*.jpg', a video, or camera:0."
        )
    pictures = sorted(each for each in found if each.suffix.lower() in EXTENSIONS)
    if not pictures:
        where = "in this folder and the folders in it" if path.is_dir() else "that match"
        raise UserError(
            f"input={text}: no pictures found {where}. Looked for files that end in {' '.join(sorted(EXTENSIONS))}; "
            "hidden ones, and results in the output folder, are passed over."
        )
    names = unique_names([picture.relative_to(root) for picture in pictures])
    return [Source(picture, name) for picture, name in zip(pictures, names, strict=True)]


def unique_names(paths: Iterable[Path]) -> list[str]:
    """Drop the endings of different paths where what is left is unique: a.jpg and a.png keep theirs."""
    full = [path.as_posix() for path in paths]
    names = [name.removesuffix(Path(name).suffix) for name in full]
    while True:
        # Some file systems take A.png and a.png for the same. A kept ending can meet another name (a.png.jpg).
        often = Counter(name.casefold() for name in names)
        kept = [whole if often[name.casefold()] > 1 else name for whole, name in zip(full, names, strict=True)]
        if kept == names:
            return names
        names = kept


def _in_folder(root: Path, results: Collection[str]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error

    seen = set[str]()
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or (real in results and Path(folder) != root):  # a loop of links ends here
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _matching(pattern: Path, results: Collection[str]) -> tuple[Path, list[Path]]:
    """Return the part of a pattern without wildcards, and the files that match."""
    fixed = next(number for number, part in enumerate(pattern.parts) if _MAGIC.search(part))
    root, wild = Path(*pattern.parts[:fixed]), "/".join(pattern.parts[fixed:])
    try:
        found = [path for path in root.glob(f"{wild}/*" if wild.endswith("**") else wild) if path.is_file()]
    except ValueError as error:
        raise UserError(f"input={pattern}: {error}.") from error
    inside = [Path(folder) for folder in results if Path(folder).is_relative_to(os.path.realpath(root))]
    return root, [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
        and not any(Path(os.path.realpath(path)).is_relative_to(folder) for folder in inside)
    ]
