"""Where formats find photos: paths, and links beside the annotations."""

import os
from pathlib import Path

import pytest

from segtune.errors import UserError
from segtune.inference.annotations.base import relative_to
from segtune.inference.annotations.labelme import Labelme
from segtune.inference.annotations.yolo import Yolo
from segtune.inference.inputs import Source


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(b"photo")
    return path


def test_the_path_to_a_photo_holds_behind_links(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "deep" / "below").mkdir(parents=True)
    (tmp_path / "short").symlink_to(tmp_path / "deep" / "below")
    path = relative_to(photo, tmp_path / "short")
    assert path == "../../photos/a.jpg"
    assert (tmp_path / "short" / path).read_bytes() == b"photo"
    assert relative_to(photo, photo.parent) == "a.jpg"


def test_a_link_to_a_photo_is_made_and_renewed(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    link, other = tmp_path / "yolo" / "images" / "x" / "a.jpg", tmp_path / "b.jpg"
    other.write_bytes(b"other")
    for source, content in ((Path("photos/a.jpg"), b"photo"), (other, b"other"), (other, b"other")):
        Yolo(Path("yolo"), "skin").link(Source(source, "x/a"))
        assert (link.is_symlink(), link.read_bytes()) == (True, content)
        assert not os.path.isabs(os.readlink(link))
    other.unlink()
    Yolo(Path("yolo"), "skin").link(Source(Path("photos/a.jpg"), "x/a"))  # one that leads nowhere
    assert link.read_bytes() == b"photo"


def test_a_photo_that_is_there_already_needs_no_link(photo: Path) -> None:
    Labelme(photo.parent, "skin").link(Source(photo, "a"))
    assert (photo.is_symlink(), photo.read_bytes()) == (False, b"photo")


def test_a_copy_where_the_system_has_no_links(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    formats = Yolo(tmp_path / "yolo", "skin")
    copy = tmp_path / "yolo" / "images" / "a.jpg"
    for content in (b"photo", b"another"):
        photo.write_bytes(content)
        formats.link(Source(photo, "a"))
        assert (copy.is_symlink(), copy.read_bytes()) == (False, content)
    photo.unlink()
    with pytest.raises(UserError, match=r"Cannot write .*a\.jpg: its folder does not exist"):
        formats.link(Source(photo, "a"))
