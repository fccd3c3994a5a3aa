"""Records come back as they were, or not at all."""

import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segtune.training import feature_store
from segtune.training.feature_store import FolderStore, MemoryStore, Store, kept, make_room


def record(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "relu torch.bfloat16": torch.randn(4, 5, 6, generator=generator).to(torch.bfloat16),
        "scalar torch.float32": torch.randn((), generator=generator),
        "mask": (torch.randn(1, 8, 8, generator=generator) > 0).to(torch.uint8),
    }


def equal(one: dict[str, torch.Tensor] | None, other: dict[str, torch.Tensor]) -> bool:
    return one is not None and one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in other)


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_a_record_comes_back(kind: str, tmp_path: Path) -> None:
    store: Store = MemoryStore() if kind == "memory" else FolderStore(tmp_path / "new")
    assert not store.has("a-0")
    assert store.read("a-0") is None
    given = record()
    store.write("a-0", given)
    given["mask"].zero_()  # what is kept is a copy
    assert store.has("a-0")
    assert equal(store.read("a-0"), record())
    store.write("a-0", record(1))
    assert equal(store.read("a-0"), record(1))
    if kind == "folder":
        assert equal(FolderStore(tmp_path / "new").read("a-0"), record(1))
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["a-0.safetensors"]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: save_file(record(), path),  # without a checksum: of another program
        lambda path: save_file(record(1), path, {"crc32": "00000000"}),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["bit", "cut short", "empty", "garbage", "foreign", "checksum", "folder"],
)
def test_a_damaged_file_counts_as_missing_and_is_replaced(damage: object, tmp_path: Path) -> None:
    FolderStore(tmp_path).write("a-0", record())
    damage(tmp_path / "a-0.safetensors")
    store = FolderStore(tmp_path)
    assert store.read("a-0") is None
    if (tmp_path / "a-0.safetensors").is_dir():
        return
    assert not store.has("a-0")
    store.write("a-0", record())
    assert equal(store.read("a-0"), record())


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_store, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        FolderStore(tmp_path).write("a-0", record())
    assert list(tmp_path.iterdir()) == []


def write_many(folder: Path, start: int) -> None:
    store = FolderStore(folder)
    for number in range(start, start + 40):
        store.write(f"{number % 20}-0", record(number % 20))


def test_processes_that_write_the_same_records_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=write_many, args=(tmp_path, start)) for start in (0, 7)]
    for each in others:
        each.start()
    write_many(tmp_path, 13)
    for each in others:
        each.join()
        assert each.exitcode == 0
    store = FolderStore(tmp_path)
    assert all(equal(store.read(f"{number}-0"), record(number)) for number in range(20))
    assert len(list(tmp_path.iterdir())) == 20


def old(root: Path, name: str, hours: float, records: int = 2) -> Path:
    for number in range(records):
        FolderStore(root / name).write(f"{number}-0", record(number))
    then = time.time() - 3600 * hours
    os.utime(root / name, (then, then))
    return root / name


def test_folders_are_listed_by_their_last_use(tmp_path: Path) -> None:
    assert kept(tmp_path / "none") == []
    first, second = old(tmp_path, "a", 5), old(tmp_path, "b", 2, 3)
    (tmp_path / "file").touch()
    found = kept(tmp_path)
    assert [(each.folder, each.records) for each in found] == [(second, 3), (first, 2)]
    assert found[0].size == sum(path.stat().st_size for path in second.iterdir())


def test_room_is_made_by_removing_what_was_not_used_for_longest(tmp_path: Path) -> None:
    oldest, older, fresh = old(tmp_path, "a", 5), old(tmp_path, "b", 2), old(tmp_path, "c", 0.1)
    size = kept(tmp_path)[0].size
    mine = tmp_path / "mine"
    assert make_room(tmp_path, mine, size, 4 * size)  # of three others all may stay
    assert oldest.is_dir()
    assert make_room(tmp_path, mine, size, 3 * size)
    assert not oldest.exists()
    assert older.is_dir()
    assert not make_room(tmp_path, mine, size, size)  # the last one is in use
    assert not older.exists()
    assert fresh.is_dir()
    assert time.time() - mine.stat().st_mtime < 60


def test_a_file_system_without_space_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 2**30 + 5})
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: usage)
    assert make_room(tmp_path, tmp_path / "mine", 5, 10**12)
    assert not make_room(tmp_path, tmp_path / "mine", 6, 10**12)
