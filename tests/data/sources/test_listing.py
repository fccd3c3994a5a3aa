"""The files below a folder."""

import os
from pathlib import Path

import pytest

from segtune.data.sources import listing as module
from segtune.data.sources.listing import check_readable, walk
from segtune.errors import UserError
from tests.data.layouts.small_set import put


def test_files_are_listed_by_folder_without_what_systems_leave(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.TXT", ".hidden", "Thumbs.db", ".git/x", "__MACOSX/y", "p/q/c.png", "p/e/.x"):
        put(tmp_path, name)
    found = walk(tmp_path)
    assert found.files == {"": ["a.TXT", "b.jpg"], "p": [], "p/e": [], "p/q": ["c.png"]}
    assert (found.images(""), found.contents(""), found.contents("p")) == (
        ["b.jpg"],
        ["a.TXT", "b.jpg", "p/"],
        ["e/", "q/"],
    )
    assert walk(tmp_path, ["p/q", "p"]).files.keys() == {"p", "p/e", "p/q"}


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    put(tmp_path, "data/images/a.jpg")
    put(tmp_path, "elsewhere/b.jpg")
    (tmp_path / "data/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/images/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "data/loop.jpg").symlink_to("loop.jpg")
    assert walk(tmp_path / "data").files == {"": ["gone.jpg", "loop.jpg"], "images": ["a.jpg"], "more": ["b.jpg"]}


def test_no_file_is_asked_for_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "images/a.jpg")
    monkeypatch.setattr(os, "stat", lambda *_, **__: pytest.fail("a file was asked"))
    assert walk(tmp_path).files["images"] == ["a.jpg"]


def test_folders_that_cannot_be_read_or_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/x.jpg", "b/y.jpg"):
        put(tmp_path, name)
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = walk(tmp_path)
    assert (found.files, found.unreadable) == ({"": [], "a": ["x.jpg"]}, {"b": "Permission denied"})
    with pytest.raises(UserError, match=r"^The folder .*/b cannot be read: Permission denied\.$"):
        check_readable(found, ["a", "b"])
    monkeypatch.setattr(module, "_MOST", 1)
    with pytest.raises(UserError, match=r"has more than 1 folders\. Set data\.root to the folder of the data set"):
        walk(tmp_path)
