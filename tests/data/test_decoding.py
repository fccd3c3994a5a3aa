"""PNGs of 16 bits, written byte by byte; the other formats are tested with photos and masks."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from segtune.data import decoding
from segtune.data.decoding import ImageError, decode

RNG = np.random.default_rng(0)
# Colour types of PNG, by their number of channels.
TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_png(path: Path, samples: np.ndarray, before: bytes = b"", behind: bytes = b"") -> Path:
    """Write 16 bits a channel, with further chunks before and behind the pixels."""
    height, width, channels = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, TYPES[channels], 0, 0, 0)
    parts = (chunk(b"IHDR", head), before, chunk(b"IDAT", zlib.compress(rows)), behind, chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def orientation(value: int) -> bytes:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, value, 0)
    return chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01" + entry + bytes(4))


@pytest.mark.parametrize("channels", TYPES)
def test_sixteen_bit_pngs_keep_all_bits(tmp_path: Path, channels: int) -> None:
    samples = RNG.integers(0, 65536, (6, 9, channels), np.uint16)
    rgb = samples[..., :3] if channels > 2 else np.dstack([samples[..., 0]] * 3)
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    for before, behind, turn in ((gamma, b"", 1), (orientation(3), b"", 3), (b"", orientation(6), 6)):
        found = decode(write_png(tmp_path / "a.png", samples, before, behind))
        content = np.asarray(found.content)
        content = np.dstack([content] * 3) if content.ndim == 2 else content[..., :3]
        assert np.array_equal(content, np.rot90(rgb, {1: 0, 3: 2, 6: -1}[turn]))
        assert (content.dtype, found.orientation, found.layout) == (np.uint16, turn, None)


def test_a_colour_that_means_transparent_changes_nothing(tmp_path: Path) -> None:
    samples = RNG.integers(0, 65536, (6, 9, 3), np.uint16)
    path = write_png(tmp_path / "a.png", samples, chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes()))
    assert np.array_equal(np.asarray(decode(path).content)[..., :3], samples)


def test_decoders_that_disagree_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_png(tmp_path / "a.png", RNG.integers(0, 65536, (6, 9, 3), np.uint16))
    for found in (None, np.zeros((6, 9, 3), np.uint16), np.zeros((6, 9, 3), np.uint8), np.zeros((9, 6, 3), np.uint16)):
        monkeypatch.setattr(decoding.cv2, "imdecode", lambda *_, found=found: found)
        with pytest.raises(ImageError, match="two decoders read its 16-bit colours differently"):
            decode(path)


def test_an_orientation_outside_the_standard_turns_nothing(tmp_path: Path) -> None:
    for value in (0, 9, 65535):
        path = write_png(tmp_path / "a.png", RNG.integers(0, 65536, (6, 9, 3), np.uint16), orientation(value))
        assert decode(path).orientation == 1


def test_exif_that_cannot_be_parsed_costs_a_file_its_orientation_only(tmp_path: Path) -> None:
    samples = RNG.integers(0, 65536, (6, 9, 3), np.uint16)
    decoded = decode(write_png(tmp_path / "a.png", samples, chunk(b"eXIf", b"no exif")))
    assert decoded.orientation == 1
    assert np.array_equal(decoded.content, samples)
