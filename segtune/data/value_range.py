"""The range of a photo's samples: which part of 8 or 16 bits they use."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.data.images import FULL_RANGE, Photo

# Photos whose brightest sample is at most this fraction of white are nearly black, and dark.
NEARLY_BLACK, DARK = 16, 4
# A larger fraction of samples than this is no outlier, as hot pixels are.
_OUTLIERS = 0.001


@dataclass(frozen=True)
class ValueRange:
    """The range of samples.

    `depth` is 8 or 16 bits, `white` the value that is white, `largest` the largest sample, `count` their number,
    `beyond` the number above white. `by_bits` counts those of each length in bits, 0 to 16; empty for a depth of 8.
    """

    depth: int
    white: int
    largest: int
    count: int
    beyond: int = 0
    by_bits: tuple[int, ...] = ()

    def __add__(self, other: "ValueRange") -> "ValueRange":
        """Return the range of both samples, of one depth and white."""
        by_bits = tuple(a + b for a, b in zip(self.by_bits, other.by_bits, strict=True))
        largest, count = max(self.largest, other.largest), self.count + other.count
        return ValueRange(self.depth, self.white, largest, count, self.beyond + other.beyond, by_bits)

    def is_within(self, part: int) -> bool:
        """Return whether all samples are in the lowest part of the range up to white: 16 for its sixteenth."""
        return (self.largest + 1) * part <= self.white + 1

    @property
    def is_nearly_black(self) -> bool:
        """Whether the brightest sample is nearly black."""
        return self.is_within(NEARLY_BLACK)

    @property
    def usual(self) -> int:
        """The largest value of as many bits as all samples but a few outliers have."""
        counts = np.cumsum(self.by_bits)
        return (1 << int(np.searchsorted(counts, (1 - _OUTLIERS) * self.count))) - 1


def measure_range(samples: NDArray[np.uint8] | NDArray[np.uint16], max_value: int | None) -> ValueRange:
    """Return the range of a photo's samples, (H, W, 3); `max_value` is white in 16 bits, None for 65535."""
    if samples.dtype == np.uint8:
        return ValueRange(8, 255, int(samples.max()), samples.size)
    # Whole rows: OpenCV counts 16 bits several times faster than NumPy, but no channels together.
    counts = cv2.calcHist([samples.reshape(len(samples), -1)], [0], None, [FULL_RANGE + 1], [0, FULL_RANGE + 1]).ravel()
    by_bits = np.add.reduceat(counts.astype(np.int64), [0, *(1 << bits for bits in range(16))])
    white = FULL_RANGE if max_value is None else max_value
    beyond = int(counts[white + 1 :].sum())
    return ValueRange(16, white, int(np.flatnonzero(counts)[-1]), samples.size, beyond, tuple(by_bits.tolist()))


def depth_of(largest: int) -> int:
    """Return the largest value of as many bits as `largest` has: 4095 for 3000."""
    return (1 << max(1, largest.bit_length())) - 1


def remarks(photo: Photo, max_value: int | None) -> list[str]:
    """Return what a user should know of a photo that is read with `max_value` as white."""
    found = measure_range(photo.samples, max_value)
    said = []
    if photo.frames > 1:
        said.append(f"several images in one file: only the first of {photo.frames} is used")
    if found.depth == 16 and found.is_nearly_black:
        said.append(
            f"nearly black: its 16-bit values go up to {found.largest}, and {found.white} is white; if other photos do "
            f"too, set max_value={depth_of(found.largest)}"
        )
    if found.beyond:
        said.append(
            f"{found.beyond / found.count:.2%} of its values, up to {found.largest}, are above max_value={found.white} "
            "and become white"
        )
    return said
