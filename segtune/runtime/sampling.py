"""Select items from a sequence."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """Return up to `most` evenly spaced items, including the first and, of two or more, the last."""
    if most >= len(items):
        return list(items)
    if most < 2:
        return list(items[:most])
    step = (len(items) - 1) / (most - 1)
    return [items[round(step * number)] for number in range(most)]
