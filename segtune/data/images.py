"""Read photos and masks from files."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtune.data.decoding import Decoded, Enough, decode
from segtune.data.decoding import ImageError as ImageError
from segtune.data.labels import Mask, Value, as_value

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

#: The largest value of 16-bit samples, which is white unless `data.max_value` says otherwise.
FULL_RANGE = 65535


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as its file holds it, but upright.

    `samples` is RGB, (H, W, 3), uint8 or uint16. `orientation` is the file's, 1 to 8, which has been applied; `frames`
    is how many images the file holds, of which this is the first; `scale` how many times smaller than there it is.
    """

    samples: NDArray[np.uint8] | NDArray[np.uint16]
    orientation: int
    frames: int
    scale: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in the file, upright."""
        height, width = self.samples.shape[:2]
        return height * self.scale, width * self.scale

    def pixels(self, max_value: int | None) -> NDArray[np.uint8]:
        """Return the photo in 8 bits; a sample of 16 bits is white at `max_value` and above, None for 65535."""
        if self.samples.dtype == np.uint8:
            return np.asarray(self.samples, np.uint8)
        return _to_8_bits(FULL_RANGE if max_value is None else max_value)[self.samples]


@cache
def _to_8_bits(max_value: int) -> NDArray[np.uint8]:
    """Return the 8-bit value of every 16-bit one; where `max_value` is 2^k - 1, the highest 8 of k bits."""
    return (np.minimum(np.arange(FULL_RANGE + 1), max_value) * 256 // (max_value + 1)).astype(np.uint8)


def read_photo(path: Path, max_value: int | None = None) -> NDArray[np.uint8]:
    """Return a photo as RGB of 8 bits, upright.

    The orientation of the file is applied; grey, palette and CMYK become RGB; alpha is dropped. Samples of 16 bits are
    scaled so that `max_value` is white; None is 65535, which keeps their high bytes (exact for 8-bit values scaled by
    257).

    Returns:
        RGB, shape `(H, W, 3)`, 0 to 255.

    Raises:
        ImageError: As `load_photo`.
    """
    return load_photo(path).pixels(max_value)


def load_photo(path: Path, enough: Enough | None = None) -> Photo:
    """Return a photo with all its bits.

    Args:
        path: The file.
        enough: Lets a JPEG be decoded smaller, see `decode`.

    Raises:
        ImageError: The file is missing, empty, damaged, not an image of a supported format, or holds other samples
            than unsigned ones of up to 16 bits.
    """
    decoded = decode(path, enough)
    content, layout = decoded.content, decoded.layout
    unbounded = layout and (layout.kind != "unsigned" or layout.bits > 16)
    if unbounded or (isinstance(content, Image.Image) and content.mode in ("F", "I")):
        raise ImageError(path, _no_range(decoded))
    if isinstance(content, Image.Image):
        samples: NDArray[Any] = _rgb(path, content)
    else:
        if layout and layout.bits == 12:
            content = content << 4 | content >> 8  # to the full range of 16 bits
        samples = np.stack([content] * 3, axis=2) if content.ndim == 2 else np.ascontiguousarray(content[..., :3])
    return Photo(samples, decoded.orientation, decoded.frames, decoded.scale)


def _no_range(decoded: Decoded) -> str:
    """Return why samples whose black and white no format defines are refused."""
    values = np.asarray(decoded.content)
    floats = values.dtype.kind == "f"
    found = np.isfinite(values)
    extent = f"{values[found].min():g} to {values[found].max():g}" if found.any() else "no number"
    layout = decoded.layout
    kind = "floating-point" if floats else f"{layout.bits if layout else 32}-bit integer"
    sign = "" if floats or not layout else f"{layout.kind} "
    advice = "save the photo with 8 or 16 bits a channel, unsigned"
    return f"{kind} samples have no defined range; {advice} (this file has {sign}{extent})"


def _rgb(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a palette with alpha is converted straight to RGB
    try:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except ValueError as error:
        raise ImageError(path, f"{error}; save the photo as RGB") from error


def read_mask(path: Path) -> Mask:
    """Return a mask as its file holds it, upright; see `load_mask`."""
    return load_mask(path).mask


@dataclass(frozen=True, eq=False)
class LoadedMask:
    """A mask, upright; `orientation` and `frames` are of its file, as those of a photo."""

    mask: Mask
    orientation: int
    frames: int


def load_mask(path: Path) -> LoadedMask:
    """Return a mask as its file holds it; what is foreground in it is for the whole data set to say.

    Grey masks hold their 8-, 16- or 32-bit values. Palette and 1-bit masks hold indices with their colours, colour
    masks up to 256 colours; grey among them counts as its grey value. The orientation of the file is applied, as every
    viewer does.

    Returns:
        Values of shape `(H, W)`; an array of numbers is uint8, int8, uint16, int32 or uint32.

    Raises:
        ImageError: The file cannot be read, or holds what cannot be labels.
    """
    decoded = decode(path)
    content = decoded.content
    if isinstance(content, Image.Image):
        return LoadedMask(_mask_of(path, content), decoded.orientation, decoded.frames)
    if content.ndim == 3:
        raise ImageError(path, "a mask cannot have several 16-bit channels; save it as 8-bit or 16-bit grey")
    return LoadedMask(Mask(content), decoded.orientation, decoded.frames)


def _mask_of(path: Path, image: Image.Image) -> Mask:
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        _check_alpha(path, image.convert("RGBA"), of_colours=True)
    if image.mode == "1":
        return Mask(np.asarray(image).astype(np.uint8), (0, as_value(1, 0xFFFFFF)))
    if image.mode == "P":
        return _palette_mask(path, image)
    if image.mode in ("L", "I"):
        return Mask(np.array(image))
    if image.mode not in ("LA", "RGB", "RGBA"):
        kind = "floating-point samples" if image.mode == "F" else f"colour mode {image.mode}"
        raise ImageError(path, f"a mask cannot have {kind}; save it as 8-bit grey")
    if image.mode != "RGB":
        _check_alpha(path, image)
    return Mask(np.array(image.convert("L"))) if image.mode == "LA" else _colour_mask(path, image.convert("RGB"))


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
