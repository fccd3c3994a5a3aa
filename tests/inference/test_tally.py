"""What is said of images that fail, and that they end nothing."""

from pathlib import Path

import pytest

from segtune.errors import FailedError, UserError
from segtune.inference.tally import Tally, count, reason


def test_failures_are_said_at_once_and_counted_by_stage(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally("frame")
    tally.fail("written", "3", "frame 3: the disk is full")
    tally.fail("read", "1", "frame 1: damaged")
    tally.fail("read", "2", "frame 2: damaged")
    assert capsys.readouterr().out.splitlines() == [
        "not written: frame 3: the disk is full",
        "skipped: frame 1: damaged",
        "skipped: frame 2: damaged",
    ]
    with pytest.raises(FailedError) as error:
        tally.check(5, ["The film is damaged."])
    assert str(error.value) == (
        "2 of 5 frames could not be read: 1, 2.\n1 of 5 frames could not be written: 3.\nThe film is damaged."
    )


def test_nothing_failed() -> None:
    Tally("image").check(3)


def test_files_that_exist_or_vanish(tmp_path: Path) -> None:
    tally = Tally("image")
    tally.write(tmp_path / "a.png", b"a", overwrite=False)
    with pytest.raises(UserError, match=r"a\.png exists already: another input has the same name\. Rename one of them"):
        tally.write(tmp_path / "a.png", b"b", overwrite=False)
    assert (tmp_path / "a.png").read_bytes() == b"a"
    tally.write(tmp_path / "a.png", b"c", overwrite=True)
    tally.check(1)
    (tmp_path / "a.png").unlink()
    with pytest.raises(FailedError, match=r"^1 result no longer there, deleted or moved in between: .*a\.png\.$"):
        tally.check(1)


def test_words() -> None:
    assert [count(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert reason(UserError("no")) == "no"
    assert reason(ValueError("odd")) == "ValueError: odd"
    assert reason(MemoryError()) == "MemoryError"
