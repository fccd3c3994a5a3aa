"""Folders are listed and removed by their last use, and nothing is touched that is not segtune's."""

import os
import time
from pathlib import Path

import pytest
import torch

from segtune.errors import UserError
from segtune.training import feature_folders
from segtune.training.feature_folders import cache_root, kept, make_room, remove
from segtune.training.feature_store import DESCRIPTION, FolderStore


def old(root: Path, name: str, hours: float, records: int = 2) -> Path:
    store = FolderStore(root / name, {"of": name})
    for number in range(records):
        store.write(f"image{number}-0", {"mask": torch.zeros(50)})
    then = time.time() - 3600 * hours
    os.utime(root / name / DESCRIPTION, (then, then))
    return root / name


def foreign(root: Path) -> list[Path]:
    """Make what a user may have in a folder that a cache is put into."""
    paths = [root / "photos" / "a.jpg", root / "weights" / "b.safetensors", root / "notes.txt"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10_000)
        os.utime(path.parent, (0, 0))
    return paths


def test_folders_are_listed_by_their_last_use(tmp_path: Path) -> None:
    assert kept(tmp_path / "none") == []
    foreign(tmp_path)
    first, second = old(tmp_path, "a", 5), old(tmp_path, "b", 2, 3)
    FolderStore(first, {}).write("image0-1", {"mask": torch.zeros(50)})
    (second / DESCRIPTION).write_text("[")
    os.utime(second / DESCRIPTION, (time.time() - 60,) * 2)
    found = kept(tmp_path)
    assert [(each.folder, each.images, each.views) for each in found] == [(second, 3, 1), (first, 2, 2)]
    assert [each.facts for each in found] == [{}, {"of": "a"}]
    assert found[0].size == sum(path.stat().st_size for path in second.iterdir())
    FolderStore(first, {}).names()
    assert [each.folder for each in kept(tmp_path)] == [first, second]


def test_a_folder_is_removed_but_for_what_is_not_of_the_cache(tmp_path: Path) -> None:
    one, other = old(tmp_path, "a", 5), old(tmp_path, "b", 5)
    sizes = {each.folder: each.size for each in kept(tmp_path)}
    (other / ".a.0.partial").write_bytes(b"123")
    (other / "mine.txt").touch()
    assert remove(one) == sizes[one]
    assert remove(other) == sizes[other] + 3
    assert remove(one) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert [path.name for path in other.iterdir()] == ["mine.txt"]
    assert kept(tmp_path) == []


def test_room_is_made_by_removing_what_was_not_used_for_longest(tmp_path: Path) -> None:
    mine, others = tmp_path / "mine", foreign(tmp_path)
    oldest, older, fresh = old(tmp_path, "a", 5), old(tmp_path, "b", 2), old(tmp_path, "c", 0.1)
    size = kept(tmp_path)[0].size
    assert make_room(tmp_path, mine, size, 4 * size)  # of three others all may stay
    assert oldest.is_dir()
    assert make_room(tmp_path, mine, size, 3 * size)
    assert not oldest.exists()
    assert older.is_dir()
    assert not make_room(tmp_path, mine, size, size)  # the last one is in use
    assert not older.exists()
    assert fresh.is_dir()
    assert all(path.is_file() for path in others)


def test_a_file_system_without_space_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 2**30 + 5})
    monkeypatch.setattr(feature_folders.shutil, "disk_usage", lambda _: usage)
    others = foreign(tmp_path)
    mine = old(tmp_path, "mine", 0)
    there = kept(tmp_path)[0].size
    assert make_room(tmp_path, mine, there + 5, 10**12)
    assert not make_room(tmp_path, mine, there + 6, 10**12)
    usage.free = 0
    assert make_room(tmp_path, mine, there, 10**12)  # it lies there already
    assert all(path.is_file() for path in others)


def test_the_folder_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_root(None) == tmp_path / "x" / "segtune" / "features"
    monkeypatch.setenv("HOME", str(tmp_path / "h"))
    for value in ("", "not/absolute"):  # which the specification says to ignore
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_root(None) == tmp_path / "h" / ".cache" / "segtune" / "features"
    assert cache_root(str(tmp_path / "own")) == tmp_path / "own"
    assert cache_root("own") == Path("own")
    with pytest.raises(UserError, match=r"^cache\.folder=~nobody_1/x: there is no home folder of ~nobody_1\.$"):
        cache_root("~nobody_1/x")
