"""The files below a folder, listed once: names only; no file is opened, or asked for its size."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from segtune.data.file_formats import EXTENSIONS
from segtune.data.unread_files import Unread, is_junk, unread_by_stem
from segtune.errors import UserError

#: What exports leave beside images.
_NOTES = frozenset({"_classes.csv"})
#: Folders that are listed, so that a home folder or a whole disk is not searched for ever.
_MOST = 50_000


@dataclass(frozen=True)
class Listing:
    """Names of files by folder.

    Attributes:
        root: The folder.
        files: By folder, relative to `root` with `/` and "" for `root` itself, the sorted names of its files; without
            hidden ones and junk.
        unreadable: Folders that cannot be listed, and why.
        hidden: By folder, the names of hidden files and junk in it.
    """

    root: Path
    files: dict[str, list[str]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    hidden: dict[str, list[str]] = field(default_factory=dict)
    _unread: dict[str, dict[str, Unread]] = field(default_factory=dict, repr=False, compare=False)

    def images(self, folder: str) -> list[str]:
        """Return the names of a folder's images."""
        return [name for name in self.files[folder] if is_image_name(name)]

    def unread(self, folder: str) -> dict[str, Unread]:
        """Return the files of a folder whose names tell that they are not read, see `unread_by_stem`."""
        if folder not in self._unread:
            names = [*self.files.get(folder, ()), *self.hidden.get(folder, ())]
            self._unread[folder] = unread_by_stem(sorted(names))
        return self._unread[folder]

    def contents(self, folder: str) -> list[str]:
        """Return the names in a folder, those of folders with a slash."""
        inside = f"{folder}/" if folder else ""
        below = {each[len(inside) :].split("/")[0] for each in self.files if each and each.startswith(inside)}
        return sorted([*self.files.get(folder, ()), *(f"{name}/" for name in below)])


def walk(root: Path, below: Iterable[str] = ("",)) -> Listing:
    """Return the files below a folder, or below some of the folders in it; links to folders are followed.

    Raises:
        UserError: One of these cannot be read, or there are too many folders.
    """
    listing = Listing(root)
    for top in below:
        folders = [top]
        while folders:
            folder = folders.pop()
            try:
                folders += _list(listing, folder)
            except OSError as error:
                listing.unreadable[folder] = error.strerror or str(error)
            if len(listing.files) > _MOST:
                raise UserError(
                    f"{root} has more than {_MOST:,} folders. Set data.root to the folder of the data set, or "
                    "data.images and data.masks to the folders of images and masks in it."
                )
        check_readable(listing, [top])
    return listing


def check_readable(listing: Listing, folders: Iterable[str]) -> None:
    """Check that folders could be listed.

    Raises:
        UserError: One could not.
    """
    for folder in folders:
        if reason := listing.unreadable.get(folder):
            raise UserError(f"The folder {listing.root / folder} cannot be read: {reason}.")


def _list(listing: Listing, folder: str) -> list[str]:
    """Add the files of a folder, and return the folders in it."""
    files, folders = [], []
    with os.scandir(listing.root / folder) as entries:
        for entry in entries:
            if is_junk(entry.name) or entry.name in _NOTES:
                listing.hidden.setdefault(folder, []).append(entry.name)
            elif not _is_folder(entry):
                files.append(entry.name)
            elif not (entry.is_symlink() and _is_above(entry)):
                folders.append(f"{folder}/{entry.name}" if folder else entry.name)
    listing.files[folder] = sorted(files)
    return folders


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a folder, which is known from the listing, except of links."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _is_above(link: "os.DirEntry[str]") -> bool:
    """Return whether a link leads to a folder that it is in."""
    target = os.path.realpath(link.path)
    return PurePath(os.path.realpath(os.path.dirname(link.path))).is_relative_to(target)


def is_image_name(name: str) -> bool:
    """Return whether a file has the extension of an image."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS
