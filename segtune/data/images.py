"""Read photos and masks from files, and decide which mask values are foreground.

Pillow decodes them: it reports a truncated file, where OpenCV silently returns what it has read so far.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from segtune.config.data_settings import DataSettings
from segtune.errors import UserError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

# Files are opened with these decoders only, whatever their extension (EPS, say, would start Ghostscript).
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")

# Pillow warns above this many pixels and refuses twice as many; its default refuses 179 MP, less than large scans.
Image.MAX_IMAGE_PIXELS = 250_000_000
# Otherwise the decoders are loaded on first use, where threads race.
Image.init()


class ImageError(UserError):
    """An image that cannot be used; the message names the file and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Foreground:
    """Which mask values are foreground.

    `rule` is `"nonzero"`, a threshold (values at or above it), or a tuple of ids. `"auto"` acts as `"nonzero"`, which
    is safe because `segtune.data.checks.integrity` makes sure that the data set has only one non-zero value. `invert`
    swaps foreground and background afterwards.
    """

    rule: Literal["auto", "nonzero"] | int | tuple[int, ...] = "auto"
    invert: bool = False

    def __call__(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where an array of mask values, of any shape, is foreground."""
        if isinstance(self.rule, str):
            inside = values != 0
        elif isinstance(self.rule, int):
            inside = values >= self.rule
        else:
            inside = np.isin(values, self.rule)
        return np.asarray(inside != self.invert)


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Return a photo as RGB, upright.

    The EXIF orientation is applied; grey, palette and CMYK become RGB; alpha is dropped; 16-bit samples keep their
    high byte (exact for 8-bit values scaled by 257).

    Returns:
        RGB, shape `(H, W, 3)`, 0 to 255.

    Raises:
        ImageError: The file is missing, empty, damaged, not an image of a supported format, or holds floats or 32-bit
            integers.
    """
    image = _open(path)
    if image.mode in ("F", "I"):
        kind = "floating-point" if image.mode == "F" else "32-bit integer"
        raise ImageError(path, f"{kind} samples have no defined range; save the photo with 8 or 16 bits a channel")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a palette with alpha is converted straight to RGB
    try:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except ValueError as error:
        raise ImageError(path, f"{error}; save the photo as RGB") from error


def read_mask(path: Path) -> NDArray[np.integer[Any]]:
    """Return a mask's label values.

    Palette masks give palette indices or, where black is not index 0, 0 for black and 1 for the only other colour.
    Grey masks give their 8- or 16-bit values (1-bit: 0 and 1). Colour masks give the grey value where all channels
    are equal, and 0 and 1 for black and one other colour. An EXIF orientation is ignored, because masks are drawn over
    the photo as displayed; a TIFF's own orientation is part of the format and applies.

    Returns:
        Raw label values, shape `(H, W)`, dtype uint8, uint16 or int32.

    Raises:
        ImageError: The file cannot be read, or its values are ambiguous as labels.
    """
    image = _open(path)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode == "P":
        return _labels_of_palette(path, image)
    if image.mode in ("L", "I") or image.mode.startswith("I;16"):
        return np.array(image)
    if image.mode not in ("LA", "RGB", "RGBA"):
        kind = "floating-point samples" if image.mode == "F" else f"colour mode {image.mode}"
        raise ImageError(path, f"a mask cannot have {kind}; save it as 8-bit grey")
    if image.info["high_byte"]:
        raise ImageError(path, "a mask cannot have several 16-bit channels; save it as 8-bit or 16-bit grey")
    channels = np.asarray(image)
    if image.mode != "RGB" and np.ptp(channels[..., -1]) > 0:
        raise ImageError(path, "the mask's alpha channel varies; save it as 8-bit grey without alpha")
    return channels[..., 0].copy() if image.mode == "LA" else _labels_of_colours(path, channels[..., :3])


def count_frames(path: Path) -> int:
    """Return the number of frames or pages in a PNG, TIFF or WebP file, of which only the first is read.

    The preview that a JPEG may hold beside its photo does not count.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return 1 if image.format in ("JPEG", "MPO") else int(getattr(image, "n_frames", 1))
    except Exception:  # a damaged page behind a good first one
        return 1


def _labels_of_palette(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    """Return the palette indices as labels, unless black, which is background by convention, is not index 0."""
    indices = np.array(image)
    colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    used = np.unique(indices)
    black = [int(index) for index in used if index < len(colours) and not colours[index].any()]
    if not black or 0 in black:
        return indices
    if len(used) > 2 or len(black) > 1:
        raise ImageError(
            path,
            f"a palette mask with {len(used)} colours, in which black is index {black[0]}, not 0; "
            "save it with the background as index 0, or as 8-bit grey labels",
        )
    return np.asarray(indices != black[0], np.uint8)


def _labels_of_colours(path: Path, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if (rgb == rgb[..., :1]).all():
        grey: NDArray[np.uint8] = rgb[..., 0]
        return grey.copy()
    packed: NDArray[np.uint32] = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours = np.unique(packed)
    if np.count_nonzero(colours) > 1:
        some = ", ".join(f"#{colour:06x}" for colour in colours[:4]) + (", ..." if len(colours) > 4 else "")
        raise ImageError(
            path,
            f"a colour mask with {len(colours)} colours ({some}); expected grey labels, a palette, or black "
            "and one colour; save the wanted class as white on black",
        )
    return np.asarray(packed != 0, np.uint8)


def _open(path: Path) -> Image.Image:
    """Return a completely decoded file; `info["high_byte"]` is whether Pillow reduced 16-bit colour to 8 bits."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            # The tile's raw mode is lost once the pixels are loaded.
            image.info["high_byte"] = image.mode in ("LA", "RGB", "RGBA") and ";16" in str(image.tile)
            image.load()
            return image
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        reason = "the file is empty" if empty else "not a JPEG, PNG, BMP, TIFF or WebP image, or damaged"
        raise ImageError(path, reason) from error
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror or error}") from error
    except Exception as error:  # on damaged files, Pillow's decoders raise nearly anything
        raise ImageError(path, f"cannot be decoded: {type(error).__name__}: {error}") from error


def foreground(settings: DataSettings) -> Foreground:
    """Return the foreground rule of the settings."""
    rule = settings.foreground
    return Foreground(tuple(rule) if isinstance(rule, list) else rule, settings.invert)
