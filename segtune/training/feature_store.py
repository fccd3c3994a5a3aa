"""Where features are kept: a folder of small files that any number of processes share, or memory."""

import json
import os
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

#: The file that makes a folder one of the cache, and says what it holds; it is touched when the folder is used.
DESCRIPTION = "segtune-features.json"
#: The endings of a record's file, and of one that is being written.
SUFFIX, PARTIAL = ".safetensors", ".partial"
#: The entry with the checksum of a record's tensors.
_CHECKSUM = "crc32"

Record = Mapping[str, Tensor]


class Store(Protocol):
    """Keeps records by name. `write` may raise OSError or MemoryError; then nothing is kept."""

    def names(self) -> Collection[str]:
        """Return the names of the records that may be there; they count as used now."""

    def read(self, name: str) -> Record | None:
        """Return a record; None if there is none, or only a damaged one."""

    def write(self, name: str, record: Record) -> None:
        """Keep a record."""


class MemoryStore:
    """Records in this process's memory."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def names(self) -> Collection[str]:
        """Return the names of the records."""
        return self.records.keys()

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

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        """Create a store; `description` are plain values that say what the records are of."""
        self.folder, self.description = folder, description
        self.checked: set[str] = set()

    def names(self) -> Collection[str]:
        """Return the names of the files that are there; a damaged one is found when it is read."""
        with suppress(OSError):  # others may not touch it
            os.utime(self.folder / DESCRIPTION)
        try:
            with os.scandir(self.folder) as entries:
                return {entry.name.removesuffix(SUFFIX) for entry in entries if entry.name.endswith(SUFFIX)}
        except OSError:
            return ()

    def read(self, name: str) -> Record | None:
        """Return a record, None if its file is missing or damaged."""
        path = self.folder / f"{name}{SUFFIX}"
        try:
            with safe_open(path, "pt") as file:
                record = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
                checksum = (file.metadata() or {}).get(_CHECKSUM)
            if name in self.checked or checksum == _checksum(record):
                self.checked.add(name)
                return record
        except OSError:  # it is gone, or may not be read
            return None
        except (SafetensorError, ValueError, TypeError):
            pass
        self.discard(name)
        return None

    def discard(self, name: str) -> None:
        """Remove a record's file, if it can be."""
        with suppress(OSError):
            (self.folder / f"{name}{SUFFIX}").unlink()

    def write(self, name: str, record: Record) -> None:
        """Write a record's file.

        Raises:
            OSError: It cannot be written.
        """
        self.checked.discard(name)
        self.describe()
        self._replace(f"{name}{SUFFIX}", save(dict(record), {_CHECKSUM: _checksum(record)}))

    def describe(self) -> None:
        """Create the folder with its description, unless it is there: others may have removed it.

        Raises:
            OSError: It cannot be created.
        """
        if not (self.folder / DESCRIPTION).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._replace(DESCRIPTION, (json.dumps(self.description, indent=2) + "\n").encode())

    def _replace(self, name: str, content: bytes) -> None:
        """Write a file that appears whole or not at all; it is not synced, so a crash of the system may damage it."""
        temporary = self.folder / f".{name}.{uuid4().hex}{PARTIAL}"
        try:
            temporary.write_bytes(content)
            temporary.replace(self.folder / name)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _checksum(record: Record) -> str:
    found = 0
    for name in sorted(record):
        value = record[name]
        found = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), found)
        found = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"
