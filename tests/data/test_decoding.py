"""PNGs of 16 bits, written byte by byte, JPEGs decoded smaller, and the bits of JPEG 2000 that OpenCV wrote.

The rest is tested with photos and masks, HEIC in `test_heif.py`.
"""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from segtune.data import decoding
from segtune.data.decoding import ImageError, decode, stored_size
from segtune.data.sources.portraits import draw_scene

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


def scene(height: int, width: int) -> Image.Image:
    """A photo that differs from all its turns."""
    return Image.fromarray(draw_scene(1, max(height, width))[0][:height, :width])


def exif(value: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = value
    return made


@pytest.mark.parametrize(
    ("size", "needed", "scale"),
    [
        ((128, 192), (16, 24), 8),
        ((128, 192), (17, 24), 4),
        ((128, 192), (16, 25), 4),
        ((128, 192), (40, 96), 2),
        ((128, 192), (65, 96), 1),
        ((128, 192), (10, 193), 1),
        ((132, 192), (10, 10), 4),  # an eighth would not be whole pixels, and the image distorted
        ((128, 194), (10, 10), 2),
        ((129, 192), (10, 10), 1),
        ((128, 192), None, 1),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_enough(tmp_path: Path, size, needed, scale: int) -> None:
    scene(*size).save(tmp_path / "a.jpg", quality=95)
    asked = []

    def enough(height: int, width: int) -> tuple[int, int] | None:
        asked.append((height, width))
        return needed

    found = decode(tmp_path / "a.jpg", enough)
    assert asked == [size]
    assert found.scale == scale
    assert np.asarray(found.content).shape == (size[0] // scale, size[1] // scale, 3)
    assert decode(tmp_path / "a.jpg").scale == 1


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_jpeg_is_decoded_smaller_by_its_size_upright(tmp_path: Path, turn: int) -> None:
    """By the mean of each 4 x 4 pixels of the whole photo."""
    scene(96, 128).save(tmp_path / "a.jpg", exif=exif(turn), quality=95)
    whole = np.asarray(decode(tmp_path / "a.jpg").content, np.float64)
    height, width = whole.shape[:2]
    found = decode(tmp_path / "a.jpg", lambda *asked: (height // 4, width // 4) if asked == (height, width) else None)
    assert (found.scale, found.orientation) == (4, turn)
    means = whole.reshape(height // 4, 4, width // 4, 4, 3).mean((1, 3))
    assert np.abs(np.asarray(found.content) - means).mean() < 1
    # Upright it is as wide as 32 pixels or as high, so that a quarter is enough of one side only.
    assert decode(tmp_path / "a.jpg", lambda height, width: (height // 4, width // 2)).scale == 2
    assert decode(tmp_path / "a.jpg", lambda height, width: (height // 8, width // 4)).scale == 4


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"progressive": True}),
        ("RGB", {"subsampling": 0}),
        ("RGB", {"format": "MPO", "save_all": True}),
    ],
    ids=["grey", "CMYK", "progressive", "full colour", "MPO"],
)
def test_jpegs_of_every_kind_are_decoded_smaller(tmp_path: Path, mode: str, options: dict) -> None:
    image = scene(96, 128).convert(mode)
    more = {"append_images": [image.transpose(Image.Transpose.ROTATE_180)]} if "save_all" in options else {}
    image.save(tmp_path / "a.jpg", quality=95, exif=exif(6), **options, **more)
    whole, found = decode(tmp_path / "a.jpg"), decode(tmp_path / "a.jpg", lambda *_: (16, 12))
    assert isinstance(found.content, Image.Image)
    assert (found.content.mode, found.content.size, found.scale, found.frames) == (mode, (12, 16), 8, 1)
    means = np.asarray(whole.content, np.float64).reshape(16, 8, 12, 8, -1).mean((1, 3))
    assert np.abs(np.asarray(found.content).reshape(means.shape) - means).mean() < 1


@pytest.mark.parametrize("progressive", [False, True])
def test_a_damaged_jpeg_is_refused_at_every_scale(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "a.jpg"
    scene(96, 128).save(path, quality=95, progressive=progressive)
    content = path.read_bytes()
    for kept in (*range(0, len(content), 397), len(content) - 20, len(content) - 2, len(content) - 1):
        path.write_bytes(content[:kept])
        said = []
        for enough in (None, *(lambda *_, scale=scale: (96 // scale, 128 // scale) for scale in (2, 4, 8))):
            with pytest.raises(ImageError) as caught:
                decode(path, enough)
            said.append(str(caught.value))
        assert len(set(said)) == 1, (kept, said)


@pytest.mark.parametrize("kind", ["png", "webp", "bmp", "tif", "gif", "jp2", "avif"])
def test_other_formats_are_always_decoded_whole(tmp_path: Path, kind: str) -> None:
    scene(64, 64).save(tmp_path / f"a.{kind}")
    found = decode(tmp_path / f"a.{kind}", lambda *_: (8, 8))
    assert (found.scale, np.asarray(found.content).shape[:2]) == (1, (64, 64))


def test_the_size_is_told_by_the_head_of_a_file(tmp_path: Path) -> None:
    for kind in ("png", "webp", "bmp", "tif", "gif", "jp2", "avif", "jpg"):
        scene(48, 64).save(tmp_path / f"a.{kind}")
        assert stored_size(tmp_path / f"a.{kind}") == (48, 64)
    np.save(tmp_path / "a.npy", np.zeros((48, 64, 3), np.uint8))
    assert stored_size(tmp_path / "a.npy") == (48, 64)
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    assert stored_size(tmp_path / "a.npy") is stored_size(tmp_path / "gone.png") is None


LOSSLESS = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]


def test_jpeg_2000_keeps_8_bits_of_colour_and_16_of_grey(tmp_path: Path) -> None:
    rgb, grey = RNG.integers(0, 256, (40, 56, 3), np.uint8), RNG.integers(0, 65536, (40, 56), np.uint16)
    for array in (rgb, rgb[..., 0], grey):
        cv2.imwrite(str(tmp_path / "a.jp2"), array[..., ::-1] if array.ndim == 3 else array, LOSSLESS)
        found = np.asarray(decode(tmp_path / "a.jp2").content)
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


def test_jpeg_2000_of_other_bits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    cv2.imwrite(str(path), RNG.integers(0, 65536, (40, 56, 3), np.uint16), LOSSLESS)
    advice = "which Pillow would change; convert it to TIFF or PNG, as with `gdal_translate FILE.jp2 FILE.tif` (GDAL)"
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert caught.value.reason == f"a JPEG 2000 image of 3 bands of unsigned 16 bits, {advice}"
    assert stored_size(path) is None
    cv2.imwrite(str(path), RNG.integers(0, 65536, (40, 56), np.uint16), LOSSLESS)
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\x4f\xff\x51") + 42] |= 128  # the sign
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert caught.value.reason == f"a JPEG 2000 image of 1 band of signed 16 bits, {advice}"


def test_a_build_of_pillow_without_a_format_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding.features, "check", lambda _: False)
    for kind, name in (("avif", "an AVIF"), ("jp2", "a JPEG 2000"), ("webp", "a WebP")):
        scene(32, 32).save(tmp_path / f"a.{kind}")
        with pytest.raises(ImageError) as caught:
            decode(tmp_path / f"a.{kind}")
        assert caught.value.reason == (
            f"{name} image, which this build of Pillow cannot read; install Pillow from PyPI (`pip install "
            "--force-reinstall pillow`), or convert the image to PNG"
        )


@pytest.mark.parametrize(
    ("entries", "raw"),
    [
        ({0xC612: (1, bytes((1, 4, 0, 0)))}, True),  # Adobe's digital negative
        ({254: (4, 1), 330: (4, 99)}, True),  # Nikon's and Sony's first image is a preview of one in directory 330
        ({254: (4, 0), 330: (4, 99)}, False),  # smaller versions behind the first image
        ({254: (4, 1)}, False),
    ],
)
def test_raw_photos_by_the_name_of_a_tiff_are_told(tmp_path: Path, entries: dict, raw: bool) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, (kind, value) in entries.items():
        tags.tagtype[tag] = kind
        tags[tag] = value
    scene(32, 32).save(tmp_path / "a.tif", tiffinfo=tags)
    if raw:
        with pytest.raises(ImageError, match="a camera's raw photo, which is not read; develop it"):
            decode(tmp_path / "a.tif")
    else:
        assert decode(tmp_path / "a.tif").frames == 1
