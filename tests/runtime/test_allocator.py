"""Memory that is kept, counted by the page faults of filling it again."""

import ctypes
import subprocess
import sys

import pytest

COUNT = """
import resource
import numpy as np
from segtune.runtime.allocator import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.empty(100_000_000, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
keep_memory()
faults()
print(usual, faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert usual > 100
    assert kept < usual / 20


def test_nothing_is_done_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    from segtune.runtime import allocator

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    allocator.keep_memory()
