"""The input of `predict`: the images it names, and the names of their results."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segtune.data.file_formats import EXTENSIONS
from segtune.data.unread_files import VIDEOS, is_junk, told_by_name
from segtune.errors import UserError
from segtune.runtime.paths import expanded, special_kind

#: The endings of results; see `unique_names`.
_RESULTS = (".png", ".jpg", ".json", ".txt")

_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Source:
    """An image file, and the name of its results: a path with / and without extension.

    `below` is its path below the input that named it, with / and extension; no other source has the same.
    """

    path: Path
    name: str
    below: str = ""

    @property
    def file(self) -> str:
        """Its name for those who know it from its folder."""
        return self.below or self.path.name


def find_video(inputs: str | Sequence[str]) -> int | Path | None:
    """Return the number of a camera, the path of a video, or None if the input is neither.

    Raises:
        UserError: `camera:` is not followed by a number, or there is more than one input and one is a video or camera.
    """
    texts = [inputs] if isinstance(inputs, str) else inputs
    if len(texts) == 1:
        return _video(texts[0])
    for text in texts:
        if _video(text) is not None and Path(text).suffix.lower() not in EXTENSIONS:
            raise UserError(f"input: {text} is a video or a camera, which is predicted alone: input={text}")
    return None


def _video(text: str) -> int | Path | None:
    if text.startswith("camera:"):
        number = text.removeprefix("camera:")
        if not number.isdecimal():
            raise UserError(f"input={text}: expected a camera by its number, such as camera:0.")
        return int(number)
    path = expanded(text, "input")
    return path if path.suffix.lower() in VIDEOS and path.is_file() else None


def find_images(
    inputs: str | Sequence[str], own: Collection[Path] = (), others: Counter[str] | None = None
) -> list[Source]:
    """Return the images of files, folders (recursively), glob patterns and lists, without hidden ones.

    Those of each input are sorted; an image that several name is returned once. Names of results are paths below each
    input or, where two of them would be equal, below the folder that holds all images.

    A GIF among others is an image; alone it is a video, see `find_video`.

    Args:
        inputs: A file, folder or pattern, a text file that lists such, or several of these.
        own: Folders of results, which are skipped.
        others: Counts the files that are left out because they are no images, by extension.

    Raises:
        UserError: One of the inputs has none.
    """
    others = Counter() if others is None else others
    results = {os.path.realpath(folder) for folder in own}
    found: dict[str, tuple[Path, Path]] = {}  # by its whole path: an image, and its path below the input
    roots = set[Path]()
    for name, text in _each([inputs] if isinstance(inputs, str) else inputs):
        root, images = _images_of(name, text, results, others)
        roots.add(root)
        for image in images:
            found.setdefault(os.path.abspath(image), (image, image.relative_to(root)))
    below = [path for _, path in found.values()]
    if len(roots) > 1 and len({path.as_posix().casefold() for path in below}) < len(below):
        common = os.path.commonpath([os.path.dirname(path) for path in found])
        below = [Path(path).relative_to(common) for path in found]
    names = unique_names(below)
    return [
        Source(image, name, path.as_posix())
        for (image, _), name, path in zip(found.values(), names, below, strict=True)
    ]


def _each(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield inputs, those of lists too, each with what to call it in messages.

    Raises:
        UserError: An input is empty, or a list cannot be read.
    """
    for text in texts:
        if not text.strip():
            raise UserError("input is empty. Expected a photo, a folder, a pattern, a video, or camera:0.")
        path = expanded(text, "input")
        if path.suffix.lower() != ".txt" or not path.is_file():
            yield f"input={text}", text
            continue
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"input={text}: the list cannot be read: {error}.") from error
        if not any(lines):
            raise UserError(f"input={text}: the list is empty. Expected a photo, a folder or a pattern in each line.")
        for number, line in enumerate(lines, start=1):
            if line:
                named = expanded(line, f"{text}, line {number}")
                yield f"{text}, line {number}: {line}", str(named if os.path.exists(named) else path.parent / named)


def _images_of(name: str, text: str, results: Collection[str], others: Counter[str]) -> tuple[Path, list[Path]]:
    """Return the images of an input, and the folder below which their names begin.

    Raises:
        UserError: There are none.
    """
    path, left = expanded(text, "input"), Counter[str]()
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        root, found = path, list(_in_folder(path, results))
    elif _MAGIC.search(text):
        root, found = _matching(path, results)
    elif kind := special_kind(path):
        raise UserError(f"{name}: it is {kind}, not a file.")
    else:
        raise UserError(
            f"{name}: no such file or folder. "
            "Expected a photo, a folder, a pattern such as 'photos/*.jpg', a video, or camera:0."
        )
    images = sorted(each for each in found if each.suffix.lower() in EXTENSIONS)
    left.update(extension for each in found if (extension := each.suffix.lower()) not in EXTENSIONS)
    others.update(left)
    if not images:
        where = "in this folder and its subfolders" if path.is_dir() else "that match"
        raise UserError(
            f"{name}: no images found {where}. Expected files that end in {' '.join(sorted(EXTENSIONS))}; "
            f"hidden files, and results in the output folder, are skipped.{f' {left_out(left)}' if left else ''}"
        )
    return root, images


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
