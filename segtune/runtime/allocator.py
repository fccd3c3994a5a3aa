"""What the C library does with memory that PyTorch gives back."""

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Parameters of glibc's `mallopt`, as in its header malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_MIB = 2**20
_KEPT = {
    _MMAP_MAX: 0,  # no block is a mapping of its own, which would be returned as soon as it is free
    _TRIM_THRESHOLD: 2**31 - 1,
    _TOP_PAD: 64 * _MIB,
}
#: What glibc comes to by itself in a process that has freed large blocks; it stops adapting once a value is set.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * _MIB, _TRIM_THRESHOLD: 64 * _MIB, _TOP_PAD: _MIB // 8}


@contextmanager
def kept_memory(*, enabled: bool = True) -> Iterator[None]:
    """Inside the block, let this process keep the memory that it frees; at its end, return what is free to the system.

    A training step on a CPU frees its tensors, and glibc returns large ones to the system, which must then clear their
    pages again in every step. Kept, they cost some more memory at the peak and save that time. Without glibc, or if not
    `enabled`, nothing changes.
    """
    if not enabled or not _is_glibc():
        yield
        return
    library = ctypes.CDLL(None)
    try:
        _set(library, _KEPT)
        yield
    finally:
        _set(library, _USUAL)
        library.malloc_trim(0)


def _is_glibc() -> bool:
    return sys.platform == "linux" and all(hasattr(ctypes.CDLL(None), name) for name in ("mallopt", "malloc_trim"))


def _set(library: ctypes.CDLL, values: Mapping[int, int]) -> None:
    for parameter, value in values.items():
        library.mallopt(parameter, value)
