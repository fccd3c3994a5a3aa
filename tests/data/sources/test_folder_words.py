"""What names of folders say."""

import pytest

from segtune.data.sources.folder_words import is_aside, role, says_mask, split_of, with_split


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("images", "photos"),
        ("JPEGImages", "photos"),
        ("original_images", "photos"),
        ("masks", "masks"),
        ("Ground Truth", "masks"),
        ("SegmentationClass", "masks"),
        ("trainannot", "masks"),
        ("images_masks", "masks"),
        ("cats", None),
        ("sunset", None),
        ("train", None),
    ],
)
def test_the_role_of_a_folder(name: str, expected: str | None) -> None:
    assert role(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", "{split}"),
        ("trainannot", "{split}annot"),
        ("images_prepped_test", "images_prepped_{split}"),
        ("ISIC2018_Task1_Training_GroundTruth", "ISIC2018_Task1_{split}_GroundTruth"),
        ("val2017", "{split}2017"),
        ("trainer", "trainer"),
        ("contest", "contest"),
    ],
)
def test_the_split_in_a_name(name: str, expected: str) -> None:
    assert with_split(name) == expected


def test_words_of_splits_and_affixes() -> None:
    assert [split_of(word) for word in ("Training", "valid", "TEST", "x")] == ["train", "val", "test", None]
    assert [says_mask(affix) for affix in ("_mask", "-GT", ".seg", "_1", "_set")] == [True, True, True, False, False]
    assert [is_aside(name) for name in ("SegmentationObject", "gtFine_color", "SegmentationClass")] == [
        True,
        True,
        False,
    ]
