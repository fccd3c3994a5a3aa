"""Arrays in NumPy's .npy files, as images. Objects in them are pickled, and never loaded."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from segtune.data.file_formats import ImageError

_EXPECTED = "expected (H, W) of labels or grey, or (H, W, 3) of RGB, perhaps with alpha, in uint8 or uint16"


def read_array(path: Path, check_size: Callable[[int, int], None]) -> NDArray[Any]:
    """Return the array of a file.

    Args:
        path: The file.
        check_size: Called with height and width before the array is read; raises an error if they are too large.

    Returns:
        (H, W) of bool, integers or floating-point numbers, or (H, W, 3 or 4) of uint8 or uint16. Dimensions of 1 are
        left out.

    Raises:
        ImageError: The file is cut off, or holds something else.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        shape, dtype = _header(path, file)
        wanted = _image_shape(path, shape, dtype)
        check_size(*wanted[:2])
        held, needed = os.fstat(file.fileno()).st_size - file.tell(), math.prod(shape) * dtype.itemsize
        if held < needed:
            raise ImageError(path, f"it is cut off: it holds {held} of the {needed} bytes of its array")
        file.seek(0)
        array: NDArray[Any] = np.load(file, allow_pickle=False)
    return np.ascontiguousarray(array.reshape(wanted), dtype.newbyteorder("="))


def size_of(path: Path) -> tuple[int, int]:
    """Return the height and width of the array of a file, by its header.

    Raises:
        ImageError, OSError: As `read_array`.
    """
    with path.open("rb") as file:
        height, width, *_ = _image_shape(path, *_header(path, file))
    return height, width


def _header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        old = npy_format.read_magic(file) == (1, 0)  # the third version differs in names of fields only
        read = npy_format.read_array_header_1_0 if old else npy_format.read_array_header_2_0
        shape, _, dtype = read(file)
    except ValueError as error:
        raise ImageError(path, f"a NumPy file with a damaged header: {str(error).splitlines()[0]}") from error
    return shape, dtype


def _image_shape(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Return (H, W) or (H, W, channels), which is the shape without dimensions of 1.

    Raises:
        ImageError: It is no image.
    """
    if dtype.hasobject:
        raise ImageError(
            path,
            "an array of Python objects, which are pickled and never loaded, because that may run any code; save it "
            "again with a type of numbers: `numpy.save('FILE.npy', array.astype(numpy.uint8))`",
        )
    least = shape
    while len(least) > 2 and least[0] == 1:
        least = least[1:]
    if len(least) == 3 and least[2] == 1:
        least = least[:2]
    colours = len(least) == 3 and least[2] in (3, 4) and dtype.kind == "u" and dtype.itemsize < 4
    if dtype.kind in "biuf" and 0 not in least and (len(least) == 2 or colours):
        return least
    advice = ""
    if len(least) == 3 and least[0] in (3, 4) and least[2] > 4:
        advice = "; with channels first: `numpy.save('FILE.npy', numpy.moveaxis(array, 0, -1))`"
    elif len(least) == 3 and dtype.kind in "biuf":
        advice = "; with a mask for each class: `numpy.argmax` over the classes, or save the one that is meant"
    raise ImageError(path, f"an array of shape {shape} and type {dtype}; {_EXPECTED}{advice}")
