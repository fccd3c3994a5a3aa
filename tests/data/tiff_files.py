"""Writes TIFFs of any layout byte by byte, independently of every TIFF library."""

import struct
import zlib
from pathlib import Path

import numpy as np

CODES = {"u": 1, "i": 2, "f": 3, "c": 6}
NONE, DEFLATE = 1, 8


def write_tiff(path: Path, *pages: np.ndarray, order: str = "<", **options: int | tuple[int, ...] | bool) -> Path:
    """Write images (H, W) or (H, W, bands) as pages; see `_page` for the options."""
    content = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 0))
    link = 4
    for page in pages:
        strips, tags = _page(page, order, **options)  # type: ignore[arg-type]
        offsets = []
        for strip in strips:
            offsets.append(len(content))
            content += strip + bytes(len(strip) % 2)
        tags |= {273: offsets, 279: [len(strip) for strip in strips]}
        struct.pack_into(order + "I", content, link, len(content))
        table, values, behind = b"", b"", len(content) + 2 + 12 * len(tags) + 4
        for tag, listed in sorted(tags.items()):
            packed = struct.pack(f"{order}{len(listed)}I", *listed)
            if len(listed) > 1:
                packed, values = struct.pack(order + "I", behind + len(values)), values + packed
            table += struct.pack(order + "HHI", tag, 4, len(listed)) + packed
        content += struct.pack(order + "H", len(tags)) + table
        link = len(content)
        content += bytes(4) + values
    path.write_bytes(content)
    return path


def _page(
    page: np.ndarray,
    order: str,
    *,
    planar: bool = False,
    rows: int = 3,
    compression: int = NONE,
    predictor: bool = False,
    colours: int = 2,
    extra: tuple[int, ...] = (),
    orientation: int = 1,
    subfile: int = 0,
) -> tuple[list[bytes], dict[int, list[int]]]:
    """Return the strips and tags of a page.

    `rows` is the height of a strip, `predictor` stores differences, `colours` is the photometric interpretation (0 and
    1 grey, 2 RGB, 5 CMYK), `extra` the meaning of further bands (0 none, 2 alpha).
    """
    height, width, bands = page.shape if page.ndim == 3 else (*page.shape, 1)
    samples = page.reshape(height, width, bands)
    layers = [samples[..., [band]] for band in range(bands)] if planar else [samples]
    strips = []
    for layer in layers:
        for top in range(0, height, rows):
            strip = layer[top : top + rows]
            if predictor:
                strip = np.concatenate([strip[:, :1], np.diff(strip, axis=1)], axis=1)
            packed = strip.astype(strip.dtype.newbyteorder(order)).tobytes()
            strips.append(zlib.compress(packed) if compression == DEFLATE else packed)
    tags = {256: [width], 257: [height], 258: [8 * page.itemsize] * bands, 259: [compression], 262: [colours]}
    tags |= {277: [bands], 278: [rows], 284: [2 if planar else 1], 339: [CODES[page.dtype.kind]] * bands}
    tags |= {254: [subfile], 274: [orientation], 317: [2 if predictor else 1]} | ({338: list(extra)} if extra else {})
    return strips, tags
