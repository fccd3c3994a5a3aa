"""Photos and masks in one folder."""

import pytest

from segtune.data.sources.one_folder import both_in_one

PHOTOS = ["a", "b", "ab"]


def first(*names: str, sure: bool = True) -> tuple[str, str, str] | None:
    return next(both_in_one([("", name) for name in names], sure=sure), None)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("{}_mask.png", ("", "", "*_mask")),
        ("{}-GT.png", ("", "", "*-GT")),
        ("mask_{}.png", ("", "", "mask_*")),
        ("{}.jpg.png", ("", "", "*.jpg")),
        ("{}.png", ("*.jpg", "*.png", "*")),
        ("{}_1.png", None),  # nothing says that it is a mask
        ("{}.jpeg", None),  # masks are not compressed with loss
    ],
)
def test_masks_are_told_by_their_names(mask: str, expected: tuple[str, str, str] | None) -> None:
    assert first(*(f"{name}.jpg" for name in PHOTOS), *(mask.format(name) for name in PHOTOS)) == expected


def test_what_is_not_sure_is_found_only_when_asked() -> None:
    names = [f"{name}{end}" for name in PHOTOS for end in (".jpg", "_1.png")]
    assert first(*names, sure=False) == ("", "", "*_1")


def test_photos_may_have_a_word_of_their_own() -> None:
    files = [("", f"{number}{end}") for number in range(3) for end in ("_sat.jpg", "_mask.png")]
    assert ("*_sat", "*_mask", "*") in list(both_in_one(files))
    for photo, mask in (("img_", "gt_"), ("image", "mask")):
        files = [("", f"{start}{number}.png") for number in range(3) for start in (photo, mask)]
        assert (f"{photo}*", f"{mask}*", "*") in list(both_in_one(files))


def test_each_image_may_have_a_folder_of_its_own() -> None:
    """As labelme's `labelme_export_json` makes them."""
    files = [(f"{number}", f"{name}.png") for number in range(3) for name in ("img", "label", "label_viz")]
    assert ("img", "label", "*") in list(both_in_one(files))
