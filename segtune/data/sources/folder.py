"""Find photos with their masks in a folder, and divide them into training, validation and test pictures."""

import os
import unicodedata
from pathlib import Path

from segtune.data.images import EXTENSIONS
from segtune.data.sources.base import Pair, Problem
from segtune.errors import UserError, some
from segtune.runtime.paths import find_data_folder

_JUNK = frozenset({"thumbs.db", "desktop.ini"})
# What other data sets call the two folders, to name the one to rename.
_ALIASES = {
    "images": ("image", "imgs", "img", "photos", "pictures", "jpegimages"),
    "masks": ("mask", "labels", "label", "annotations", "groundtruth", "ground_truth", "segmentationclass"),
}


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
        if not is_image_file(path) or path.is_dir():
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


def is_image_file(path: Path) -> bool:
    """Return whether a file has the extension of an image."""
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
