"""What a mask file holds, and which of it is foreground.

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
    """

    array: NDArray[np.integer[Any]]
    legend: Sequence[Value] | None = None

    def values(self) -> list[Value]:
        """Return the distinct values; of 8- and 16-bit masks without sorting."""
        counted = self.array.dtype in (np.uint8, np.uint16)
        found = np.flatnonzero(np.bincount(self.array.ravel())) if counted else np.unique(self.array)
        numbers: list[int] = found.tolist()
        return [number if self.legend is None else self.legend[number] for number in numbers]


@dataclass(frozen=True)
class Foreground:
    """Which values of masks are foreground.

    `rule` is `"nonzero"` (everything but 0 and black), a threshold (grey values at or above it, or palette indices
    of other colours), a tuple of numbers (grey values or palette indices), or a tuple of colours as `"#rrggbb"`.
    `"auto"` acts as `"nonzero"`, which is safe because `segtune.data.checks.integrity` makes sure that the data set has
    only one such value. `invert` swaps foreground and background afterwards.
    """

    rule: Literal["auto", "nonzero"] | int | tuple[int | str, ...] = "auto"
    invert: bool = False

    def __call__(self, mask: Mask | NDArray[Any]) -> NDArray[np.bool_]:
        """Return where a mask, or an array of numbers of any shape, is foreground."""
        if not isinstance(mask, Mask):
            mask = Mask(mask)
        if mask.legend is not None:
            taken: NDArray[np.bool_] = np.array([self.takes(value) for value in mask.legend])[mask.array]
            return taken
        if isinstance(self.rule, str):
            inside = mask.array != 0
        elif isinstance(self.rule, int):
            inside = mask.array >= self.rule
        else:
            inside = np.isin(mask.array, sorted(self.numbers))
        return np.asarray(inside != self.invert)

    def takes(self, value: Value) -> bool:
        """Return whether a value is foreground."""
        if isinstance(self.rule, str):
            inside = not is_background(value)
        elif isinstance(self.rule, int):
            inside = brightness(value) >= self.rule
        elif self.colours:
            inside = colour_of(value) in self.colours
        else:
            inside = number_of(value) in self.numbers
        return inside != self.invert

    @property
    def colours(self) -> frozenset[int]:
        """The colours that the rule names, 0xRRGGBB."""
        named = self.rule if isinstance(self.rule, tuple) else ()
        return frozenset(int(each[1:], 16) for each in named if isinstance(each, str))

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers that the rule names; of colours, the grey values."""
        named = self.rule if isinstance(self.rule, tuple) else ()
        greys = (grey_of(Colour(-1, rgb)) for rgb in self.colours)
        return frozenset(
            [each for each in named if isinstance(each, int)] + [grey for grey in greys if grey is not None]
        )


def brightness(value: Value) -> int:
    """Return what a threshold compares: the grey value, else the palette index, else the largest channel."""
    number = number_of(value)
    return level_of(value) if grey_of(value) is not None or number is None else number


def foreground(settings: DataSettings) -> Foreground:
    """Return the foreground rule of the settings."""
    rule = settings.foreground
    return Foreground(tuple(rule) if isinstance(rule, list) else rule, settings.invert)
