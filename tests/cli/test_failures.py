"""Errors of the machine, in every command and on the way to it."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from segtune.cli.failures import as_failure
from segtune.errors import UserError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("Unable to allocate 3 GiB"), "Out of memory: Unable to allocate 3 GiB. Try smaller images ("),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/log"),
            "Cannot read or write runs/log: the disk is full (No space left on device): free some space",
        ),
        (
            OSError(errno.EIO, "Input/output error"),
            "Cannot read or write the output: the disk reports an input/output error (Input/output error): ",
        ),
    ],
)
def test_errors_of_the_machine_are_messages(error: Exception, expected: str) -> None:
    assert str(as_failure(error)).startswith(expected)


@pytest.mark.parametrize("error", [UserError("out of memory"), KeyError("x"), OSError(errno.ENOENT, "gone")])
def test_other_errors_are_not(error: Exception) -> None:
    assert as_failure(error) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_an_output_that_is_full_is_a_message(arguments: list[str]) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "segtune", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "segtune: cannot write the output: No space left on device\n"
