"""The folders of the feature cache: what they hold, how much room there is, and how they are removed.

Only folders with segtune's own description are looked at, and only its own files are removed from them.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtune.runtime.paths import expanded, user_cache
from segtune.training.feature_store import DESCRIPTION, PARTIAL, SUFFIX

#: Bytes to leave to others on the file system, and seconds for which a folder counts as in use.
_RESERVE, _IN_USE = 2**30, 3600.0


def cache_root(folder: str | None) -> Path:
    """Return the cache's folder: `cache.folder`, or `segtune/features` in the user's cache folder.

    Raises:
        UserError: It is below the home folder of nobody.
    """
    return expanded(folder, "cache.folder") if folder else user_cache("features")


@dataclass(frozen=True)
class Kept:
    """What one folder of the cache keeps.

    Attributes:
        folder: The folder.
        facts: Its description, as far as it can be read.
        images: Number of images.
        views: Number of views; 1 without augmentation.
        size: Bytes of all files.
        used: When it was last used, in seconds since the epoch.
    """

    folder: Path
    facts: Mapping[str, Any]
    images: int
    views: int
    size: int
    used: float


def kept(root: Path) -> list[Kept]:
    """Return the folders of a cache, the one that was used last first; what is not segtune's is left out."""
    try:
        with os.scandir(root) as entries:
            folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    found = []
    for folder in folders:
        with suppress(OSError):  # no description, or it has just been removed
            used = (folder / DESCRIPTION).stat().st_mtime
            files = list(_files(folder))
            names = [name.removesuffix(SUFFIX) for name, _ in files if name.endswith(SUFFIX)]
            images, views = (len({name.rpartition("-")[part] for name in names}) for part in (0, 2))
            found.append(Kept(folder, _facts(folder), images, views, sum(size for _, size in files), used))
    return sorted(found, key=lambda each: -each.used)


def _facts(folder: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the names and sizes in bytes of a folder's own files, the description last."""
    description = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.name == DESCRIPTION:
                    description.append((entry.name, entry.stat().st_size))
                elif entry.name.endswith((SUFFIX, PARTIAL)) and entry.is_file(follow_symlinks=False):
                    yield entry.name, entry.stat().st_size
    yield from description


def remove(folder: Path) -> int:
    """Remove a folder's own files, and the folder if nothing else is in it; return the bytes that this has freed."""
    freed = 0
    with suppress(OSError):
        for name, size in list(_files(folder)):
            with suppress(OSError):
                os.unlink(folder / name)
                freed += size
        folder.rmdir()
    return freed


def make_room(root: Path, folder: Path, needed: int, limit: int) -> bool:
    """Remove other folders of a cache, the one that was not used for longest first, until there is room.

    Args:
        root: The cache, which is created.
        folder: The folder to keep.
        needed: Bytes that it will have.
        limit: Bytes that the cache may have, and no more than the file system has left.

    Returns:
        Whether there is room.

    Raises:
        OSError: There is no such folder, and it cannot be created.
    """
    root.mkdir(parents=True, exist_ok=True)
    everything = kept(root)
    others = [each for each in everything if each.folder != folder]
    mine = sum(each.size for each in everything if each.folder == folder)
    while True:
        free = shutil.disk_usage(root).free - _RESERVE
        if needed <= limit - sum(each.size for each in others) and (needed <= mine or needed - mine <= free):
            return True
        if not others or time.time() - others[-1].used < _IN_USE:
            return False
        remove(others.pop().folder)
