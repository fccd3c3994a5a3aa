"""Names of masks by a pattern, the pattern that masks share, and masks that are found in spite of their names."""

import pytest

from segtune.data.sources.mask_names import match, own_affixes, own_patterns, photo_of, shared_patterns
from segtune.data.sources.places import Key


@pytest.mark.parametrize(
    ("mask", "pattern", "photo"),
    [
        ("a", None, "a"),
        ("a_mask", "*_mask", "a"),
        ("mask_a", "mask_*", "a"),
        ("x_a_y", "x_*_y", "a"),
        ("p1/a_mask", "*_mask", "p1/a"),
        ("a_mask/a", "*_mask", None),
        ("a", "*_mask", None),
        ("_mask", "*_mask", None),
        ("aa", "a*a", None),
    ],
)
def test_the_photo_of_a_mask(mask: str, pattern: str | None, photo: str | None) -> None:
    assert photo_of(mask, pattern) == photo


@pytest.mark.parametrize(
    ("photos", "masks", "patterns"),
    [
        (["1", "2", "10"], ["1_m", "2_m", "10_m"], ["*_m"]),  # the longest name counts: 10, not 1
        (["a", "b"], ["mask_a", "other"], ["mask_*"]),
        (["a", "b"], ["c_mask", "d_mask"], []),
        ([f"p{n}" for n in range(9)], ["p0_x", *(f"q{n}" for n in range(9))], []),  # one by chance
        (["a"], ["a"], ["*"]),
        ([], ["a"], []),
        (["a", "b"], ["a_x", "b_x", "a_y", "b_y"], ["*_x", "*_y"]),  # two kinds of masks
        (["a", "b"], ["a", "b", "a_y", "b_y"], ["*"]),  # the same name is no kind among others
        (["a", "b", "c", "d", "e"], ["a_x", "b_x", "c_y"], ["*_x"]),
    ],
)
def test_the_patterns_that_masks_share(photos: list[str], masks: list[str], patterns: list[str]) -> None:
    assert shared_patterns(photos, masks) == patterns


@pytest.mark.parametrize(
    ("photos", "masks", "expected"),
    [
        (["img_1", "img_2"], ["mask_1", "mask_2"], ("img_*", "mask_*")),
        (["img_1", "img_2"], ["IMG_01_m", "IMG_02_m"], ("*", "*_m")),  # what photos share is no affix of masks
        (["pic_anna", "pic_andy"], ["seg_anna", "seg_andy"], ("pic_*", "seg_*")),  # up to a whole word: not pic_an
        (["1_sat", "2_sat"], ["1_gt", "2_gt"], ("*_sat", "*_gt")),
        (["a", "b"], ["a", "b"], None),
        (["img_1"], ["mask_1"], None),
    ],
)
def test_affixes_of_their_own(photos: list[str], masks: list[str], expected: tuple[str, str] | None) -> None:
    assert own_patterns(photos, masks) == expected


def test_what_all_names_share() -> None:
    assert own_affixes(["x1_left", "x2_left"]) == ["*_left", "x*", "x*_left"]
    assert own_affixes(["a", "b"]) == own_affixes(["a_x"]) == []


def keys(*names: str, split: str = "") -> list[Key]:
    return [Key(split, name) for name in names]


def test_masks_are_found_by_equal_names_then_by_likeness() -> None:
    photos = {key: f"images/{key.name}.jpg" for key in keys("a", "b", "IMG_1", "n7", "lone")}
    found = match(photos, keys("a_m", "b.jpg_m", "img_1_m", "n007_m", "other_m", "strange"), "*_m")
    names = {photo.name: mask.name for photo, mask in found.pairs.items()}
    assert names == {"a": "a_m", "b": "b.jpg_m", "IMG_1": "img_1_m", "n7": "n007_m"}
    assert [key.name for key in found.photos] == ["lone"]
    assert {mask.name: key.name for mask, key in found.masks.items()} == {"other_m": "other"}
    assert [key.name for key in found.strange] == ["strange"]
    assert found.notes == ["1 name differs in case", "1 name differs in zeros before numbers"]


@pytest.mark.parametrize(
    ("photos", "masks"),
    [
        (["a", "A"], ["á", "aA"]),
        (["IMG", "Img"], ["img"]),  # which of both?
        (["n1"], ["n01", "n001"]),
        (["n10"], ["n1"]),  # zeros behind a number count
        (["p1/a"], ["p2/a"]),
    ],
)
def test_likeness_that_is_ambiguous_is_none(photos: list[str], masks: list[str]) -> None:
    assert not match({key: f"{key.name}.jpg" for key in keys(*photos)}, keys(*masks), None).pairs


def test_splits_do_not_mix() -> None:
    photos = {key: "a.jpg" for key in (Key("train", "a"), Key("val", "a"))}
    assert match(photos, keys("a", split="val"), None).pairs == {Key("val", "a"): Key("val", "a")}
