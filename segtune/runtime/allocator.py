"""What the C library does with memory that PyTorch gives back."""

import ctypes

#: Parameters of glibc's `mallopt` (its header malloc.h), and their values here.
_PARAMETERS = {
    -4: 0,  # M_MMAP_MAX: no block is a mapping of its own, which would be returned as soon as it is free
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: only more than 2 GiB free at the end are returned
    -2: 64 * 2**20,  # M_TOP_PAD: what is fetched beyond a request
}


def keep_memory() -> None:
    """Let this process keep the memory that it frees, for the next step; without glibc nothing changes.

    A training step on a CPU frees its tensors, and glibc returns large ones to the system, which must then clear their
    pages again in every step. Kept, they cost a part more memory at the peak and save time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return
    for parameter, value in _PARAMETERS.items():
        mallopt(parameter, value)
