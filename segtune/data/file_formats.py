"""The formats of images that are read, and how the first bytes of a file tell them.

A file is what its first bytes say, whatever its name: telephones and web pages often call an HEIC or WebP photo a JPEG.
"""

from pathlib import Path

from segtune.data.unread_files import RAW_PHOTO, told_by_content
from segtune.errors import UserError

#: The extensions of each format, by Pillow's name for it; NPY is NumPy's, which Pillow does not know.
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k"),
    "NPY": (".npy",),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
#: The name of each format, for people.
NAMES = {name: name for name in FORMATS} | {"HEIF": "HEIC", "JPEG2000": "JPEG 2000", "NPY": "NumPy", "WEBP": "WebP"}
EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)
#: The extensions of formats that change values a little, as a rule.
LOSSY = frozenset(extension for name in ("AVIF", "HEIF", "JPEG", "WEBP") for extension in FORMATS[name])

_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0"), "TIFF"),
    b"BM": "BMP",
    **dict.fromkeys((b"GIF87a", b"GIF89a"), "GIF"),
    **dict.fromkeys((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), "JPEG2000"),
    b"\x93NUMPY": "NPY",
}
_AVIF = frozenset({b"avif", b"avis"})
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})


class ImageError(UserError):
    """An image that cannot be used; the message names the file and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def format_of(path: Path) -> str:
    """Return the format of a file, one of `FORMATS`, by its first bytes.

    Raises:
        ImageError: It is empty or of no such format; the message says what it is, as far as that can be told.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
    found = _format(head)
    if found is None or (found == "TIFF" and (RAW_PHOTO.fits(path.name) or RAW_PHOTO.begins(head))):
        known = f"not an image in a format that is read ({', '.join(sorted(NAMES.values()))}), or damaged"
        raise ImageError(path, told_by_content(head, path.name) or known)
    return found


def _format(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, end, 4))}
        return "AVIF" if brands & _AVIF else "HEIF" if brands & _HEIF else None
    if head.startswith(b"RIFF") and head.startswith(b"WEBP", 8):
        return "WEBP"
    return next((name for beginning, name in _BEGINNINGS.items() if head.startswith(beginning)), None)
