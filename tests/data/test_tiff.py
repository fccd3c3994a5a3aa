"""TIFFs of every layout, written byte by byte, against the arrays they were made from."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segtune.data.tiff import Layout, count_pages, read_bands, read_tags
from tests.data.tiff_files import DEFLATE, NONE, write_tiff

RNG = np.random.default_rng(0)


def bands_of(path: Path) -> np.ndarray:
    tags = read_tags(path)
    assert tags is not None
    assert Layout.of(tags).is_readable
    return read_bands(path, tags)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("compression", "predictor"), [(NONE, False), (DEFLATE, False), (DEFLATE, True)])
def test_samples_come_back_exactly(tmp_path: Path, planar: bool, order: str, compression: int, predictor: bool) -> None:
    for dtype, bands in ((np.uint16, 3), (np.uint16, 4), (np.uint8, 3), (np.uint16, 5)):
        samples = RNG.integers(0, np.iinfo(dtype).max, (11, 17, bands), dtype, endpoint=True)
        options = {"planar": planar, "compression": compression, "predictor": predictor}
        found = bands_of(write_tiff(tmp_path / "a.tif", samples, order=order, **options))
        assert found.dtype == dtype
        assert np.array_equal(found, samples)


def test_lzw_with_differences_as_opencv_writes_it(tmp_path: Path) -> None:
    samples = RNG.integers(0, 65536, (40, 50, 3), np.uint16)
    samples[5:20, 5:20] = samples[5, 5]  # something to compress
    assert cv2.imwrite(str(tmp_path / "a.tif"), samples[..., ::-1])
    tags = read_tags(tmp_path / "a.tif")
    assert tags is not None
    assert (tags[259], tags[317]) == (5, 2)
    assert np.array_equal(bands_of(tmp_path / "a.tif"), samples)


def test_tiles_and_big_files(tmp_path: Path) -> None:
    """Pillow writes them of 8 bits, whose bands the same code reads."""
    samples = RNG.integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(samples).save(tmp_path / "big.tif", big_tiff=True)
    assert (tmp_path / "big.tif").read_bytes()[:4] == b"II+\0"
    assert np.array_equal(bands_of(tmp_path / "big.tif"), samples)
    padded = np.zeros((48, 64, 3), np.uint8)
    padded[:40, :50] = samples
    tiles = [padded[y : y + 16, x : x + 32].tobytes() for y in range(0, 48, 16) for x in (0, 32)]
    path = write_tiff(tmp_path / "tiles.tif", np.frombuffer(b"".join(tiles), np.uint8).reshape(6, 16 * 32, 3), rows=1)
    tags = read_tags(path)
    assert tags is not None
    tiled = {tag: value for tag, value in tags.items() if tag not in (273, 278, 279)}
    tiled |= {256: 50, 257: 40, 322: 32, 323: 16, 324: tags[273], 325: tags[279]}
    assert np.array_equal(read_bands(path, tiled), samples)


@pytest.mark.parametrize(
    ("samples", "options", "words", "image"),
    [
        (np.zeros((4, 5, 3), np.uint16), {}, "3 bands of unsigned 16 bits (RGB)", True),
        (np.zeros((4, 5, 3), np.uint16), {"colours": 1, "extra": (0, 0)}, "3 bands of unsigned 16 bits (grey)", True),
        (np.zeros((4, 5, 4), np.uint16), {"extra": (2,)}, "4 bands of unsigned 16 bits (RGB)", True),
        (np.zeros((4, 5, 4), np.uint8), {"colours": 5}, "4 bands of unsigned 8 bits (CMYK)", True),
        (np.zeros((4, 5, 2), np.uint8), {"colours": 1, "extra": (2,)}, "2 bands of unsigned 8 bits (grey)", True),
        (np.zeros((4, 5, 2), np.uint8), {"colours": 1, "extra": (0,)}, "2 bands of unsigned 8 bits (grey)", False),
        (np.zeros((4, 5, 5), np.uint8), {"extra": (0, 0)}, "5 bands of unsigned 8 bits (RGB)", False),
        (np.zeros((4, 5, 3), np.int16), {}, "3 bands of signed 16 bits (RGB)", False),
        (np.zeros((4, 5), np.float32), {"colours": 1}, "1 band of floating-point 32 bits (grey)", False),
        (np.zeros((4, 5), np.complex64), {"colours": 1}, "1 band of complex 64 bits (grey)", False),
    ],
)
def test_layouts_in_words(
    tmp_path: Path, samples: np.ndarray, options: dict[str, object], words: str, image: bool
) -> None:
    tags = read_tags(write_tiff(tmp_path / "a.tif", samples, **options))  # type: ignore[arg-type]
    assert tags is not None
    layout = Layout.of(tags)
    assert (str(layout), layout.is_image) == (words, image)


def test_pages_are_counted_without_smaller_versions(tmp_path: Path) -> None:
    page = np.zeros((4, 5), np.uint8)
    assert count_pages(write_tiff(tmp_path / "a.tif", page)) == 1
    three = write_tiff(tmp_path / "b.tif", page, page, page)
    assert count_pages(three) == 3
    assert count_pages(write_tiff(tmp_path / "c.tif", page, page, subfile=1)) == 1
    content = bytearray(three.read_bytes())
    three.write_bytes(content[: len(content) - 200])  # the last page's directory ends in the middle
    assert count_pages(three) == 2
    Image.fromarray(page).save(tmp_path / "d.tif", save_all=True, append_images=[Image.fromarray(page)], big_tiff=True)
    assert count_pages(tmp_path / "d.tif") == 2


def test_a_directory_that_links_to_itself_ends(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((4, 5), np.uint8))
    content = bytearray(path.read_bytes())
    where = int.from_bytes(content[4:8], "little")
    entries = int.from_bytes(content[where : where + 2], "little")
    content[where + 2 + 12 * entries : where + 6 + 12 * entries] = content[4:8]
    path.write_bytes(content)
    assert count_pages(path) == 1


def test_what_is_no_tiff_or_damaged_has_no_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for content in (
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\x7f",
        b"II+\0\x08\0\0\0" + b"\xff" * 40,
        b"\x89PNG\r\n\x1a\n" * 9,
    ):
        path.write_bytes(content)
        assert read_tags(path) is None
    assert read_tags(tmp_path / "missing.tif") is None
