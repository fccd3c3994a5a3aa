"""Names in messages: the nearest known one, and the first few of many."""

import errno

import pytest

from segtune.errors import (
    DivergedError,
    FailedError,
    Interrupted,
    LostError,
    UserError,
    close_matches,
    nearest,
    out_of_memory,
    reason_of,
    some,
)


def test_nearest() -> None:
    assert nearest("bacth_size", ["batch_size", "clip"]) == " Did you mean batch_size?"
    assert nearest("qqq", ["batch_size"]) == ""
    assert nearest("SGD", ["adam", "sgd"]) == " Did you mean sgd?"
    assert nearest("momentum", ["momentum"]) == ""  # the name itself is no help


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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (ValueError("Unable to allocate 3.2 GiB for an array"), True),
        (ValueError("Unable to allocate a license"), False),
        (RuntimeError("a bug"), False),
    ],
)
def test_memory_that_has_run_out_is_recognised(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) == expected


def test_the_reason_is_without_advice() -> None:
    assert reason_of(MemoryError()) == "MemoryError"
    text = "CUDA out of memory. Tried to allocate 2 MiB. GPU 0 has 1 GiB. Including non-PyTorch memory, this"
    assert reason_of(RuntimeError(text)) == "CUDA out of memory. Tried to allocate 2 MiB. GPU 0 has 1 GiB"
