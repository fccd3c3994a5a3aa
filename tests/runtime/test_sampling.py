"""Evenly spaced picks against numpy's."""

import numpy as np

from segtune.runtime.sampling import evenly_spaced


def test_picks_are_those_of_linspace() -> None:
    for length in range(40):
        items = [f"item {number}" for number in range(length)]
        for most in range(length + 1):
            expected = np.linspace(0, length - 1, most).round().astype(int)
            assert evenly_spaced(items, most) == [items[index] for index in expected]


def test_of_few_all_are_picked() -> None:
    assert evenly_spaced([3, 1, 2], 5) == [3, 1, 2]
    assert evenly_spaced([], 5) == []
