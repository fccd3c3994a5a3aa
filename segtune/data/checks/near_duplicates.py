"""Near-duplicate images, found by the distances of their perceptual hashes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtune.data.checks.scan import SampleStats

Hashes = NDArray[np.uint64]
Indices = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]

#: Standard deviation of grey values below which a photo has no structure, so that its hash is random.
FLAT = 3.0
_BLOCK = 512
_LISTED = 1000
_BITS = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


@dataclass(frozen=True)
class NearDuplicate:
    """Two images that look alike; `distance` is in bits of 64; `mirrored` says that one is a mirror image."""

    first: SampleStats
    second: SampleStats
    distance: int
    mirrored: bool

    def __str__(self) -> str:
        """Return both names and the distance."""
        turned = ", one mirrored" if self.mirrored else ""
        return f"{self.first} and {self.second} ({self.distance} of 64 bits differ{turned})"


def near_duplicates(
    seen: Sequence[SampleStats], most: int
) -> tuple[list[NearDuplicate], list[NearDuplicate], dict[str, int]]:
    """Return near-duplicates: photos whose hashes, one perhaps mirrored, differ in at most `most` bits.

    Photos with the same pixels, and those without structure, are left out.

    Returns:
        Those across two splits, those within a split (the first thousand: frames of a film are all alike), each the
        nearest first, and the number of the latter by split.
    """
    measured = [one for one in seen if one.stats and one.stats.spread >= FLAT]
    plain, mirrored = (np.array([getattr(one.stats, name) for one in measured], np.uint64) for name in _HASHES)
    checksums = np.unique([one.checksum.hex() for one in measured], return_inverse=True)[1]
    names, splits = np.unique([one.split for one in measured], return_inverse=True)
    counts = np.zeros(len(names), np.int64)
    across, within = list[NearDuplicate](), list[NearDuplicate]()
    for i, j, distance, turned in near_pairs(plain, mirrored, most):
        other = checksums[i] != checksums[j]
        inside = other & (splits[i] == splits[j])
        counts += np.bincount(splits[i[inside]], minlength=len(names))
        kept = np.flatnonzero(inside)[: _LISTED - len(within)]
        for found, chosen in ((across, np.flatnonzero(other & ~inside)), (within, kept)):
            found += [NearDuplicate(measured[i[k]], measured[j[k]], int(distance[k]), bool(turned[k])) for k in chosen]
    for found in (across, within):
        found.sort(key=lambda each: (each.distance, str(each)))
    return across, within, {str(name): int(count) for name, count in zip(names, counts, strict=True) if count}


_HASHES = ("hash", "mirrored")


def near_pairs(plain: Hashes, mirrored: Hashes, most: int) -> Iterator[tuple[Indices, Indices, Indices, Flags]]:
    """Yield all `i < j` where `plain[i]` and `plain[j]` or `mirrored[j]` differ in at most `most` bits.

    Every pair is compared, a block of rows at a time; the search is exact.

    Yields:
        For each block the indices `i` and `j`, the smaller distance, and whether it is that of the mirror image.
    """
    for start in range(0, len(plain), _BLOCK):
        block, later = plain[start : start + _BLOCK, None], slice(start, None)
        straight, turned = _distances(block, plain[later]), _distances(block, mirrored[later])
        nearer = np.minimum(straight, turned)
        i, j = np.nonzero(np.triu(nearer <= most, k=1))
        yield start + i, start + j, nearer[i, j], turned[i, j] < straight[i, j]


def _distances(rows: Hashes, columns: Hashes) -> NDArray[np.uint8]:
    """Return the number of bits in which hashes differ; NumPy before 2.0 has no bit count."""
    different = (rows ^ columns).view(np.uint16)
    bits = _BITS[different[:, 0::4]]
    for part in range(1, 4):
        bits += _BITS[different[:, part::4]]
    return bits
