"""Records come back as they were, or not at all."""

import errno
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segtune.training import feature_store
from segtune.training.feature_store import DESCRIPTION, FolderStore, MemoryStore, Store

FACTS = {"backbone": "none", "size": [8, 8]}


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
    store: Store = MemoryStore() if kind == "memory" else FolderStore(tmp_path / "new", FACTS)
    assert "a-0" not in store.names()
    assert store.read("a-0") is None
    given = record()
    store.write("a-0", given)
    given["mask"].zero_()  # what is kept is a copy
    assert list(store.names()) == ["a-0"]
    assert equal(store.read("a-0"), record())
    store.write("a-0", record(1))
    assert equal(store.read("a-0"), record(1))
    if kind == "folder":
        assert equal(FolderStore(tmp_path / "new", FACTS).read("a-0"), record(1))
        assert {path.name for path in (tmp_path / "new").iterdir()} == {"a-0.safetensors", DESCRIPTION}
        assert json.loads((tmp_path / "new" / DESCRIPTION).read_text(encoding="utf-8")) == FACTS
        (tmp_path / "new" / "a-0.safetensors").unlink()
        assert store.read("a-0") is None  # although it was checked before


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
    FolderStore(tmp_path, FACTS).write("a-0", record())
    damage(tmp_path / "a-0.safetensors")
    store = FolderStore(tmp_path, FACTS)
    assert store.read("a-0") is None
    if (tmp_path / "a-0.safetensors").is_dir():
        return
    assert "a-0" not in store.names()
    store.write("a-0", record())
    assert equal(store.read("a-0"), record())


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = FolderStore(tmp_path, FACTS)
    store.describe()
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        store.write("a-0", record())
    assert [path.name for path in tmp_path.iterdir()] == [DESCRIPTION]


def test_a_folder_that_others_have_removed_is_made_anew(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "one", FACTS)
    store.write("a-0", record())
    shutil.rmtree(tmp_path / "one")
    assert not store.names()
    assert store.read("a-0") is None
    store.write("a-0", record())
    assert equal(store.read("a-0"), record())
    assert (tmp_path / "one" / DESCRIPTION).is_file()


def test_a_file_that_cannot_be_opened_now_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FolderStore(tmp_path, FACTS).write("a-0", record())

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(feature_store, "safe_open", refuse)
        assert FolderStore(tmp_path, FACTS).read("a-0") is None
    assert equal(FolderStore(tmp_path, FACTS).read("a-0"), record())


def test_others_may_read_what_one_has_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        FolderStore(tmp_path / "new", FACTS).write("a-0", record())
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o644}


def write_many(folder: Path, start: int) -> None:
    store = FolderStore(folder, FACTS)
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
    store = FolderStore(tmp_path, FACTS)
    assert all(equal(store.read(f"{number}-0"), record(number)) for number in range(20))
    assert len(list(tmp_path.iterdir())) == 21  # and the description
