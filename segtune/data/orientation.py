"""The orientation that a file gives its image, by EXIF's numbers 1 to 8, which TIFF and others share."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: What each orientation does to the stored image to show it upright; 1 does nothing.
NAMES = {
    2: "mirrored",
    3: "turned by 180°",
    4: "flipped upside down",
    5: "turned by 270° and mirrored",
    6: "turned by 90°",
    7: "turned by 90° and mirrored",
    8: "turned by 270°",
}

#: The orientations that exchange height and width.
SIDEWAYS = (5, 6, 7, 8)

_TURNS: dict[int, tuple[Image.Transpose, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, lambda array: array[:, ::-1]),
    3: (Image.Transpose.ROTATE_180, lambda array: array[::-1, ::-1]),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, lambda array: array[::-1]),
    5: (Image.Transpose.TRANSPOSE, lambda array: array.swapaxes(0, 1)),
    6: (Image.Transpose.ROTATE_270, lambda array: np.rot90(array, -1)),
    7: (Image.Transpose.TRANSVERSE, lambda array: array[::-1, ::-1].swapaxes(0, 1)),
    8: (Image.Transpose.ROTATE_90, lambda array: np.rot90(array)),
}


def as_orientation(value: Any) -> int:
    """Return a value of the orientation's tag; 1 for one that is not in the standard."""
    return value if isinstance(value, int) and value in _TURNS else 1


def upright(content: Image.Image | NDArray[Any], orientation: int) -> Image.Image | NDArray[Any]:
    """Return an image, Pillow's or an array (H, W, ...), as its orientation shows it."""
    if orientation == 1:
        return content
    method, turn = _TURNS[orientation]
    if isinstance(content, np.ndarray):
        return np.ascontiguousarray(turn(content))
    turned = content.transpose(method)
    turned.info = content.info
    return turned


def size_mismatch(photo: tuple[int, ...], mask: tuple[int, ...], of_photo: int, of_mask: int) -> str:
    """Return why the sizes (height, width) of a photo and a mask differ, which their orientations have turned."""
    text = f"sizes differ: photo {photo[0]} x {photo[1]}, mask {mask[0]} x {mask[1]} (height x width)"
    remove = "remove it with `exiftool -Orientation= FILE`"
    if photo != mask[::-1]:
        turned = f", which its EXIF orientation has {NAMES[of_photo]}" if of_photo in SIDEWAYS else ""
        return f"{text}; a mask must have the size of its photo{turned}"
    if of_mask in SIDEWAYS:
        return (
            f"{text}; they are each other's transpose: the mask is {NAMES[of_mask]} by its own EXIF orientation, "
            f"without which it would fit: {remove}"
        )
    if of_photo in SIDEWAYS:
        return (
            f"{text}; they are each other's transpose: the photo is {NAMES[of_photo]} by its EXIF orientation, and the "
            f"mask was drawn without it: turn the mask as well, or let the photo lie as it is stored: {remove}"
        )
    return f"{text}; they are each other's transpose, by no EXIF orientation: turn one of them"
