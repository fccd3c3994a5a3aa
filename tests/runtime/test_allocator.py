"""Memory that is kept, counted by the page faults of filling it again, and returned at the end."""

import subprocess
import sys

import pytest

from segtune.runtime import allocator

COUNT = """
import resource
from pathlib import Path
import numpy as np
from segtune.runtime.allocator import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.empty(100_000_000, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 10**6

usual, at_first = faults(), megabytes()
with kept_memory():
    faults()
    kept, held = faults(), megabytes() - at_first
print(usual, kept, faults(), held, megabytes() - at_first)
"""
glibc = pytest.mark.skipif(not allocator._is_glibc(), reason="the C library is not glibc")


@glibc
def test_freed_memory_is_used_again_and_returned_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    usual, kept, after, held, left = map(int, done.stdout.split())
    assert min(usual, after) > 100
    assert kept < usual / 4  # how many there are depends on the size of pages
    assert held > 90
    assert left < 20


@glibc
def test_what_was_kept_is_returned_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[dict[int, int]] = []
    monkeypatch.setattr(allocator, "_set", lambda _, given: values.append(given))
    with pytest.raises(ValueError, match="wrong"), allocator.kept_memory():
        raise ValueError("wrong")
    assert len(values) == 2


def test_nothing_is_done_without_glibc_or_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_set", lambda *_: pytest.fail("memory is kept"))
    with allocator.kept_memory(enabled=False):
        pass
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    with allocator.kept_memory():
        pass
