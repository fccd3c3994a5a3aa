import os
import pickle
import re
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from segtune import checkpoint
from segtune.config import UserError


def content(**more):
    return {"settings": {"seed": 0}, "model": {"weight": torch.arange(6.0).reshape(2, 3)}, **more}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    checkpoint.save(path, content(state={"rows": [{"epoch": 1, "loss": 0.5}]}))
    loaded = checkpoint.load(path)
    assert torch.equal(loaded["model"]["weight"], torch.arange(6.0).reshape(2, 3))
    assert loaded["state"] == {"rows": [{"epoch": 1, "loss": 0.5}]}
    assert sorted(os.listdir(path.parent)) == ["last.pt"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, content())
    before = path.read_bytes()

    def full(_: object, file: BinaryIO) -> None:
        file.write(b"half a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError) as error:
        checkpoint.save(path, content())
    assert str(error.value) == (
        f"Cannot write {path}: [Errno 28] No space left on device\n"
        "What was there before is untouched. If the disk is full, free some space; a run can then be resumed."
    )
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_file_keeps_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        checkpoint.write_atomically(tmp_path / "a.json", b"{}")
    finally:
        os.umask(old)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_a_missing_checkpoint_names_those_that_are_there(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "best.pt", content())
    with pytest.raises(
        UserError, match=re.escape(f"No checkpoint at {tmp_path / 'bst.pt'}. There are: {tmp_path / 'best.pt'}.")
    ):
        checkpoint.load(tmp_path / "bst.pt")
    with pytest.raises(UserError, match=r"Expected a file such as RUN/checkpoints/best\.pt\."):
        checkpoint.load(tmp_path / "nowhere" / "best.pt")


@pytest.mark.parametrize("damage", ["text", "empty", "truncated"])
def test_an_unreadable_checkpoint_is_said_so(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "best.pt"
    checkpoint.save(path, content())
    whole = path.read_bytes()
    path.write_bytes({"text": b"hello, not a checkpoint", "empty": b"", "truncated": whole[: len(whole) // 2]}[damage])
    with pytest.raises(UserError, match=re.escape(f"Cannot read the checkpoint {path}: ")):
        checkpoint.load(path)


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="is not a checkpoint of segtune: it lacks the entries 'settings' and 'model'"):
        checkpoint.load(tmp_path / "other.pt")


def test_another_format_is_refused(tmp_path: Path) -> None:
    torch.save(content(format=99), tmp_path / "new.pt")
    with pytest.raises(UserError, match="has checkpoint format 99; this version of segtune reads format 2"):
        checkpoint.load(tmp_path / "new.pt")


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("writer", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
def test_a_checkpoint_with_code_runs_nothing_and_is_refused(tmp_path: Path, writer) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    writer(content(extra=Payload(target)), path)
    with pytest.raises(UserError, match="Cannot read the checkpoint"):
        checkpoint.load(path)
    assert not target.exists()
