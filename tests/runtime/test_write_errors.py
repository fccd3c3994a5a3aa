"""Each error of writing, met for real where no privilege is needed, and otherwise raised."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segtune.errors import UserError, WriteError
from segtune.runtime.files import replacing, write_atomically
from segtune.runtime.write_errors import cause_of, is_of_writing, naming_write_errors, why


def said(error: BaseException) -> str:
    with pytest.raises(WriteError) as raised, naming_write_errors("masks/a.png"):
        raise error
    return str(raised.value)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "the disk is full ("),
        (errno.EDQUOT, "your disk quota is used up ("),
        (
            errno.EACCES,
            "permission denied (Permission denied): write to a folder of your own, or change its permissions.",
        ),
        (errno.EROFS, "the file system is read-only ("),
        (
            errno.EIO,
            "the disk reports an input/output error (Input/output error): the disk or its network may be failing",
        ),
        (errno.ESTALE, "the network file system has lost the folder ("),
        (errno.ENOENT, "its folder does not exist (No such file or directory): was it deleted or unmounted? Create it"),
        (errno.EDOM, os.strerror(errno.EDOM) + "."),
    ],
)
def test_the_reason_is_that_of_the_system_with_what_to_do(number: int, expected: str) -> None:
    text = said(OSError(number, os.strerror(number), "masks/.a.partial"))
    assert text.startswith(f"Cannot write masks/a.png: {expected}")
    assert ("the disk is full" in text) == (number == errno.ENOSPC)


def folder_there(path: Path) -> None:
    path.mkdir()


def file_in_the_way(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def deleted_meanwhile(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (folder_there, "there is a folder of this name (Is a directory): move it away, or choose another name."),
        (file_in_the_way, "a part of the path is a file, not a folder (File exists): move it away, or choose another"),
    ],
)
def test_a_path_that_cannot_be_written(tmp_path: Path, prepare: Callable[[Path], None], expected: str) -> None:
    path = tmp_path / "out" / "a.json"
    path.parent.mkdir()
    prepare(path)
    with pytest.raises(UserError) as error:
        write_atomically(path, b"x")
    assert str(error.value).startswith(f"Cannot write {path}: {expected}")
    assert not list(tmp_path.rglob("*.partial"))


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the name is too long for the file system \(File name too long\): choose a"):
        write_atomically(tmp_path / ("a" * 300), b"x")


def test_a_folder_that_is_deleted_while_the_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.json"
    with pytest.raises(UserError, match="its folder does not exist"), replacing(path) as temporary:  # noqa: PT012
        temporary.unlink()
        path.parent.rmdir()
        temporary.write_bytes(b"x")


def test_a_limit_of_the_shell_is_not_a_full_disk(tmp_path: Path) -> None:
    """As in torch.save, whose writer hides the error of the file in one of its own."""
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(UserError) as error, replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(torch.zeros(100_000), file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(error.value) == (
        f"Cannot write {path}: the file would be larger than allowed (File too large): look at the limit of this shell "
        "(ulimit -f) or of the file system, or write elsewhere.\nThe old file is untouched."
    )
    assert path.read_bytes() == b"old"


def test_an_error_of_what_is_computed_passes(tmp_path: Path) -> None:
    bug = RuntimeError("a bug")
    with pytest.raises(RuntimeError) as error, replacing(tmp_path / "a"):
        raise bug
    assert error.value is bug
    assert list(tmp_path.iterdir()) == []


def test_the_cause_is_found_behind_other_errors() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    writer = RuntimeError("PytorchStreamWriter failed writing file")
    writer.__context__ = full
    assert cause_of(writer) is full
    assert said(writer).startswith("Cannot write masks/a.png: the disk is full")
    assert said(RuntimeError("PytorchStreamWriter failed")) == "Cannot write masks/a.png: PytorchStreamWriter failed"
    assert why(OSError("odd")) == "odd."
    assert (is_of_writing(full), is_of_writing(OSError(errno.ENOENT, "gone")), is_of_writing(writer)) == (
        True,
        False,
        False,
    )
