"""Names of masks by a pattern, and the pattern that masks share."""

import pytest

from segtune.data.sources.mask_names import photo_of, shared_pattern


@pytest.mark.parametrize(
    ("mask", "pattern", "photo"),
    [
        ("a", None, "a"),
        ("a_mask", "*_mask", "a"),
        ("mask_a", "mask_*", "a"),
        ("x_a_y", "x_*_y", "a"),
        ("a", "*_mask", None),
        ("_mask", "*_mask", None),
        ("aa", "a*a", None),
    ],
)
def test_the_photo_of_a_mask(mask: str, pattern: str | None, photo: str | None) -> None:
    assert photo_of(mask, pattern) == photo


@pytest.mark.parametrize(
    ("photos", "masks", "pattern"),
    [
        (["1", "2", "10"], ["1_m", "2_m", "10_m"], "*_m"),  # the longest name counts: 10, not 1
        (["a", "b"], ["mask_a", "other"], "mask_*"),
        (["a", "b"], ["c_mask", "d_mask"], None),
        ([f"p{n}" for n in range(9)], ["p0_x", *(f"q{n}" for n in range(9))], None),  # one by chance
        (["a"], ["a"], "*"),
        ([], ["a"], None),
    ],
)
def test_the_pattern_that_masks_share(photos: list[str], masks: list[str], pattern: str | None) -> None:
    assert shared_pattern(photos, masks) == pattern
