"""The layouts that names tell; `tests/data/layouts` has many more."""

from pathlib import Path

import pytest

from segtune.data.sources.layouts import Layout, find_layouts, likely_layouts, places_of
from segtune.data.sources.listing import Listing


def listing(*paths: str) -> Listing:
    files: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        files.setdefault(folder, []).append(name)
    return Listing(Path("root"), {folder: sorted(names) for folder, names in files.items()})


def two(images: str, masks: str, names: str = "abc") -> list[str]:
    return [f"{images}/{name}.jpg" for name in names] + [f"{masks}/{name}.png" for name in names]


def test_folders_that_say_what_they_hold_come_first() -> None:
    files = [*two("imgs", "gt"), *two("predicted", "gt"), *two("imgs", "gt_color")]
    assert find_layouts(listing(*files)) == [Layout("imgs", "gt", "*")]
    assert find_layouts(listing(*two("imgs", "gt_color"))) == [Layout("imgs", "gt_color", "*")]


def test_several_folders_of_masks_are_all_named() -> None:
    files = listing(*two("imgs", "gt"), *two("imgs", "labels"))
    assert find_layouts(files) == [Layout("imgs", "gt", "*"), Layout("imgs", "labels", "*")]
    assert find_layouts(files, masks="labels") == [Layout("imgs", "labels", "*")]
    assert places_of(files) == (["imgs"], ["gt", "labels"])


def test_names_of_people_are_no_words() -> None:
    """Ann is none for annotations, where both photos and masks have a folder of this name."""
    files = [*two("images/Ann", "masks/Ann"), *two("images/Bob", "masks/Bob")]
    assert find_layouts(listing(*files)) == [Layout("images", "masks", "*")]


def test_folders_that_differ_in_a_number_are_named_after_images() -> None:
    files = [f"img_{number}/{name}.png" for number in range(3) for name in ("photo", "mask")]
    assert find_layouts(listing(*files)) == [Layout("**/photo", "**/mask", "*")]


def test_folders_that_are_splits_and_people_at_once_are_ambiguous() -> None:
    files = listing(*two("images/train", "masks/train"), *two("images", "masks", "de"))
    assert find_layouts(files) == [Layout("images", "masks", "*"), Layout("images/{split}", "masks/{split}", "*")]


def test_half_of_the_names_must_match() -> None:
    assert find_layouts(listing(*two("imgs", "gt", "abcd"), "gt/x.png", "imgs/y.jpg")) == [Layout("imgs", "gt", "*")]
    assert not find_layouts(listing("imgs/a.jpg", "imgs/b.jpg", "imgs/c.jpg", "gt/a.png", "gt/x.png", "gt/y.png"))


def test_a_number_alone_is_no_name() -> None:
    """Unless all masks have one of a photo."""
    photos = [f"images/p{n}.jpg" for n in range(5)]
    assert not find_layouts(listing(*photos, "masks/q0.png"))
    assert not find_layouts(listing(*photos, "masks/q0.png", "masks/q1.png", "masks/q7.png"))
    found = find_layouts(listing(*photos, "masks/q0.png", "masks/q1.png"))
    assert found == [Layout("images/p*", "masks/q*", "*")]


def test_a_folder_of_masks_holds_no_photos() -> None:
    """Though its files are named after each other."""
    files = [f"labels/{name}{end}.png" for name in "abc" for end in ("", "_mask")]
    assert not find_layouts(listing(*files, "images/x.jpg"))
    assert find_layouts(listing(*files)) == [Layout("labels", "labels", "*_mask")]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (two("one", "two"), [Layout("one", "two", "*")]),  # masks are no JPEGs
        (["a.jpg", "b.jpg", "a_1.png", "b_1.png"], [Layout(".", ".", "*_1")]),
        (["one/a.jpg", "two/b.png"], []),
        ([f"p{n}/{name}.png" for n in range(20) for name in "ab"], []),  # too many to ask about each
    ],
)
def test_layouts_that_nothing_confirms(files: list[str], expected: list[Layout]) -> None:
    assert likely_layouts(listing(*files)) == expected


def test_settings_are_quoted_where_a_shell_needs_it() -> None:
    assert Layout("images", "masks", "*").settings() == "data.images=images data.masks=masks"
    assert Layout("{split}/my images", "m", "*_x").settings() == (
        "'data.images={split}/my images' data.masks=m 'data.mask_name=*_x'"
    )
