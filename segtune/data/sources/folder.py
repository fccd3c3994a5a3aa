"""The folder format: photos in `images/`, and masks of the same names in `masks/`."""

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from segtune.data.file_formats import EXTENSIONS
from segtune.data.sources.base import Pair, Problem
from segtune.data.sources.mask_names import photo_of, shared_pattern
from segtune.data.unread_files import Unread, is_junk, unread_by_stem
from segtune.errors import UserError, some
from segtune.runtime.paths import find_data_folder

# Names of the two folders in other data sets, to suggest which one to rename.
_ALIASES = {
    "images": ("image", "imgs", "img", "photos", "pictures", "jpegimages"),
    "masks": ("mask", "labels", "label", "annotations", "groundtruth", "ground_truth", "segmentationclass"),
}


def find_pairs(root: Path, mask_name: str | None = None) -> tuple[list[Pair], list[Problem]]:
    """Return pairs of files in `root/images` and `root/masks` with the same stem.

    Args:
        root: The folder of the data set.
        mask_name: The stem of a mask where it differs; `*` stands for that of its photo, as in `*_mask`.

    Returns:
        The pairs sorted by name, and the problems: files without a partner and two files with one stem (errors), files
        of other types (warnings). Hidden files and those that Windows leaves in folders are skipped.

    Raises:
        UserError: A folder is missing, or there are no pairs.
    """
    problems: list[Problem] = []
    photos, masks = (_by_stem(_folder(root, name), problems) for name in ("images", "masks"))
    stems, strange = list(masks), [path for mask, path in masks.items() if photo_of(mask, mask_name) is None]
    masks = {photo: path for mask, path in masks.items() if (photo := photo_of(mask, mask_name)) is not None}
    problems += [Problem("error", _where(path), f"data.mask_name={mask_name} does not fit it") for path in strange]
    unread = {part: unread_by_stem(sorted(os.listdir(root / part))) for part in ("images", "masks")}
    if not photos.keys() & masks.keys():
        if (pattern := shared_pattern(photos, stems)) not in (None, mask_name):
            value = "null" if pattern == "*" else f"'{pattern}'"
            raise UserError(
                f"No photo in {root} has a mask: images/ contains {_contents(root / 'images')}; masks/ contains "
                f"{_contents(root / 'masks')}. Masks are named {pattern}, where * is the name of the photo: set "
                f"data.mask_name={value}"
            )
        raise UserError(
            f"No photo in {root} has a mask: images/ contains {_contents(root / 'images')}; masks/ contains "
            f"{_contents(root / 'masks')}. Photo and mask must have the same name up to the extension, directly "
            "in these folders, such as images/a.jpg and masks/a.png. "
            f"Extensions: {' '.join(sorted(EXTENSIONS))}.{_advice(unread)}"
        )
    for name in sorted(photos.keys() - masks.keys()):
        text = f"photo without mask: {_missing('masks', (mask_name or '*').replace('*', name), unread)}"
        problems.append(Problem("error", _where(photos[name]), text))
    for name in sorted(masks.keys() - photos.keys()):
        text = f"mask without photo: {_missing('images', name, unread)}"
        problems.append(Problem("error", _where(masks[name]), text))
    pairs = [Pair(name, photos[name], masks[name]) for name in sorted(photos.keys() & masks.keys())]
    return pairs, problems


def look_for_folders(root: Path) -> None:
    """Check that a data set has its folders of images and masks.

    Raises:
        UserError: One is missing.
    """
    for name in ("images", "masks"):
        _folder(root, name)


def _missing(folder: str, name: str, unread: Mapping[str, Mapping[str, Unread]]) -> str:
    """Return which file a folder lacks; it may have one that is not read, such as a PDF document."""
    if file := unread[folder].get(name):
        return f"{folder}/{file.name} is {file.text}"
    return f"no {folder}/{name}.*"


def _advice(unread: Mapping[str, Mapping[str, Unread]]) -> str:
    """Return sentences on files that are not read: on one of each kind."""
    kinds = {file.text: f"{folder}/{file.name}" for folder, files in unread.items() for file in files.values()}
    return "".join(f" {name} is {text}." for text, name in kinds.items())


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
        f"names; got {_contents(root)}.{hint}"
    )


def _by_stem(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    others = []
    for path in _visible(folder):
        # macOS writes accents as separate characters, and photo and mask may come from different systems.
        name = unicodedata.normalize("NFC", path.stem)
        if not is_image_file(path) or path.is_dir():
            others.append(path)
        elif not _is_text(path.name):
            text = "not a UTF-8 name: results cannot be written under it; rename the file"
            problems.append(Problem("error", f"{folder.name}/{os.fsencode(path.name)!r}", text))
        elif name in files:
            text = f"two files of one name: {_where(files[name])} exists too; keep one"
            problems.append(Problem("error", _where(path), text))
        else:
            files[name] = path
    if others:
        text = f"ignored: {len(others)} that are not images ({some(map(_label, others))})"
        problems.append(Problem("warning", f"{folder.name}/", text))
    return files


def is_image_file(path: Path) -> bool:
    """Return whether a file has the extension of an image."""
    return path.suffix.lower() in EXTENSIONS


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of another encoding, which Python keeps as surrogates
        return False
    return True


def _visible(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read: {error.strerror or error}.") from error
    return [path for path in paths if not is_junk(path.name)]


def _contents(folder: Path) -> str:
    return some(map(_label, _visible(folder))) if _visible(folder) else "nothing"


def _where(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _label(path: Path) -> str:
    return f"{path.name}/" if path.is_dir() else path.name
