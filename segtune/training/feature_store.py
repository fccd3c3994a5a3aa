"""Where features are kept: a folder of small files that any number of processes share, or memory."""

import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

#: The ending of a record's file, and the entry with the checksum of its tensors.
_SUFFIX, _CHECKSUM = ".safetensors", "crc32"

Record = Mapping[str, Tensor]


class Store(Protocol):
    """Keeps records by name. `write` may raise OSError or MemoryError; then nothing is kept."""

    def has(self, name: str) -> bool:
        """Return whether a record may be there."""

    def read(self, name: str) -> Record | None:
        """Return a record; None if there is none, or only a damaged one."""

    def write(self, name: str, record: Record) -> None:
        """Keep a record."""


class MemoryStore:
    """Records in this process's memory."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def has(self, name: str) -> bool:
        """Return whether a record is there."""
        return name in self.records

    def read(self, name: str) -> Record | None:
        """Return a record, None if there is none."""
        return self.records.get(name)

    def write(self, name: str, record: Record) -> None:
        """Keep a record."""
        self.records[name] = {key: value.clone() for key, value in record.items()}


class FolderStore:
    """Records as files of a folder, memory-mapped when read.

    A file appears whole or not at all, so processes that write the same one do not disturb each other. The first time
    that a process reads a file it compares the checksum; a damaged or foreign file counts as missing, and is replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checked: set[str] = set()

    def has(self, name: str) -> bool:
        """Return whether the file of a record is there; a damaged one is found when it is read."""
        return (self.folder / f"{name}{_SUFFIX}").is_file()

    def read(self, name: str) -> Record | None:
        """Return a record, None if its file is missing or damaged."""
        path = self.folder / f"{name}{_SUFFIX}"
        try:
            with safe_open(path, "pt") as file:
                record = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
                checksum = (file.metadata() or {}).get(_CHECKSUM)
        except (OSError, SafetensorError, ValueError, TypeError):
            record, checksum = {}, None
        if name not in self.checked and (checksum is None or checksum != _checksum(record)):
            with suppress(OSError):
                path.unlink()
            return None
        self.checked.add(name)
        return record

    def write(self, name: str, record: Record) -> None:
        """Write a record's file.

        Raises:
            OSError: It cannot be written.
        """
        self.checked.discard(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=f".{name}.", suffix=".partial")
        os.close(handle)
        try:
            save_file(dict(record), temporary, {_CHECKSUM: _checksum(record)})
            os.replace(temporary, self.folder / f"{name}{_SUFFIX}")
        except SafetensorError as error:  # it wraps the system's error
            raise OSError(str(error)) from error
        finally:
            with suppress(OSError):
                os.unlink(temporary)


def _checksum(record: Record) -> str:
    found = 0
    for name in sorted(record):
        value = record[name]
        found = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), found)
        found = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


@dataclass(frozen=True)
class Kept:
    """What one folder of the cache keeps: `records` files, `size` in bytes, last `used` at a time since the epoch."""

    folder: Path
    records: int
    size: int
    used: float


def kept(root: Path) -> list[Kept]:
    """Return the folders of a cache, the one that was used last first; others beside them are not looked at."""
    found = []
    for folder in sorted(root.glob("*/")) if root.is_dir() else ():
        sizes = list(_sizes(folder))
        with suppress(OSError):
            found.append(Kept(folder, len(sizes), sum(sizes), folder.stat().st_mtime))
    return sorted(found, key=lambda each: -each.used)


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):
            yield path.stat().st_size


def make_room(root: Path, folder: Path, needed: int, limit: int) -> bool:
    """Remove other folders of a cache, the one that was not used for longest first, until there is room.

    Args:
        root: The cache.
        folder: The folder to keep; it counts as used now.
        needed: Bytes that it will have.
        limit: Bytes that the cache may have, and no more than the file system has left.

    Returns:
        Whether there is room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    others = [each for each in kept(root) if each.folder != folder]
    mine = sum(_sizes(folder))
    while True:
        free = shutil.disk_usage(root).free - _RESERVE
        if needed <= limit - sum(each.size for each in others) and needed - mine <= free:
            return True
        if not others or time.time() - others[-1].used < _IN_USE:
            return False
        shutil.rmtree(others.pop().folder, ignore_errors=True)


#: Bytes to leave to others on the file system, and seconds for which a folder counts as in use.
_RESERVE, _IN_USE = 2**30, 3600.0
