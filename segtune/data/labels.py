"""What a mask file holds, and which of it is foreground, background or void.

Mask files of one data set may hold the same objects in different ways: as grey values, as colours, or as indices of
palettes whose order differs from file to file. So a value of a mask is a number where the file has only numbers, and a
`Colour` where it has colours too; rules for both can be decided over the whole data set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segtune.config.data_settings import DataSettings
from segtune.metrics import VOID


@dataclass(frozen=True)
class Colour:
    """A colour in a mask, 0xRRGGBB, and its palette index or 1-bit value (-1: the file holds colours alone)."""

    index: int
    rgb: int

    def __str__(self) -> str:
        return f"#{self.rgb:06x}" if self.index < 0 else f"{self.index} (#{self.rgb:06x})"


# A grey value or a number without a colour, or a colour.
Value = int | Colour


def as_value(index: int, rgb: int) -> Value:
    """Return a colour as a value: as its number where it is grey and no other number names it."""
    grey = grey_of(Colour(index, rgb))
    return grey if grey is not None and index in (-1, grey) else Colour(index, rgb)


def number_of(value: Value) -> int | None:
    """Return the number that names a value: the grey value or palette index."""
    number = value.index if isinstance(value, Colour) else value
    return None if isinstance(value, Colour) and number < 0 else number


def colour_of(value: Value) -> int | None:
    """Return how a value looks, 0xRRGGBB; None for numbers beyond 8 bits, which are no colour."""
    if isinstance(value, Colour):
        return value.rgb
    return value * 0x010101 if 0 <= value <= 255 else None


def grey_of(value: Value) -> int | None:
    """Return the grey value of a number or a grey colour; None for other colours."""
    if not isinstance(value, Colour):
        return value
    return value.rgb & 255 if value.rgb == (value.rgb & 255) * 0x010101 else None


def level_of(value: Value) -> int:
    """Return how bright a value is: its grey value, or its colour's largest channel."""
    return max(value.rgb.to_bytes(3, "big")) if isinstance(value, Colour) else value


def is_background(value: Value) -> bool:
    """Return whether a value is 0 or black, the background by convention; a palette's index 0 need not be."""
    return (value.rgb if isinstance(value, Colour) else value) == 0


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask as its file holds it.

    `array` is (H, W), of any integer type. Its elements are the values themselves or, with a `legend`, positions in it.
    `void` is the element of pixels that the format itself leaves without a label, None if it has none: as crowds in
    COCO, whatever the settings say.
    """

    array: NDArray[np.integer[Any]]
    legend: Sequence[Value] | None = None
    void: int | None = None

    def values(self) -> list[Value]:
        """Return the distinct values, without that of void; of 8- and 16-bit masks without sorting."""
        counted = self.array.dtype in (np.uint8, np.uint16)
        found = np.flatnonzero(np.bincount(self.array.ravel())) if counted else np.unique(self.array)
        numbers: list[int] = found[found != self.void].tolist() if self.void is not None else found.tolist()
        return [number if self.legend is None else self.legend[number] for number in numbers]


@dataclass(frozen=True)
class Foreground:
    """Which values of masks are foreground, and which are void.

    `rule` is `"nonzero"` (everything but 0 and black), a threshold (grey values at or above it, or palette indices
    of other colours), a tuple of numbers (grey values or palette indices), or a tuple of colours as `"#rrggbb"`.
    `"auto"` acts as `"nonzero"`, which is safe because `segtune.data.checks.integrity` makes sure that the data set has
    only one such value. `invert` swaps foreground and background afterwards. `ignore` are the numbers and colours that
    are neither: void, whatever the rule says.
    """

    rule: Literal["auto", "nonzero"] | int | tuple[int | str, ...] = "auto"
    invert: bool = False
    ignore: tuple[int | str, ...] = ()

    def __call__(self, mask: Mask | NDArray[Any]) -> NDArray[np.uint8]:
        """Return the labels of a mask, or of an array of numbers of any shape: 1 (foreground), 0, and `VOID`."""
        if not isinstance(mask, Mask):
            mask = Mask(mask)
        labels: NDArray[np.uint8]
        if mask.legend is not None:
            labels = np.array([self.label_of(value) for value in mask.legend], np.uint8)[mask.array]
        else:
            labels = self._labels_of_numbers(mask.array)
        if mask.void is not None:
            labels[mask.array == mask.void] = VOID
        return labels

    def _labels_of_numbers(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        if isinstance(self.rule, str):
            inside = array != 0
        elif isinstance(self.rule, int):
            inside = array >= self.rule
        else:
            inside = np.isin(array, sorted(self.numbers))
        labels: NDArray[np.uint8] = np.asarray(inside != self.invert).view(np.uint8)
        for number in numbers_in(self.ignore):
            labels[array == number] = VOID
        return labels

    def label_of(self, value: Value) -> int:
        """Return the label of a value: 1 (foreground), 0 or `VOID`."""
        if self.ignores(value):
            return VOID
        if isinstance(self.rule, str):
            inside = not is_background(value)
        elif isinstance(self.rule, int):
            inside = brightness(value) >= self.rule
        elif self.colours:
            inside = colour_of(value) in self.colours
        else:
            inside = number_of(value) in self.numbers
        return int(inside != self.invert)

    def ignores(self, value: Value) -> bool:
        """Return whether `ignore` names a value, by its number or its colour."""
        return number_of(value) in self.ignore or colour_of(value) in colours_in(self.ignore)

    @property
    def colours(self) -> frozenset[int]:
        """The colours that the rule names, 0xRRGGBB."""
        return colours_in(self.rule if isinstance(self.rule, tuple) else ())

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers that the rule names; of colours, the grey values."""
        return numbers_in(self.rule if isinstance(self.rule, tuple) else ())


def colours_in(named: Sequence[int | str]) -> frozenset[int]:
    """Return the colours, 0xRRGGBB, among numbers and colours as `"#rrggbb"`."""
    return frozenset(int(each[1:], 16) for each in named if isinstance(each, str))


def numbers_in(named: Sequence[int | str]) -> frozenset[int]:
    """Return the numbers among numbers and colours as `"#rrggbb"`; of colours, the grey values."""
    greys = (grey_of(Colour(-1, rgb)) for rgb in colours_in(named))
    return frozenset([each for each in named if isinstance(each, int)] + [grey for grey in greys if grey is not None])


def brightness(value: Value) -> int:
    """Return what a threshold compares: the grey value, else the palette index, else the largest channel."""
    number = number_of(value)
    return level_of(value) if grey_of(value) is not None or number is None else number


def foreground(settings: DataSettings) -> Foreground:
    """Return the rule of the settings for foreground and void."""
    rule = settings.foreground
    return Foreground(tuple(rule) if isinstance(rule, list) else rule, settings.invert, tuple(settings.ignore or ()))
