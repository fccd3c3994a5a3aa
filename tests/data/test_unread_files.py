"""Files that are not read: what each is, by its content where that tells it, else by its name."""

import gzip
import io
import pickle
import zipfile

import numpy as np
import pytest

from segtune.data.unread_files import is_junk, told_by_content, told_by_name, unread_by_stem


def _zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.txt", "text")
    return content.getvalue()


def _arrays() -> bytes:
    content = io.BytesIO()
    np.savez(content, mask=np.zeros(3))
    return content.getvalue()


def _box(kind: bytes, brand: bytes) -> bytes:
    return b"\0\0\0\x18" + kind + brand + b"\0\0\0\0" + brand + b"mp41"


CONTENTS = {
    "a PDF document": ("a.jpg", b"%PDF-1.7\n%\xb5\xb5"),
    "a DICOM file": ("a.png", bytes(128) + b"DICM\2\0\0\0UL"),
    "a NIfTI volume": ("a.tif", bytes(344) + b"n+1\0"),
    "a NIfTI volume,": ("a.nii.gz", gzip.compress(bytes(344) + b"n+1\0")),
    "a compressed file": ("a.png.gz", gzip.compress(b"anything")),
    "a volume (NRRD": ("a.png", b"NRRD0004\ntype: short\n"),
    "an SVG drawing": ("a.png", b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'>"),
    "a Photoshop file": ("a.tif", b"8BPS\0\1"),
    "a GIMP file": ("a.png", b"gimp xcf v011\0"),
    "a JPEG XL image": ("a.jpg", b"\xff\x0a\xfa\x1f"),
    "a JPEG XL image,": ("a.jpg", b"\0\0\0\x0cJXL \r\n\x87\n"),
    "an image in floating point": ("a.png", b"v/1\1\2\0\0\0"),
    "an image in a format that is not read": ("a.png", b"P6\n4 4\n255\n"),
    "a camera's raw photo": ("a.jpg", b"FUJIFILMCCD-RAW 0201"),
    "a camera's raw photo,": ("a.tif", b"II*\0\x10\0\0\0CR\2\0"),
    "a camera's raw photo, ": ("a.jpg", _box(b"ftyp", b"crx ")),
    "a MATLAB file": ("a.png", b"MATLAB 5.0 MAT-file, Platform: GLNXA64"),
    "an HDF5 file": ("a.png", b"\x89HDF\r\n\x1a\n\0"),
    "a Python pickle": ("a.npy", pickle.dumps([1, 2])),
    "an archive, ": ("a.jpg", _zipped()),
    "an archive of NumPy arrays": ("a.npz", _arrays()),
    "a video": ("a.jpg", _box(b"ftyp", b"isom")),
    "a web page": ("a.jpg", b"\n<!DOCTYPE html>\n<html lang='en'><svg>"),
    "a pointer of Git LFS": ("a.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
    "a pointer of git-annex": ("a.png", b"/annex/objects/SHA256E-s5--abc.png\n"),
    "a companion file of macOS": ("._a.jpg", b"\0\5\x16\7\0\2\0\0Mac OS X"),
    "a placeholder of iCloud": (".a.jpg.icloud", b"bplist00\xd3"),
    "it begins with zero bytes only": ("a.jpg", bytes(512)),
    "the file is empty": ("a.jpg", b""),
    "a text that begins with 'Größe: 3', not an image": ("a.png", "\ufeff  Größe: 3\nB: 4\n".encode()),
    "a text that begins with 'äää": ("a.png", ("ä" * 300).encode()[:511]),  # which ends within a letter
}


@pytest.mark.parametrize("says", CONTENTS)
def test_content_tells_what_a_file_is(says: str) -> None:
    name, content = CONTENTS[says]
    assert told_by_content(content[:512], name).startswith(says.rstrip(", "))


def test_a_name_tells_what_content_does_not() -> None:
    assert told_by_content(b"\0\1\2", "a.dcm") == told_by_name("b.DCM") != ""
    assert told_by_content(b"%PDF-1.4", "a.dcm") == told_by_name("a.pdf")  # content counts more
    assert told_by_content(b"\0\1\2", "a.jpg") == ""
    assert told_by_name("a.jpg") is told_by_name("a.gif") is told_by_name("README") is None
    assert told_by_name("a.mp4") == told_by_content(_box(b"ftyp", b"isom"), "a.mp4")
    assert "nibabel" in (told_by_name("a.nii.gz") or "")
    assert "gunzip" in (told_by_name("a.tif.gz") or "")


def test_what_systems_leave_is_junk() -> None:
    assert all(map(is_junk, (".DS_Store", "Thumbs.db", "DESKTOP.INI", "@eaDir", "__MACOSX", "a.jpg:Zone.Identifier")))
    assert not any(map(is_junk, ("a.jpg", "thumbs.db.jpg", "_a.png")))


def test_every_way_out_is_said() -> None:
    """A kind that is not read has a command, a program, or what to do."""
    for says, (name, content) in CONTENTS.items():
        told = told_by_content(content[:512], name)
        assert "; " in told or "`" in told or says.startswith(("a text", "the file")), told


def test_files_are_found_by_the_stem_of_an_image() -> None:
    names = ["a.nii.gz", "b.c.PDF", ".d.jpg.icloud", "e.NII.GZ", "f.jpg", ".g.pdf", "._h.dcm", ".DS_Store", "i.txt"]
    found = unread_by_stem(names)
    assert {stem: file.name for stem, file in found.items()} == {
        "a": "a.nii.gz",
        "b.c": "b.c.PDF",
        "d": ".d.jpg.icloud",
        "e": "e.NII.GZ",
    }
    assert found["d"].text == "a placeholder of iCloud for a file that is not on this disk; download it in the Finder"
