"""Check data that have not changed since an earlier check only once: resumed runs and the jobs of a sweep share it.

What a check has found is kept in the user's cache folder, under a name made of all that decides it: the files' sizes,
times and places on the disk, the splits, the rule of the foreground, and the versions of segtune and of the decoders.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from segtune.data.checks.integrity import check_data
from segtune.data.exif import has_warned
from segtune.data.labels import Foreground
from segtune.data.record import with_known, with_stamp
from segtune.data.sources.base import Pair, Problem
from segtune.errors import UserError
from segtune.runtime.files import write_atomically
from segtune.runtime.paths import user_cache
from segtune.runtime.versions import installed
from segtune.version import __version__

#: To be raised when a check finds something else than before.
_FORMAT = 1
_LIBRARIES = ("pillow", "pillow-heif", "opencv-python-headless", "numpy")
#: How many checks are kept.
_MOST = 100


def check_once(
    splits: Mapping[str, Sequence[Pair]],
    foreground: Foreground,
    *,
    workers: int,
    max_value: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Pair], list[Problem]]:
    """Return the readable pairs by name, with checksums, and all problems; see `check_data`.

    No image is decoded if a check without errors is kept and no file has changed since.
    """
    splits = {split: [with_stamp(pair) for pair in chosen] for split, chosen in splits.items()}
    path = _place(splits, foreground, max_value)
    pairs = {pair.name: pair for chosen in splits.values() for pair in chosen}
    if path and (found := _read(path, pairs)):
        return found
    seen, problems = check_data(splits, foreground, workers=workers, max_value=max_value, progress=progress)
    checked = {one.pair.name: one.pair for one in seen}
    # Warnings that are logged while a photo is decoded would be missing another time.
    if path and not has_warned() and all(problem.level == "warning" for problem in problems):
        _write(path, checked, problems)
    return checked, problems


def _place(splits: Mapping[str, Sequence[Pair]], foreground: Foreground, max_value: int | None) -> Path | None:
    """Return the file for a check of these data; None if they have no stamps, or there is no folder."""
    files: dict[str, list[Any]] = {}
    for split, pairs in splits.items():
        for pair in pairs:
            if type(pair) is not Pair or not pair.stamp:  # another kind may read more than two files
                return None
            places = os.path.abspath(pair.photo), os.path.abspath(pair.mask)
            files.setdefault(split, []).append([pair.name, *places, pair.stamp, pair.channel])
    try:
        facts_of_all = {
            "format": _FORMAT,
            "versions": installed(*_LIBRARIES) | {"segtune": __version__},
            "limit": os.environ.get("SEGTUNE_MAX_MEGAPIXELS"),
            "foreground": repr(foreground),
            "max_value": max_value,
            "files": files,
        }
        name = hashlib.blake2b(json.dumps(facts_of_all).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return user_cache("checks") / f"{name}.json"
    except (OSError, UserError):
        return None


def _read(path: Path, pairs: Mapping[str, Pair]) -> tuple[dict[str, Pair], list[Problem]] | None:
    """Return what a file holds of the check of these pairs; None if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        checksums = content["checksums"]
        found = {name: with_known(pair, checksums[name]) for name, pair in pairs.items()}
        problems = [Problem("warning", str(where), str(text)) for where, text in content["warnings"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    with suppress(OSError):
        os.utime(path)
    return found, problems


def _write(path: Path, checked: Mapping[str, Pair], problems: Sequence[Problem]) -> None:
    content = {
        "checksums": {name: pair.checksums for name, pair in checked.items()},
        "warnings": [(problem.where, problem.text) for problem in problems],
    }
    with suppress(OSError, UserError):  # then the next run checks again
        write_atomically(path, json.dumps(content).encode())
        files = sorted(path.parent.glob("*.json"), key=lambda each: each.stat().st_mtime)
        for old in files[:-_MOST]:
            old.unlink()
