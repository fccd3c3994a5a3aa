"""The statistics of a data set, by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from segtune.data.checks.scan import ImageStats, SampleStats
from segtune.data.checks.statistics import facts
from segtune.data.labels import Colour
from segtune.data.sources.base import Pair
from segtune.data.value_range import ValueRange


def sample(
    name: str, split: str, fraction: float, *objects: int, size: tuple[int, int] = (10, 20), side: int = 3
) -> SampleStats:
    areas = np.array(objects, np.int32)
    stats = ImageStats(0, 0, 50.0, areas, np.full_like(areas, side))
    pair = Pair(name, Path(f"{name}.png"), Path(f"{name}.png"))
    return SampleStats(split, pair, b"", size, (0, 255) if fraction else (0,), fraction, stats)


SEEN = [
    sample("a", "train", 0.0),
    sample("b", "train", 0.25, 4, 100, side=2),
    sample("c", "train", 1.0, 400, size=(30, 30)),
    sample("d", "val", 0.55, 8, 12, size=(5, 5)),
]


def test_foreground_by_split() -> None:
    found = facts(SEEN, 4)["splits"]
    assert list(found) == ["train", "val"]
    assert found["train"] == {
        "pairs": 3,
        "foreground_mean": 0.416667,
        "foreground_median": 0.25,
        "foreground_histogram": [1, 0, 1, 0, 0, 0, 0, 0, 0, 1],
        "empty": 1,
        "full": 1,
    }
    assert found["val"]["foreground_histogram"] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_sizes_and_values() -> None:
    found = facts(SEEN, 4)
    assert found["photos"] == {"different_sizes": 3, "smallest": [5, 5], "median": [10, 20], "largest": [30, 30]}
    assert found["mask_values"] == {"0": 4, "255": 3}
    values = (0, Colour(-1, 0x00C800), 255, Colour(1, 0xFF0000), Colour(-1, 0x0000FF))
    found = facts([replace(SEEN[0], values=values)], 4)["mask_values"]
    assert list(found) == ["0", "1 (#ff0000)", "255", "#0000ff", "#00c800"]


def test_objects_smaller_than_a_cell() -> None:
    assert facts(SEEN, 4)["objects"] == {
        "cell": 4,
        "objects": 5,
        "smallest_area": 4,
        "smallest_side": 2,
        "smallest_in": "train b",
        "median_area": 12.0,
        "small_objects": 3,  # 4, 8 and 12 of less than 16 pixels
        "small_foreground": round(24 / 524, 6),
        "pictures": 3,
        "pictures_with_small": 2,
        "pictures_of_small_only": 1,
    }


def test_without_pairs_or_objects() -> None:
    assert facts([], 8) == {
        "splits": {},
        "photos": {"different_sizes": 0},
        "photo_values": {},
        "orientation": {"photos": 0, "masks": 0, "photos_without_their_masks": [], "undecided": []},
        "mask_values": {},
        "void": {"share": 0.0, "masks": 0, "values": {}},
        "objects": {"cell": 8, "objects": 0},
    }


def test_depths_and_orientations() -> None:
    seen = [
        replace(SEEN[0], orientations=(6, 6), range=ValueRange(8, 255, 250, 600)),
        replace(SEEN[1], orientations=(3, 1), range=ValueRange(16, 65535, 4000, 600)),
        replace(SEEN[2], orientations=(1, 2), range=ValueRange(16, 65535, 3000, 600)),
        replace(SEEN[3], orientations=(8, 1), range=ValueRange(8, 255, 20, 600), size=(10, 20)),
    ]
    found = facts(seen, 8)
    assert found["photo_values"] == {"16": {"photos": 2, "largest": 4000}, "8": {"photos": 2, "largest": 250}}
    assert found["orientation"] == {
        "photos": 3,
        "masks": 2,
        "photos_without_their_masks": ["train b", "val d"],
        "undecided": ["train b", "train c"],
    }
    assert facts(SEEN[:1], 8)["objects"] == {"cell": 8, "objects": 0}


def test_void_is_counted_and_wholly_void_masks_are_in_no_mean() -> None:
    half = replace(SEEN[1], void=0.5, void_values=(255, 7))  # of 10 x 20 pixels
    whole = replace(SEEN[0], void=1.0, void_values=(255,), values=(), size=(10, 10))
    found = facts([half, whole], 4)
    assert found["void"] == {"share": round(200 / 300, 6), "masks": 1, "values": {"7": 1, "255": 2}}
    assert found["mask_values"] == {"0": 1, "255": 1}
    train = found["splits"]["train"]
    assert (train["pairs"], train["foreground_mean"], train["empty"]) == (2, 0.25, 0)
    nothing = facts([whole], 4)["splits"]["train"]
    assert (nothing["pairs"], nothing["foreground_mean"], nothing["foreground_median"]) == (1, 0, 0)
