"""What a run learns from: names and content checksums of its images and masks."""

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segtune.data.sources.base import Pair
from segtune.errors import UserError

#: Bytes of a checksum: blake2b of 128 bits, which is faster than the disk and has no collisions by chance.
_BYTES = 16
_UNREADABLE = "unreadable"
#: Nanoseconds for which a file must have been left alone: a change within one tick of the disk's clock leaves no trace.
_SETTLED = 2_000_000_000
#: The splits that a run learns from: one trains the model, the other chooses the best epoch.
_SPLITS = ("train", "val")


def with_checksums(pair: Pair, pixels: bytes) -> Pair:
    """Return a pair with the checksums of its files, which have just been read, and of the photo's decoded pixels."""
    return replace(pair, checksums=f"{_of_file(pair.photo)} {_of_file(pair.mask)} {pixels.hex()[: 2 * _BYTES]}")


def with_stamp(pair: Pair) -> Pair:
    """Return a pair with what the disk says of its files, which are then read for its checksums: places, sizes, times.

    Whatever changes a file changes the stamp. It is empty if a file is missing, or was changed so lately that it may
    change again without a trace.
    """
    return replace(pair, stamp=_stamp(pair))


def _stamp(pair: Pair) -> str:
    try:
        files = [os.stat(path) for path in (pair.photo, pair.mask)]
    except OSError:
        return ""
    if time.time_ns() - max(max(each.st_mtime_ns, each.st_ctime_ns) for each in files) <= _SETTLED:
        return ""
    facts = [(each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in files]
    return hashlib.blake2b(repr(facts).encode(), digest_size=_BYTES).hexdigest()


def is_unchanged(pair: Pair) -> bool:
    """Return whether the files of a pair still have its checksums.

    Files that still have its stamp are not read again.
    """
    if not pair.checksums or _UNREADABLE in pair.checksums:
        return False
    if pair.stamp and pair.stamp == _stamp(pair):
        return True
    return pair.checksums.startswith(f"{_of_file(pair.photo)} {_of_file(pair.mask)} ")


def with_known(pair: Pair, checksums: str) -> Pair:
    """Return a pair with checksums that `with_checksums` has computed.

    Raises:
        ValueError: They are something else.
    """
    if not re.fullmatch(r"[0-9a-f]{32} [0-9a-f]{32} [0-9a-f]{32}", checksums):
        raise ValueError(checksums)
    return replace(pair, checksums=checksums)


def content_name(pair: Pair) -> str:
    """Return a name for the contents of a checked pair, 32 hexadecimal digits."""
    return hashlib.blake2b(pair.checksums.encode(), digest_size=_BYTES).hexdigest()


def _of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_BYTES)).hexdigest()
    except OSError:  # it has vanished since it was decoded, which whoever reads it next will say
        return _UNREADABLE


@dataclass(frozen=True)
class DataRecord:
    """The images that a run trains and validates on.

    Attributes:
        folder: The run's current folder, to which its relative paths refer.
        splits: By split (`train`, `val`) and name, three checksums separated by spaces: of the photo's file, of the
            mask's file, and of the photo's pixels.
    """

    folder: str
    splits: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, splits: Mapping[str, Sequence[Pair]]) -> "DataRecord":
        """Return the record of checked pairs."""
        return cls(str(Path.cwd()), {name: {pair.name: pair.checksums for pair in splits[name]} for name in _SPLITS})

    @classmethod
    def parse(cls, content: Mapping[str, Any], where: str) -> "DataRecord":
        """Return what `plain` returned.

        Raises:
            UserError: It is something else; the message begins with `where`.
        """
        folder, splits = content.get("folder"), {name: content.get(name) for name in _SPLITS}
        if not isinstance(folder, str) or not all(map(_is_text_by_name, splits.values())):
            raise UserError(
                f"{where}: the record of its data is damaged: expected checksums by name, of train and val."
            )
        return cls(folder, splits)  # type: ignore[arg-type]

    def plain(self) -> dict[str, Any]:
        """Return the content of `data.json` and of the entry `data` of a checkpoint."""
        return {"folder": self.folder, **self.splits}

    def known(self, pairs: Sequence[Pair]) -> dict[str, list[str]]:
        """Return by split the names of those pairs whose photo it contains, under this or another name or format."""
        found = {}
        for split, files in self.splits.items():
            contents = {part for checksums in files.values() for part in _of_photo(checksums)}
            found[split] = [pair.name for pair in pairs if not contents.isdisjoint(_of_photo(pair.checksums))]
        return found


def _of_photo(checksums: str) -> list[str]:
    """Return the checksums of the photo's file and of its pixels."""
    return checksums.split()[::2]


def _is_text_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
