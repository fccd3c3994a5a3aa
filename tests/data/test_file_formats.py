"""Formats are told by the first bytes of files that other libraries wrote."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from segtune.data.file_formats import EXTENSIONS, FORMATS, LOSSY, NAMES, ImageError, format_of

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def by_pillow(name: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, name)
    return content.getvalue()


def by_opencv(suffix: str) -> bytes:
    return cv2.imencode(suffix, PIXELS)[1].tobytes()


def by_numpy() -> bytes:
    content = io.BytesIO()
    np.save(content, PIXELS)
    return content.getvalue()


def test_each_format_is_told_whatever_the_name(tmp_path: Path) -> None:
    made = {name: [by_pillow(name)] for name in FORMATS if name not in ("HEIF", "NPY")} | {"NPY": [by_numpy()]}
    for name, suffix in {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp", "WEBP": ".webp"}.items():
        made[name].append(by_opencv(suffix))
    made["JPEG2000"].append(by_pillow("JPEG2000")[by_pillow("JPEG2000").index(b"\xff\x4f\xff\x51") :])  # bare, as .j2k
    for name, contents in made.items():
        for content in contents:
            (tmp_path / "a.xyz").write_bytes(content)
            assert format_of(tmp_path / "a.xyz") == name


@pytest.mark.parametrize(
    ("brands", "name"),
    [
        ("heic mif1 MiHE MiPr miaf heic tmap", "HEIF"),  # iPhones
        ("heic mif1 heic", "HEIF"),
        ("mif1 mif1 heic hevc", "HEIF"),
        ("heix mif1 heix", "HEIF"),  # 10 bits
        ("mif1 avif mif1 miaf", "AVIF"),  # the brand of containers first
        ("avis avis msf1", "AVIF"),
        ("qt   qt  ", None),
        ("isom iso2 avc1 mp41", None),
    ],
)
def test_brands_tell_photos_from_each_other_and_from_videos(tmp_path: Path, brands: str, name: str | None) -> None:
    listed = [each.ljust(4).encode() for each in brands.split()]
    box = b"ftyp" + listed[0] + bytes(4) + b"".join(listed[1:])
    (tmp_path / "a.heic").write_bytes((len(box) + 4).to_bytes(4, "big") + box + b"avifheic" * 9)  # behind the box
    if name:
        assert format_of(tmp_path / "a.heic") == name
    else:
        with pytest.raises(ImageError, match="a video: `predict` takes it alone"):
            format_of(tmp_path / "a.heic")


def test_raw_photos_are_no_tiffs(tmp_path: Path) -> None:
    """Pillow would read the small preview that is their first image."""
    for name in ("a.NEF", "a.dng", "a.arw"):
        (tmp_path / name).write_bytes(by_pillow("TIFF"))
        with pytest.raises(ImageError, match="a camera's raw photo"):
            format_of(tmp_path / name)


def test_what_is_nothing_known_says_what_is(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(range(255, 100, -1)))
    with pytest.raises(ImageError) as caught:
        format_of(tmp_path / "a.jpg")
    assert caught.value.reason == (
        "not an image in a format that is read (AVIF, BMP, GIF, HEIC, JPEG, JPEG 2000, NumPy, PNG, TIFF, WebP), or "
        "damaged"
    )
    with pytest.raises(FileNotFoundError):
        format_of(tmp_path / "b.jpg")


def test_pillow_has_the_formats_and_their_extensions() -> None:
    Image.init()
    known = Image.registered_extensions()
    for name, extensions in FORMATS.items():
        if name not in ("HEIF", "NPY"):
            assert {known[extension] for extension in extensions} == {name}
    assert all(features.check(name) for name in ("avif", "jpg_2000", "webp"))  # as the wheels on PyPI have
    assert NAMES.keys() == FORMATS.keys()
    assert LOSSY < EXTENSIONS
    assert not LOSSY & {".png", ".bmp", ".gif", ".npy", ".tif", ".tiff"}
