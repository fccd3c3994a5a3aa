"""Read every pair once: its problems, and the statistics that checks of the whole data set need."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtune.data.checks.grey_edges import areas_and_edges
from segtune.data.images import ImageError, read_mask, read_photo
from segtune.data.labels import Foreground, Mask, Value
from segtune.data.orientation import SIDEWAYS, size_mismatch
from segtune.data.record import with_checksums
from segtune.data.sources.base import Pair, Problem, place
from segtune.data.value_range import ValueRange, measure_range
from segtune.metrics import VOID

T = TypeVar("T")
Sizes = NDArray[np.int32]


@dataclass(frozen=True)
class ImageStats:
    """Statistics of a pair that take longer, for the command `check`.

    `hash` is the photo's perceptual hash of 64 bits and `mirrored` that of its mirror image; `spread` is the standard
    deviation of its grey values. `areas` and `sides` are of the mask's objects at the network's size, in pixels.
    """

    hash: int
    mirrored: int
    spread: float
    areas: Sizes
    sides: Sizes


def image_stats(photo: NDArray[np.uint8], mask: NDArray[np.bool_], size: tuple[int, int]) -> ImageStats:
    """Return the statistics of a photo (H, W, 3) and its foreground (H, W); objects are measured at `size`."""
    grey = np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), np.uint8)
    spread = float(cv2.meanStdDev(grey)[1].item())
    areas, sides = measure_objects(mask, size)
    return ImageStats(*hashes(grey), spread, areas, sides)


def hashes(grey: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the perceptual hash of a grey image (H, W) and of its mirror image, 64 bits each.

    The hash is ImageHash's pHash: which of the lowest frequencies of a cosine transform exceed their median.
    """
    # pHash works at 32 x 32: resize once for both, by area averaging, which is fastest.
    small = Image.fromarray(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA))
    mirrored = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return int(str(imagehash.phash(small)), 16), int(str(imagehash.phash(mirrored)), 16)


def measure_objects(mask: NDArray[np.bool_], size: tuple[int, int]) -> tuple[Sizes, Sizes]:
    """Measure the objects of a mask resized to `size` (height, width), as the network gets it.

    An object is an 8-connected component.

    Returns:
        For each object its area and the longer side of its bounding box, in pixels at `size`.
    """
    small = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    boxes = cv2.connectedComponentsWithStats(small, connectivity=8)[2][1:]  # the first component is the background
    longer = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(1, initial=0)
    return boxes[:, cv2.CC_STAT_AREA].astype(np.int32), longer.astype(np.int32)


# Smaller images hold nothing to learn from: they are placeholders or failed thumbnails.
_LEAST_SIDE = 8
# A photo looks like a mask when all but a few pixels, in all channels, are close to one of two distant values.
_EDGE, _APART, _FEW = 12, 60, 0.005
# A mask shows its photo when it has so many greys, which differ by so little on average, and so much the same way.
_MANY, _CLOSE, _ALIKE = 16, 3, 0.98


@dataclass(frozen=True)
class SampleStats:
    """Statistics of a readable pair: a few bytes, so that any number of pairs fits in memory.

    `size` is the photo's height and width, `values` are the mask's, `fraction` is that of its foreground (0 to 1), and
    `border` the fraction of the image's border that is foreground. Void pixels are left out of them: `void` is their
    fraction of the image, `void_values` are those of their values that the settings name. `area_values` and
    `edge_values` are how many of the grey values between the mask's darkest and brightest fill areas, and how many lie
    on slopes: see `areas_and_edges`. `orientations` (1 to 8) and `frames` (images in the file) are of the files of
    photo and mask, `range` is of the photo's samples.
    """

    split: str
    pair: Pair
    checksum: bytes
    size: tuple[int, int]
    values: tuple[Value, ...]
    fraction: float
    stats: ImageStats | None = None
    border: float = 0.0
    area_values: int = 0
    edge_values: int = 0
    orientations: tuple[int, int] = (1, 1)
    frames: tuple[int, int] = (1, 1)
    range: ValueRange | None = None
    void: float = 0.0
    void_values: tuple[Value, ...] = ()

    @property
    def turned_apart(self) -> bool:
        """Whether the files' orientations turn photo and mask differently, and sizes do not tell if that is right.

        They would tell if without the orientations they differed.
        """
        photo, mask = self.orientations
        swaps = (photo in SIDEWAYS) != (mask in SIDEWAYS)
        return photo != mask and (not swaps or self.size[0] == self.size[1])

    def __str__(self) -> str:
        return f"{self.split} {self.pair.name}"


def scan(
    splits: Mapping[str, Sequence[Pair]],
    foreground: Foreground,
    *,
    workers: int,
    max_value: int | None = None,
    sizes: Mapping[str, tuple[int, int] | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[SampleStats], list[Problem]]:
    """Read every pair once.

    Args:
        splits: The pairs by split name.
        foreground: The rule for which mask values are foreground.
        workers: Threads, at least one (Pillow and OpenCV work without the global interpreter lock).
        max_value: The 16-bit value that is white in photos; None for 65535.
        sizes: By split, the height and width at which objects are measured, None for those of each image; without
            `sizes` no image statistics are collected.
        progress: Called in this thread after each pair with the number of pairs done and in all.

    Returns:
        Statistics of the readable pairs, in their order, and the problems of single files.
    """
    pairs = [(split, pair) for split, chosen in splits.items() for pair in chosen]
    seen: list[SampleStats] = []
    problems: list[Problem] = []
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        scanned = pool.map(lambda item: _scan_pair(item[0], item[1], foreground, max_value, sizes), pairs)
        for done, (found, wrong) in enumerate(scanned, start=1):
            seen += found
            problems += wrong
            if progress:
                progress(done, len(pairs))
    finally:
        pool.shutdown(cancel_futures=True)  # else Ctrl-C would first wait for every pair
    return seen, problems


def _scan_pair(
    split: str,
    pair: Pair,
    foreground: Foreground,
    max_value: int | None,
    sizes: Mapping[str, tuple[int, int] | None] | None,
) -> tuple[list[SampleStats], list[Problem]]:
    problems: list[Problem] = []
    loaded = _read(pair.load_photo, pair.photo, problems)
    loaded_mask = _read(pair.load_mask, pair.mask, problems)
    if loaded is None:
        return [], problems
    photo, mask = loaded.pixels(max_value), loaded_mask.mask if loaded_mask else None
    if mask is None and _is_copy(photo, pair.mask, max_value):
        problems = [_copied(pair)]
    else:
        problems += _photo_problems(pair, photo, mask, foreground)
    if loaded_mask is None or mask is None or min(photo.shape[:2]) < _LEAST_SIDE:
        return [], problems
    orientations = loaded.orientation, loaded_mask.orientation
    if photo.shape[:2] != mask.array.shape:
        problems.append(Problem("error", pair.name, size_mismatch(photo.shape[:2], mask.array.shape, *orientations)))
    elif _is_grey_copy(photo, mask):
        problems.append(_copied(pair))
    values, void_values = _values(mask, foreground)
    labels = foreground(mask)
    inside, void = labels == 1, labels == VOID
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    checksum = hashlib.sha256(repr(photo.shape).encode())
    checksum.update(loaded.samples.data)
    stats = None if sizes is None else image_stats(photo, inside, sizes[split] or inside.shape)
    of_mask = _fraction(labels), stats, _fraction(border), *areas_and_edges(mask, values, void)
    of_files = orientations, (loaded.frames, loaded_mask.frames), measure_range(loaded.samples, max_value)
    facts = *of_mask, *of_files
    pair = with_checksums(pair, checksum.digest())
    of_void = int(np.count_nonzero(void)) / void.size, void_values
    return [SampleStats(split, pair, checksum.digest(), photo.shape[:2], values, *facts, *of_void)], problems


def _values(mask: Mask, foreground: Foreground) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """Return the values of a mask that count, and those that the settings ignore."""
    values = mask.values()
    ignored = {value for value in values if foreground.ignores(value)}
    return tuple(value for value in values if value not in ignored), tuple(
        value for value in values if value in ignored
    )


def _fraction(labels: NDArray[np.uint8]) -> float:
    """Return which fraction of the labels that are not void is foreground; 0 if all are void."""
    return int(np.count_nonzero(labels == 1)) / max(1, int(np.count_nonzero(labels != VOID)))


def _copied(pair: Pair) -> Problem:
    text = f"the mask is its photo: it shows what {place(pair.photo)} shows; replace it by the mask"
    return Problem("error", place(pair.mask), text)


def _is_grey_copy(photo: NDArray[np.uint8], mask: Mask) -> bool:
    """Return whether a mask of many greys is its photo, up to rounding and JPEG artefacts."""
    few, grey = photo[::7, ::7], mask.array[::7, ::7]
    if mask.legend is not None or grey.max() > 255 or len(np.unique(grey)) < _MANY:
        return False
    shown = cv2.cvtColor(few, cv2.COLOR_RGB2GRAY)
    close = np.abs(shown.astype(int) - grey).mean() < _CLOSE  # dark photos are close to masks of small objects too
    return bool(close and np.ptp(shown) and np.corrcoef(shown.ravel(), grey.ravel())[0, 1] > _ALIKE)


def _is_copy(photo: NDArray[np.uint8], path: Path, max_value: int | None) -> bool:
    """Return whether the file of a mask shows the photo, up to JPEG artefacts, and all of it: it is no cut-out."""
    try:
        other = read_photo(path, max_value)
    except ImageError:
        return False
    with suppress(ImageError):  # it has no alpha
        if np.ptp(read_mask(path, "alpha").array):
            return False
    return other.shape == photo.shape and bool(cv2.absdiff(photo, other).mean() < _CLOSE)


def _read(read: Callable[[], T], path: Path, problems: list[Problem]) -> T | None:
    try:
        return read()
    except ImageError as error:
        problems.append(Problem("error", place(path), f"unreadable: {error.reason}"))
        return None


def _photo_problems(pair: Pair, photo: NDArray[np.uint8], mask: Mask | None, foreground: Foreground) -> list[Problem]:
    """Return problems of photos that are too small or show a mask. `mask` is None if it is unreadable."""
    where = place(pair.photo)
    height, width = photo.shape[:2]
    if min(height, width) < _LEAST_SIDE:
        text = f"too small: got {height} x {width} pixels; expected at least {_LEAST_SIDE} on each side"
        return [Problem("error", where, text)]
    bright = _as_mask(photo)
    if bright is None:
        return []
    if mask is None:
        text = "perhaps swapped: the photo has two values, as a mask has, and the mask cannot be read as one"
        return [Problem("warning", where, f"{text}; put the photo in images/ and its mask in masks/")]
    if _same(bright, foreground(mask)):
        text = f"the photo is its mask: it has the content of {place(pair.mask)}; replace it by the photo"
        return [Problem("error", where, text)]
    return [Problem("warning", where, "looks like a mask: all pixels have one of two values; is it the photo?")]


def _as_mask(photo: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Return the mask that a photo of two grey values looks like (up to JPEG artefacts); None for other photos."""
    few = photo[::7, ::7, 1].copy()  # enough to rule out nearly all photos
    for sample, most in ((few, 0.05), (photo, _FEW)):
        low, high = int(sample.min()), int(sample.max())
        if np.mean((sample > low + _EDGE) & (sample < high - _EDGE)) > most:
            return None
    if high - low <= _APART or np.mean(np.ptp(photo, axis=2) > 2 * _EDGE) > _FEW:
        return None
    return np.asarray(photo[..., 1] > (low + high) / 2)


def _same(one: NDArray[np.bool_], labels: NDArray[np.uint8]) -> bool:
    """Return whether a mask is that of labels, or its inverse, up to a few pixels of either class; void is left out."""
    if one.shape != labels.shape:
        return False
    one, other = one[labels != VOID], labels[labels != VOID] == 1
    if other.all() or not other.any():
        return False
    inside, outside = float(one[other].mean()), float(one[~other].mean())
    return abs(inside - outside) > 1 - 4 * _FEW
