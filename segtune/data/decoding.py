"""Decode the first image of a file, upright and with all its bits.

Pillow decodes: it reports a truncated file, where OpenCV silently returns what it has read so far. Of colours with 16
bits it keeps 8; all 16 come from `segtune.data.tiff`, and from OpenCV for PNG, compared with Pillow's. HEIC is read by
pillow-heif, with which Pillow knows the format, and NumPy's files by `segtune.data.npy`.
"""

import math
import mmap
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, ImageFile, UnidentifiedImageError, features

from segtune.data import tiff
from segtune.data.exif import exif_orientation
from segtune.data.file_formats import FORMATS, NAMES, format_of
from segtune.data.file_formats import ImageError as ImageError
from segtune.data.npy import read_array, size_of
from segtune.data.orientation import SIDEWAYS, as_orientation, upright
from segtune.data.unread_files import RAW_PHOTO
from segtune.errors import UserError
from segtune.runtime.paths import special_kind

_ORIENTATION = 0x0112
_MEGAPIXELS = "SEGTUNE_MAX_MEGAPIXELS"
_EXPECTED = (
    "expected grey, RGB or RGB with alpha, in unsigned 8 or 16 bits; save a mask as 8-bit grey, and of a photo three "
    "bands as RGB, scaled to that range"
)
_RESAVE = "save it as a plain TIFF, uncompressed or with LZW or deflate"
_JPEG = ("JPEG", "MPO")
#: Formats that Pillow may have been built without, by its name of the feature.
_FEATURES = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}

# Sizes are checked here, and there is a message for them.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Otherwise the decoders are loaded on first use, where threads race.
Image.init()
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # images are read side by side already

#: Returns of a photo's height and width which size is enough of it, None if no smaller one is.
Enough = Callable[[int, int], tuple[int, int] | None]


@dataclass(frozen=True, eq=False)
class Decoded:
    """The first image of a file, upright.

    `content` is an array for the 16-bit types, (H, W) of grey or (H, W, bands) of RGB with perhaps an alpha channel,
    for signed 8 and unsigned 32 bits, and for what NumPy's files hold but uint8; else Pillow's image. `orientation` is
    that of the file, EXIF's or TIFF's, 1 to 8, which has been applied; HEIC files are turned by their decoder, and
    have 1. `frames` is how many images or pages the file holds, `layout` how a TIFF stores them. A JPEG that was
    decoded at 1/2, 1/4 or 1/8 of its size has the `scale` 2, 4 or 8.
    """

    content: Image.Image | NDArray[Any]
    orientation: int
    frames: int
    layout: tiff.Layout | None = None
    scale: int = 1


def decode(path: Path, enough: Enough | None = None) -> Decoded:
    """Return the completely decoded first image of a file.

    Args:
        path: The file.
        enough: Lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, if that is no smaller, and whole pixels.

    Raises:
        ImageError: The file is missing, empty, damaged, too large, or not an image of a supported format and layout.
    """
    if kind := special_kind(path):
        raise ImageError(path, f"{kind}, not a file")
    most = _most_pixels()
    Image.MAX_IMAGE_PIXELS = 4 * most  # `_check_size` is stricter, but a file of four bands is decoded as one of grey
    tags = layout = None
    try:
        name = format_of(path)
        if name == "NPY":
            array = read_array(path, lambda height, width: _check_size(path, width, height, most))
            return Decoded(Image.fromarray(array) if array.dtype == np.uint8 else array, orientation=1, frames=1)
        tags = tiff.read_tags(path) if name == "TIFF" else None
        if tags and tiff.is_raw_photo(tags):
            raise ImageError(path, RAW_PHOTO.text)
        layout = tiff.Layout.of(tags) if tags else None
        if layout and (layout.bands > 1 or layout.kind == "complex") and not layout.is_image:
            raise ImageError(path, f"it holds {layout}; {_EXPECTED}")
        if tags and layout and layout.is_beyond_pillow:
            return _decode_bands(path, tags, layout, most)
        with _open(path, name) as image:
            # With a name, Pillow would map plain TIFFs into memory, at the size that they have when turned sideways.
            image.filename = ""
            _check_size(path, *image.size, most)
            frames = _frames(path, image)
            scale = _scale_down(path, image, enough) if enough and image.format in _JPEG else 1
            # The tile's raw mode is lost once the pixels are loaded.
            deep = image.format == "PNG" and image.mode in ("LA", "RGB", "RGBA") and ";16" in str(image.tile)
            image.load()  # turns a TIFF, but nothing else
            orientation = as_orientation(tags.get(_ORIENTATION, 1)) if tags else exif_orientation(path, image)
            content = _deep_png(path, image) if deep else _numbers(image, layout)
            return Decoded(content if tags else upright(content, orientation), orientation, frames, layout, scale)
    except UnidentifiedImageError as error:
        raise ImageError(path, _unidentified(path, name, layout)) from error
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(path, f"more than {most / 1e6:g} megapixels{_advice(8 * most)}") from error
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror or error}") from error
    except Exception as error:  # on damaged files, Pillow's decoders raise nearly anything
        raise ImageError(path, f"cannot be decoded: {type(error).__name__}: {error}") from error


def stored_size(path: Path) -> tuple[int, int] | None:
    """Return the height and width of an image as it is stored, by the head of its file; None if Pillow cannot tell."""
    Image.MAX_IMAGE_PIXELS = 4 * _most_pixels()
    try:
        if (name := format_of(path)) == "NPY":
            return size_of(path)
        with _open(path, name) as image:
            return image.height, image.width
    except Exception:  # on damaged files, Pillow's decoders raise nearly anything
        return None


def _most_pixels() -> int:
    text = os.environ.get(_MEGAPIXELS, "500")
    try:
        most = float(text)
    except ValueError:
        most = math.nan
    if not 1 <= most <= 1_000_000:  # true of NaN too
        raise UserError(f"The environment variable {_MEGAPIXELS}={text}: expected megapixels, such as 1000.")
    return int(most * 1e6)


def _check_size(path: Path, width: int, height: int, most: int) -> None:
    if width * height > most:
        size = f"{height} x {width} pixels are {width * height / 1e6:.0f} megapixels, more than {most / 1e6:g}"
        raise ImageError(path, size + _advice(width * height))


def _advice(pixels: int) -> str:
    hundreds = 100 * math.ceil(pixels / 1e8)
    return (
        f"; if there is memory for it (several times 3 bytes a pixel), set the environment variable "
        f"{_MEGAPIXELS}={hundreds}"
    )


def _decode_bands(path: Path, tags: Mapping[int, Any], layout: tiff.Layout, most: int) -> Decoded:
    """Return the image of a TIFF of several bands that Pillow cannot read right."""
    width, height = int(tags[256]), int(tags[257])
    _check_size(path, width, height, most)
    if not layout.is_readable:
        raise ImageError(path, f"it holds {layout}, compressed in a way not supported for them; {_RESAVE}")
    bands = tiff.read_bands(path, tags)
    bands = np.bitwise_not(bands) if layout.inverted else bands
    content: Image.Image | NDArray[Any] = bands
    if layout.colours == "CMYK":
        content = Image.fromarray((bands >> 8).astype(np.uint8), "CMYK")
    elif bands.dtype == np.uint8:
        content = Image.fromarray(bands)
    elif layout.bands == 2:  # grey and alpha
        content = np.stack([bands[..., 0]] * 3 + [bands[..., 1]], axis=2)
    orientation = as_orientation(tags.get(_ORIENTATION, 1))
    return Decoded(upright(content, orientation), orientation, tiff.count_pages(path), layout)


def _scale_down(path: Path, image: Image.Image, enough: Enough) -> int:
    """Let the decoder make the smallest image that is enough of a JPEG, from its blocks of 8 x 8 pixels.

    Returns:
        How many times smaller it is: 8, 4, 2 or 1. If that did not divide the sides, the image would be distorted.
    """
    turned = exif_orientation(path, image) in SIDEWAYS
    width, height = image.size
    least = enough(width, height) if turned else enough(height, width)
    if least is None:
        return 1
    rows, columns = least[::-1] if turned else least
    for scale in (8, 4, 2):
        if height % scale == width % scale == 0 and height >= scale * rows and width >= scale * columns:
            image.draft(None, (width // scale, height // scale))
            return width // image.width
    return 1


def _deep_png(path: Path, image: Image.Image) -> NDArray[np.uint16]:
    """Return the colours of a 16-bit PNG, of which Pillow has kept the high bytes."""
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is not None and found.dtype == np.uint16 and found.ndim == 3:
        rgb = found[..., [2, 1, 0, *range(3, found.shape[2])]]
        kept = np.asarray(image)
        same = rgb[..., [0, -1]] if image.mode == "LA" else rgb[..., : kept.shape[2]]
        if same.shape == kept.shape and np.array_equal(same // 256, kept):
            return np.asarray(rgb, np.uint16)
    raise ImageError(path, "two decoders read its 16-bit colours differently; save it again, or with 8 bits")


def _numbers(image: Image.Image, layout: tiff.Layout | None) -> Image.Image | NDArray[Any]:
    """Return a grey image of 16 bits, or of a type that Pillow does not have, as an array; others as they are."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        return np.uint16(65535) - values if layout and layout.inverted else values  # Pillow inverts 8 bits only
    missing = {("L", "signed"): np.int8, ("I", "unsigned"): np.uint32}.get((image.mode, layout.kind if layout else ""))
    return image if missing is None else np.asarray(image).view(missing)


def _frames(path: Path, image: Image.Image) -> int:
    """Return the number of images or pages in a file; the preview that a JPEG may hold beside its photo is none."""
    if image.format == "TIFF":
        return tiff.count_pages(path)
    return 1 if image.format in _JPEG else int(getattr(image, "n_frames", 1))


def _open(path: Path, name: str) -> ImageFile.ImageFile:
    """Open a file with the decoder of its format alone.

    Raises:
        ImageError: There is no such decoder, or it would cut the values.
    """
    if name == "HEIF" and not _can_read_heif():
        by_content = "" if path.suffix.lower() in FORMATS[name] else ", whatever its name"
        advice = "install it with `pip install 'segtune[heif]'`, or convert the photo to JPEG or PNG"
        raise ImageError(path, f"an HEIC photo{by_content}, for which the package pillow-heif is missing; {advice}")
    if name in _FEATURES and not features.check(_FEATURES[name]):
        advice = "install Pillow from PyPI (`pip install --force-reinstall pillow`), or convert the image to PNG"
        raise ImageError(path, f"{_article(name)} image, which this build of Pillow cannot read; {advice}")
    if name == "JPEG2000" and (found := _beyond_8_bits(path)):
        advice = "convert it to TIFF or PNG, as with `gdal_translate FILE.jp2 FILE.tif` (GDAL)"
        raise ImageError(path, f"a JPEG 2000 image of {found}, which Pillow would change; {advice}")
    return Image.open(path, formats=(name,))


@cache
def _can_read_heif() -> bool:
    """Let Pillow read HEIC; return whether that is possible."""
    try:
        from pillow_heif import register_heif_opener  # an extra
    except ImportError:
        return False
    register_heif_opener(thumbnails=False, decode_threads=1)  # images are read side by side already
    return True


def _beyond_8_bits(path: Path) -> str:
    """Return which samples of a JPEG 2000 image Pillow would cut or shift, "" if none: its SIZ marker tells them.

    Pillow keeps all bits of grey images, and has unsigned samples only.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(b"\xff\x4f\xff\x51")
        bands = int.from_bytes(content[start + 40 : start + 42], "big")
        depths = content[start + 42 : start + 42 + 3 * bands : 3]
    if start < 0 or not depths:
        return ""  # damaged, which Pillow says
    bits, signed = max(depth & 127 for depth in depths) + 1, any(depth & 128 for depth in depths)
    kept = not signed and bits <= (16 if bands == 1 else 8)
    return "" if kept else f"{bands} band{'s' * (bands != 1)} of {'signed' if signed else 'unsigned'} {bits} bits"


def _unidentified(path: Path, name: str, layout: tiff.Layout | None) -> str:
    """Return why Pillow does not know a file that begins as one of a format."""
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"MM\0+":
        return f"a BigTIFF with the highest byte first, which cannot be read; {_RESAVE}"
    if layout:
        return f"it holds {layout}, in a way that cannot be read; {_EXPECTED}"
    return f"{_article(name)} image that is damaged, or of a kind that cannot be read"


def _article(name: str) -> str:
    """Return the name of a format with its article."""
    return f"{'an' if name in ('AVIF', 'HEIF') else 'a'} {NAMES[name]}"
