"""Read photos and masks from files."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtune.config.types import MaskChannel
from segtune.data.decoding import Decoded, Enough, decode
from segtune.data.file_formats import EXTENSIONS as EXTENSIONS
from segtune.data.file_formats import ImageError as ImageError
from segtune.data.labels import Mask, Value, as_value

#: The largest value of 16-bit samples, which is white unless `data.max_value` says otherwise.
FULL_RANGE = 65535
#: The types of samples of photos, and of numbers of masks.
_SAMPLES = (np.uint8, np.uint16)
_LABELS = (np.uint8, np.int8, np.uint16, np.int32, np.uint32)


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
    if unbounded or (content.mode in ("F", "I") if isinstance(content, Image.Image) else content.dtype not in _SAMPLES):
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
    values, layout = np.asarray(decoded.content), decoded.layout
    if values.dtype.kind == "b":
        return "true and false are no samples of a photo; expected unsigned ones of 8 or 16 bits"
    bits = layout.bits if layout else 8 * values.dtype.itemsize
    kind = "floating-point" if values.dtype.kind == "f" else f"{bits}-bit integer"
    sign = {"i": "signed ", "u": "unsigned "}.get(values.dtype.kind, "")
    advice = "save the photo with 8 or 16 bits a channel, unsigned"
    return f"{kind} samples have no defined range; {advice} (this file has {sign}{_extent(values)})"


def _extent(values: NDArray[Any]) -> str:
    found = values[np.isfinite(values)]
    return f"{found.min():g} to {found.max():g}" if found.size else "no number"


def _rgb(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when a palette with alpha is converted straight to RGB
    try:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except ValueError as error:
        raise ImageError(path, f"{error}; save the photo as RGB") from error


def read_mask(path: Path, channel: MaskChannel = "all") -> Mask:
    """Return a mask as its file holds it, upright; see `load_mask`."""
    return load_mask(path, channel).mask


@dataclass(frozen=True, eq=False)
class LoadedMask:
    """A mask, upright; `orientation` and `frames` are of its file, as those of a photo."""

    mask: Mask
    orientation: int
    frames: int


def load_mask(path: Path, channel: MaskChannel = "all") -> LoadedMask:
    """Return a mask as its file holds it; what is foreground in it is for the whole data set to say.

    Grey masks hold their 8-, 16- or 32-bit values; so do those of floating-point numbers that are all whole. Palette
    and 1-bit masks hold indices with their colours, colour masks up to 256 colours; grey among them counts as its grey
    value. The orientation of the file is applied, as every viewer does.

    Args:
        path: The file.
        channel: The only channel that counts, whose values are those of the mask; `all`: colours are colours.

    Returns:
        Values of shape `(H, W)`; an array of numbers is uint8, int8, uint16, int32 or uint32.

    Raises:
        ImageError: The file cannot be read, or holds what cannot be labels.
    """
    decoded = decode(path)
    content = decoded.content if channel == "all" else _channel(path, decoded.content, channel)
    if isinstance(content, Image.Image):
        mask = _mask_of(path, content)
    elif content.ndim == 3:
        raise ImageError(path, "a mask cannot have several 16-bit channels; save it as 8-bit or 16-bit grey")
    else:
        mask = Mask(_labels(path, content))
    return LoadedMask(mask, decoded.orientation, decoded.frames)


def _channel(path: Path, content: Image.Image | NDArray[Any], channel: MaskChannel) -> Image.Image | NDArray[Any]:
    """Return the values of a channel; grey has them as red, green and blue alike."""
    number = ("red", "green", "blue", "alpha").index(channel)
    alpha = content.has_transparency_data if isinstance(content, Image.Image) else content.shape[2:] == (4,)
    if channel == "alpha" and not alpha:
        raise ImageError(path, "it has no alpha channel, which data.mask_channel=alpha names")
    if not isinstance(content, Image.Image):
        return content[..., number] if content.ndim == 3 else content
    if content.mode in ("L", "I", "F") and channel != "alpha":
        return content
    try:
        return content.convert("RGBA").getchannel(number)
    except ValueError as error:
        raise ImageError(path, f"{error}; save the mask as 8-bit grey") from error


def _labels(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers of a mask in the first fitting one of `_LABELS`, if they are in another type."""
    if values.dtype in _LABELS:
        return values
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        advice = "save where they are the object, as in `numpy.save('FILE.npy', array > 0.5)`"
        text = f"a mask of fractions ({_extent(values)}), such as probabilities, holds no labels; {advice}"
        raise ImageError(path, text)
    for kind in _LABELS:
        if np.iinfo(kind).min <= values.min() and values.max() <= np.iinfo(kind).max:
            return values.astype(kind)
    raise ImageError(path, f"a mask's labels have at most 32 bits; this file has {_extent(values)}")


def _mask_of(path: Path, image: Image.Image) -> Mask:
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        _check_alpha(path, image.convert("RGBA"), of_colours=True)
    if image.mode == "1":
        return Mask(np.asarray(image).astype(np.uint8), (0, as_value(1, 0xFFFFFF)))
    if image.mode == "P":
        return _palette_mask(path, image)
    if image.mode in ("L", "I", "F"):
        return Mask(_labels(path, np.array(image)))
    if image.mode not in ("LA", "RGB", "RGBA"):
        raise ImageError(path, f"a mask cannot have colour mode {image.mode}; save it as 8-bit grey")
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
# A photo has more levels of red than this, the colours of a mask hardly.
_FEW = 16


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
    """Refuse alpha that varies, unless all and only black is transparent in a mask of few colours, which say the same.

    With `of_colours` alpha is that of single colours, which may also be partly transparent.
    """
    alpha, rest = np.asarray(image.getchannel("A")), np.asarray(image)[..., :-1]
    if (levels := _count(alpha)) == 1:
        return
    only_black = np.array_equal(alpha > 0, rest.any(axis=2))
    if (only_black or alpha.all()) if of_colours else (only_black and levels == 2 and _count(rest[..., 0]) <= _FEW):
        return
    choice = "data.mask_channel=alpha" + (" data.foreground=128" if levels > 2 else "")
    if (np.ptp(rest, axis=(0, 1)) == 0).all():
        raise ImageError(path, f"the mask's alpha channel varies, its colour does not: set {choice}")
    raise ImageError(
        path,
        f"the mask's alpha channel varies: if it is the mask, as in a cut-out, set {choice}; if the colours are, save "
        "them without alpha",
    )


def _count(channel: NDArray[np.uint8]) -> int:
    """Return the number of distinct values."""
    return int(np.count_nonzero(np.bincount(channel.ravel())))
