"""Names in messages: the nearest known one, and the first few of many."""

import pytest

from segtune.errors import (
    DivergedError,
    FailedError,
    Interrupted,
    LostError,
    UserError,
    close_matches,
    nearest,
    some,
)


def test_nearest() -> None:
    assert nearest("bacth_size", ["batch_size", "clip"]) == " Did you mean batch_size?"
    assert nearest("qqq", ["batch_size"]) == ""


def test_close_matches_are_ordered_and_limited() -> None:
    known = ["block1", "block12", "stem", "block2"]  # likeness to block12: 12/13, 1, 2/11 or less, 12/13
    assert close_matches("block12", known, 1) == ["block12"]
    assert set(close_matches("block12", known, 9)) == {"block1", "block12", "block2"}
    assert close_matches("block12", known, 9, cutoff=0.95) == ["block12"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [("", "none"), ("a", "a"), ("abcde", "a, b, c, d, e"), ("abcdefg", "a, b, c, d, e and 2 more")],
)
def test_some(names: str, expected: str) -> None:
    assert some(iter(names)) == expected


def test_each_kind_of_error_has_its_exit_code() -> None:
    """The command line tells them by their classes: 2 for a UserError, 1 for a FailedError, 130 for an interrupt."""
    assert issubclass(LostError, UserError)
    assert issubclass(DivergedError, FailedError)
    assert not issubclass(FailedError, UserError)
    assert issubclass(Interrupted, KeyboardInterrupt)
    assert not issubclass(Interrupted, Exception)  # no `except Exception` keeps a run from stopping
