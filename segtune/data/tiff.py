"""TIFF: what a file holds, and the layouts that Pillow does not read, reads wrong, or cuts to 8 bits.

Pillow and libtiff, the codec inside it, read any single plane exactly. So a file of several bands is given to them with
another directory: each plane as a grey image or, where the bands of a pixel lie side by side, all of them as one grey
image that is wider.
"""

import io
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_BANDS, _ROWS_PER_STRIP, _PLANES, _PREDICTOR, _EXTRA, _KINDS = 277, 278, 284, 317, 338, 339
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_SUBFILE, _SMALLER, _STENCIL = 254, 1, 4
_SUB_DIRECTORIES, _DNG_VERSION = 330, 50706
_STRIPS, _TILES = (273, 279), (324, 325)  # offsets and lengths

_COLOUR_NAMES = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}
_KIND_NAMES = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "undefined", 5: "complex", 6: "complex"}
# Uncompressed, LZW, deflate (two codes), PackBits, LZMA, Zstandard: they know nothing of bands.
_BYTEWISE = (1, 5, 8, 32946, 32773, 34925, 50000)
_WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)
_HORIZONTAL = 2
# The formats of the types of numbers.
_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}


@dataclass(frozen=True)
class Layout:
    """How a TIFF stores its first image; `kind` is that of the numbers, such as `unsigned`, `colours` such as `RGB`."""

    bands: int
    bits: int
    kind: str
    colours: str
    inverted: bool
    named: int
    plain: bool

    @classmethod
    def of(cls, tags: Mapping[int, Any]) -> "Layout":
        """Return the layout that the tags of a file describe; `bits` and `kind` are of the widest band."""
        photometric, bands, bits = tags.get(_COLOURS, 0), tags.get(_BANDS, 1), _listed(tags.get(_BITS, 1))
        extra = _listed(tags.get(_EXTRA, ()))
        kinds = {_KIND_NAMES.get(kind, "undefined") for kind in _listed(tags.get(_KINDS, 1))}
        return cls(
            bands=int(bands),
            bits=max(bits),
            kind=" and ".join(sorted(kinds)),
            colours=_COLOUR_NAMES.get(photometric, "other"),
            inverted=photometric == 0,
            named=int(bands) - sum(kind == 0 for kind in extra),
            plain=len(set(bits)) == 1 and tags.get(_FILL_ORDER, 1) == 1 and tags.get(_COMPRESSION, 1) in _BYTEWISE,
        )

    def __str__(self) -> str:
        """Return the layout in words, such as `5 bands of unsigned 16 bits (RGB)`."""
        return f"{self.bands} band{'s' * (self.bands != 1)} of {self.kind} {self.bits} bits ({self.colours})"

    @property
    def is_image(self) -> bool:
        """Whether the bands are those of a photo: grey or RGB, perhaps with a fourth band, or CMYK.

        Three bands that the file calls grey are RGB: so GDAL writes them.
        """
        if self.kind != "unsigned":
            return False
        if self.colours == "grey":
            return self.bands in (1, 3) or (self.bands == 2 == self.named)
        return self.bands == {"palette": 1, "CMYK": 4, "RGB": self.bands if self.bands in (3, 4) else 3}.get(
            self.colours, 3
        )

    @property
    def is_beyond_pillow(self) -> bool:
        """Whether Pillow reads the bands wrong, not at all, or only their high bytes."""
        return self.bands > 1 and (self.bits == 16 or (self.colours, self.bands) == ("grey", 3))

    @property
    def is_readable(self) -> bool:
        """Whether `read_bands` can read it."""
        return self.plain and self.kind == "unsigned" and self.bits in (8, 16)


def read_tags(path: Path) -> dict[int, Any] | None:
    """Return the tags of a file's first image, numbers or tuples; None if it is no TIFF, or damaged there."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
            if not head.startswith(_BEGINNINGS):
                return None
            form = _Form.of(head)
            return {
                tag: form.values(file, kind, count, value)
                for tag, kind, count, value in form.directory(file, form.first(head))[0]
                if kind in _TYPES
            }
    except (OSError, struct.error):
        return None


def is_raw_photo(tags: Mapping[int, Any]) -> bool:
    """Return whether a file is a camera's raw photo, by the tags of its first image: that is a preview of another."""
    return _DNG_VERSION in tags or (_SUB_DIRECTORIES in tags and bool(tags.get(_SUBFILE, 0) & _SMALLER))


def count_pages(path: Path) -> int:
    """Return the number of images in a TIFF, up to a damaged one; smaller versions of the first do not count."""
    count, seen = 0, set[int]()
    with path.open("rb") as file:
        head = file.read(16)
        form = _Form.of(head)
        try:
            where = form.first(head)
            while where and where not in seen:
                seen.add(where)
                entries, where = form.directory(file, where)
                values = [value for tag, _, _, value in entries if tag == _SUBFILE]
                kinds = [struct.unpack_from(form.order + "I", value)[0] for value in values]
                count += count == 0 or not any(kind & (_SMALLER | _STENCIL) for kind in kinds)
        except struct.error:  # the file ends
            pass
    return max(count, 1)


@dataclass(frozen=True)
class _Form:
    """The byte order of a TIFF, and the `size` in bytes of its offsets: 4, in a BigTIFF 8."""

    order: str
    size: int

    @classmethod
    def of(cls, head: bytes) -> "_Form":
        return cls("<" if head[:1] == b"I" else ">", 8 if 43 in head[2:4] else 4)

    @property
    def offset(self) -> str:
        """The format of offsets and counts."""
        return "Q" if self.size == 8 else "I"

    def first(self, head: bytes) -> int:
        """Return where the first directory is."""
        return int(struct.unpack_from(self.order + self.offset, head, self.size)[0])

    def directory(self, file: BinaryIO, where: int) -> tuple[list[tuple[int, int, int, bytes]], int]:
        """Return a directory's entries (tag, type, count, value or its offset) and the offset of the next directory."""
        count_format = self.order + ("Q" if self.size == 8 else "H")
        (count,) = struct.unpack(count_format, _read(file, where, struct.calcsize(count_format)))
        where += struct.calcsize(count_format)
        table = _read(file, where, count * (4 + 2 * self.size))
        (following,) = struct.unpack(self.order + self.offset, _read(file, where + len(table), self.size))
        return list(struct.iter_unpack(f"{self.order}HH{self.offset}{self.size}s", table)), following

    def values(self, file: BinaryIO, kind: int, count: int, value: bytes) -> Any:
        """Return the numbers of an entry: a tuple, or the only one."""
        packed = f"{self.order}{count}{_TYPES[kind]}"
        if (length := struct.calcsize(packed)) > self.size:
            value = _read(file, struct.unpack(self.order + self.offset, value)[0], length)
        found = struct.unpack(packed, value[:length])
        return found[0] if count == 1 else found

    def table(self, start: int, tags: Mapping[int, Sequence[int]]) -> bytes:
        """Return a directory of whole numbers, to be put at `start`."""
        kind, entries, values = (16 if self.size == 8 else 4), b"", b""
        behind = start + (8 if self.size == 8 else 2) + len(tags) * (4 + 2 * self.size) + self.size
        for tag, listed in sorted(tags.items()):
            packed = struct.pack(f"{self.order}{len(listed)}{self.offset}", *listed)
            if len(packed) > self.size:
                packed, values = struct.pack(self.order + self.offset, behind + len(values)), values + packed
            entries += struct.pack(f"{self.order}HH{self.offset}", tag, kind, len(listed)) + packed
        count = struct.pack(self.order + ("Q" if self.size == 8 else "H"), len(tags))
        return count + entries + bytes(self.size) + values


def read_bands(path: Path, tags: Mapping[int, Any]) -> NDArray[Any]:
    """Return the samples of an image that `Layout.is_readable`, as stored: not turned, not inverted.

    Returns:
        uint8 or uint16, (H, W, bands).

    Raises:
        OSError: The file is damaged.
    """
    content, bands, planar = path.read_bytes(), int(tags.get(_BANDS, 1)), tags.get(_PLANES, 1) == 2
    width, height, parts = int(tags[_WIDTH]), int(tags[_HEIGHT]), _TILES if _TILES[0] in tags else _STRIPS
    side = int(tags[_TILE_WIDTH]) if parts == _TILES else width
    where, lengths = (_listed(tags[tag]) for tag in parts)
    compression = int(tags.get(_COMPRESSION, 1))
    differences = tags.get(_PREDICTOR, 1) == _HORIZONTAL and compression in _WITH_PREDICTOR
    bits = max(_listed(tags[_BITS]))
    table: dict[int, Sequence[int]]
    table = {_HEIGHT: [height], _BITS: [bits], _BANDS: [1], _COMPRESSION: [compression], _COLOURS: [1]}
    for tag in (_ROWS_PER_STRIP, _TILE_HEIGHT):
        table |= {tag: [int(tags[tag])]} if tag in tags else {}
    if not planar:
        table |= {_WIDTH: [width * bands], parts[0]: where, parts[1]: lengths}
        table |= {_TILE_WIDTH: [side * bands]} if parts == _TILES else {}
        samples: NDArray[Any] = _decode(content, table).reshape(height, width, bands)
        if differences:  # each sample is the difference to its left neighbour in the band, in each tile anew
            for left in range(0, width, side):
                tile = samples[:, left : left + side]
                np.cumsum(tile, axis=1, dtype=samples.dtype, out=tile)
        return samples
    table |= {_WIDTH: [width]} | ({_TILE_WIDTH: [side]} if parts == _TILES else {})
    table |= {_PREDICTOR: [_HORIZONTAL]} if differences else {}
    count = len(where) // bands
    planes = [slice(band * count, (band + 1) * count) for band in range(bands)]
    return np.stack([_decode(content, table | {parts[0]: where[p], parts[1]: lengths[p]}) for p in planes], axis=2)


def _decode(content: bytes, table: Mapping[int, Sequence[int]]) -> NDArray[Any]:
    with Image.open(io.BytesIO(_with_table(content, table)), formats=("TIFF",)) as image:
        return np.array(image, np.uint8 if image.mode == "L" else np.uint16)


def _with_table(content: bytes, tags: Mapping[int, Sequence[int]]) -> bytes:
    """Return a TIFF with another directory."""
    form, start = _Form.of(content), len(content) + len(content) % 2
    head = content[: form.size] + struct.pack(form.order + form.offset, start)
    return b"".join((head, content[len(head) :], bytes(start - len(content)), form.table(start, tags)))


def _read(file: BinaryIO, where: int, length: int) -> bytes:
    """Return bytes of a file that has them all: a damaged file may ask for more than memory holds."""
    if where + length > os.fstat(file.fileno()).st_size:
        raise struct.error("beyond the end of the file")
    file.seek(where)
    return file.read(length)


def _listed(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
