"""Paths that a user names."""

from pathlib import Path

import pytest

from segtune.errors import UserError
from segtune.runtime.paths import find_checkpoint, find_data_folder, find_folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "best.pt").touch()
    return tmp_path


def test_what_is_there_is_found(here: Path) -> None:
    assert find_folder("folder", "~/there") == here / "there"
    assert find_data_folder("there") == Path("there")
    assert find_checkpoint("~/there/best.pt") == here / "there" / "best.pt"


def test_what_is_not_there_is_named(here: Path) -> None:
    for find, expected in (
        (lambda: find_folder("folder", "no"), f"folder=no is not a folder (current folder: {here})."),
        (
            lambda: find_data_folder("there/best.pt"),
            f"data.root=there/best.pt is not a folder (current folder: {here}). Set it to the folder of your data set.",
        ),
        (lambda: find_checkpoint("no.pt"), "No checkpoint at no.pt. Expected a file such as RUN/checkpoints/best.pt."),
        (lambda: find_checkpoint("there/last.pt"), "No checkpoint at there/last.pt. There are: there/best.pt."),
    ):
        with pytest.raises(UserError) as caught:
            find()
        assert str(caught.value) == expected
