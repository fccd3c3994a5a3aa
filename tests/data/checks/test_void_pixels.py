"""What looks like void, and data of which much is void, by hand."""

from pathlib import Path

import pytest

from segtune.data.checks.scan import SampleStats
from segtune.data.checks.void_pixels import name_of, on_void, void_problems, void_value
from segtune.data.labels import Colour, Foreground, Value
from segtune.data.sources.base import Pair

VOC, RED = Colour(255, 0xE0E0C0), Colour(-1, 0xE6194B)


def sample(split: str, name: str, *values: Value, void: float = 0.0, ignored: tuple[Value, ...] = ()) -> SampleStats:
    pair = Pair(name, Path(f"{name}.png"), Path(f"{name}.png"))
    return SampleStats(split, pair, b"", (10, 10), values, 0.5, void=void, void_values=ignored)


@pytest.mark.parametrize(
    ("values", "void"),
    [
        ((0, 1, 255), 255),
        ((0, 1, 2, 255), 255),
        ((0, 255), None),
        ((0, 1, 2), None),
        ((0, 128, 255), None),  # greys spread evenly
        ((0, 85, 170, 255), None),
        ((0, 254, 255), None),  # ids up to 255
        ((0, 1, VOC), VOC),
        ((0, 1, Colour(21, 0xE0E0C0)), Colour(21, 0xE0E0C0)),
        ((0, Colour(1, 0xFF0000)), None),
    ],
)
def test_what_looks_like_void_beside_numbers(values: tuple[Value, ...], void: Value | None) -> None:
    assert void_value([sample("train", "a", *values)], values[1:], numbered=True) == void


def test_what_looks_like_void_beside_colours() -> None:
    free = Colour(-1, 0xE0E0C0)
    assert void_value([sample("train", "a", 0, RED, free)], [RED, free], numbered=False) == free
    assert void_value([sample("train", "a", 0, free)], [free], numbered=False) is None
    assert void_value([sample("train", "a", 0, 1, 255)], [1, 255], numbered=False) is None
    apart = [sample("train", "a", 0, RED), sample("train", "b", 0, free)]
    assert void_value(apart, [RED, free], numbered=False) is None
    assert void_value([sample("train", "a", 0, 1), sample("train", "b", 0, 255)], [1, 255], numbered=True) is None


def test_how_void_is_named() -> None:
    assert (name_of(255), name_of(VOC), name_of(Colour(-1, 0xE0E0C0))) == ("255", "255", "#e0e0c0")
    assert "data.foreground=[1,7] makes it background" in on_void([7, 1, 255], 255)
    assert "ids without it make it background" in on_void([*range(1, 20), 255], 255)
    assert "data.ignore=#e0e0c0 leaves it out" in on_void([RED, Colour(-1, 0xE0E0C0)], Colour(-1, 0xE0E0C0))


def found(seen: list[SampleStats], *ignore: int | str) -> list[str]:
    return [str(problem) for problem in void_problems(seen, Foreground(ignore=ignore))]


def test_wholly_void_masks_are_named_and_splits_of_nothing_else() -> None:
    some = sample("train", "a", 0, 1, void=0.5, ignored=(255,))
    whole = [sample(split, name, void=1.0, ignored=(255,)) for split, name in (("train", "b"), ("val", "c"))]
    assert found([some], 255) == []
    assert found([some, *whole], 255) == [
        "warning: val: nothing but void: no pixel of all 1 masks has a label; check data.ignore",
        "warning: masks: wholly void: 2 of 3 masks, which count nowhere: train b, val c; check data.ignore",
    ]
    for split in ("train", "all"):
        error = f"error: {split}: nothing but void: no pixel of all 1 masks has a label; check data.ignore"
        assert found([sample(split, "a", void=1.0)])[0] == error


def test_values_to_ignore_that_occur_nowhere() -> None:
    seen = [sample("train", "a", 0, 1, void=0.1, ignored=(VOC,)), sample("val", "b", 0, void=0.1, ignored=(7,))]
    assert found(seen, 255, "#e0e0c0", 7, "#070707") == []
    assert found(seen, 255, 254, 7, "#e0e0c1") == [
        "warning: masks: values of data.ignore that occur in no mask: 254, #e0e0c1"
    ]
