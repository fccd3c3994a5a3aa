"""The search for near-duplicates against brute force, and what it lists."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from segtune.data.checks.near_duplicates import FLAT, near_duplicates, near_pairs
from segtune.data.checks.scan import ImageStats, SampleStats
from segtune.data.sources.base import Pair


def sample(name: str, split: str, hash: int, *, mirrored: int = 0, pixels: str = "", spread: float = 50) -> SampleStats:
    none = np.zeros(0, np.int32)
    stats = ImageStats(hash, mirrored or hash ^ (2**64 - 1), spread, none, none)
    pair = Pair(name, Path(f"{name}.png"), Path(f"{name}.png"))
    return SampleStats(split, pair, (pixels or name).encode(), (9, 9), (0, 1), 0.5, stats)


def test_the_search_finds_what_brute_force_finds() -> None:
    rng = np.random.default_rng(3)
    plain = rng.integers(0, 2**64, 1300, dtype=np.uint64)
    flips = rng.integers(0, 64, (300, 8)).astype(np.uint64)
    changed = np.bitwise_xor.reduce(np.uint64(1) << flips, axis=1)
    plain[1000:] = plain[:300] ^ changed  # near ones, some of them in different blocks
    turned = rng.integers(0, 2**64, 1300, dtype=np.uint64)
    turned[700:800] = plain[:100] ^ np.uint64(5)
    expected = set()
    for i in range(len(plain)):
        for j in range(i + 1, len(plain)):
            straight, other = (int(plain[i] ^ hashes[j]).bit_count() for hashes in (plain, turned))
            if min(straight, other) <= 6:
                expected.add((i, j, min(straight, other), other < straight))
    found = {
        (int(i), int(j), int(distance), bool(mirror))
        for block in near_pairs(plain, turned, 6)
        for i, j, distance, mirror in zip(*block, strict=True)
    }
    assert len(expected) > 150
    assert any(mirror for *_, mirror in expected)
    assert found == expected


def test_pairs_are_listed_by_split_the_nearest_first() -> None:
    seen = [
        sample("a", "train", 0b0),
        sample("b", "train", 0b1),
        sample("c", "val", 0b11),
        sample("d", "test", 2**40 - 1, mirrored=0b1),
    ]
    across, within, counts = near_duplicates(seen, 2)
    assert [str(each) for each in across] == [
        "train b and test d (0 of 64 bits differ, one mirrored)",
        "train a and test d (1 of 64 bits differ, one mirrored)",
        "train b and val c (1 of 64 bits differ)",
        "val c and test d (1 of 64 bits differ, one mirrored)",
        "train a and val c (2 of 64 bits differ)",
    ]
    assert [str(each) for each in within] == ["train a and train b (1 of 64 bits differ)"]
    assert counts == {"train": 1}


def test_equal_pixels_and_images_without_structure_are_left_out() -> None:
    copies = [sample("a", "train", 7, pixels="same"), sample("b", "val", 7, pixels="same")]
    flat = [sample("c", "val", 7, spread=FLAT - 0.1)]
    assert near_duplicates([*copies, *flat], 6) == ([], [], {})
    assert near_duplicates([replace(one, split="train") for one in copies], 6) == ([], [], {})
    across, _, _ = near_duplicates([*copies, sample("d", "test", 7, spread=FLAT)], 6)
    assert {each.second.pair.name for each in across} == {"d"}
