"""Read photos and masks from files.

Pillow decodes them: it reports a truncated file, where OpenCV silently returns what it has read so far.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from segtune.data.labels import Mask, Value, as_value
from segtune.errors import UserError
from segtune.runtime.paths import special_kind

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


def read_mask(path: Path) -> Mask:
    """Return a mask as its file holds it; what is foreground in it is for the whole data set to say.

    Grey masks hold their 8-, 16- or 32-bit values. Palette and 1-bit masks hold indices with their colours, colour
    masks up to 256 colours; grey among them counts as its grey value. An EXIF orientation is ignored, because masks are
    drawn over the photo as displayed; a TIFF's own orientation is part of the format and applies.

    Returns:
        Values of shape `(H, W)`; an array of numbers is uint8, uint16 or int32.

    Raises:
        ImageError: The file cannot be read, or holds what cannot be labels.
    """
    image = _open(path)
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        _check_alpha(path, image.convert("RGBA"), of_colours=True)
    if image.mode == "1":
        return Mask(np.asarray(image).astype(np.uint8), (0, as_value(1, 0xFFFFFF)))
    if image.mode == "P":
        return _palette_mask(path, image)
    if image.mode in ("L", "I") or image.mode.startswith("I;16"):
        return Mask(np.array(image))
    if image.mode not in ("LA", "RGB", "RGBA"):
        kind = "floating-point samples" if image.mode == "F" else f"colour mode {image.mode}"
        raise ImageError(path, f"a mask cannot have {kind}; save it as 8-bit grey")
    if image.info["high_byte"]:
        raise ImageError(path, "a mask cannot have several 16-bit channels; save it as 8-bit or 16-bit grey")
    if image.mode != "RGB":
        _check_alpha(path, image)
    return Mask(np.array(image.convert("L"))) if image.mode == "LA" else _colour_mask(path, image.convert("RGB"))


def count_frames(path: Path) -> int:
    """Return the number of frames or pages in a PNG, TIFF or WebP file, of which only the first is read.

    The preview that a JPEG may hold beside its photo does not count.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return 1 if image.format in ("JPEG", "MPO") else int(getattr(image, "n_frames", 1))
    except Exception:  # a damaged page behind a good first one
        return 1


def _palette_mask(path: Path, image: Image.Image) -> Mask:
    """Return the indices of a palette mask with their colours."""
    palette = np.zeros((256, 3), np.uint32)
    colours = np.array(image.getpalette("RGB"), np.uint32).reshape(-1, 3)
    palette[: len(colours)] = colours
    packed = (palette @ _PACK).tolist()
    # Behind the entries that are set, black fills the palette: such an index is a number without a colour.
    unset = packed[0] == 0
    legend: list[Value] = [
        index if index >= len(colours) or (unset and rgb == 0) else as_value(index, rgb)
        for index, rgb in enumerate(packed)
    ]
    indices = np.array(image)
    return Mask(indices) if legend == list(range(256)) else Mask(indices, legend)


_PACK = np.array([1 << 16, 1 << 8, 1], np.uint32)
_MOST_COLOURS = 256


def _colour_mask(path: Path, image: Image.Image) -> Mask:
    """Return an RGB image as positions in a legend of its colours."""
    rgb = np.asarray(image)
    if (rgb == rgb[..., :1]).all():
        return Mask(rgb[..., 0].copy())
    packed: NDArray[np.uint32] = rgb.astype(np.uint32) @ _PACK
    counted = image.getcolors(_MOST_COLOURS)
    colours = np.unique(packed) if counted is None else np.unique([colour for _, colour in counted], axis=0) @ _PACK
    if counted is None:
        some = ", ".join(f"#{colour:06x}" for colour in colours[:4])
        raise ImageError(
            path,
            f"a colour mask with {len(colours)} colours ({some}, ...), as photos and JPEG files have; expected "
            "grey labels, a palette, or a few colours without blurred edges; save the wanted class as white on black",
        )
    colours = np.sort(colours)
    legend = [as_value(-1, rgb) for rgb in colours.tolist()]
    return Mask(np.searchsorted(colours, packed).astype(np.uint8), legend)


def _check_alpha(path: Path, image: Image.Image, *, of_colours: bool = False) -> None:
    """Refuse alpha that varies; that of single colours is allowed if none, or exactly black, is transparent."""
    alpha, rest = np.asarray(image.getchannel("A")), np.asarray(image)[..., :-1]
    if np.ptp(alpha) == 0 or (of_colours and (alpha.all() or np.array_equal(alpha > 0, rest.any(axis=2)))):
        return
    if (np.ptp(rest, axis=(0, 1)) == 0).all():
        raise ImageError(path, "the mask's alpha channel varies, its colour does not; save the alpha as 8-bit grey")
    raise ImageError(path, "the mask's alpha channel varies; save it as 8-bit grey without alpha")


def _open(path: Path) -> Image.Image:
    """Return a completely decoded file; `info["high_byte"]` is whether Pillow reduced 16-bit colour to 8 bits."""
    if kind := special_kind(path):
        raise ImageError(path, f"{kind}, not a file")
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
