"""The layout of a folder: given, found, or asked for."""

import os
from pathlib import Path

import pytest

from segtune.config.data_settings import DataSettings
from segtune.data.sources.find_layout import find_layout
from segtune.data.sources.layouts import Layout
from segtune.errors import UserError
from tests.data.layouts.small_set import put


def two(root: Path, images: str, masks: str, end: str = "") -> None:
    for name in "abc":
        put(root, f"{images}/{name}.jpg")
        put(root, f"{masks}/{name}{end}.png")


def found(root: Path, **settings: str) -> tuple[Layout, dict[str, object]]:
    _, layout, chosen = find_layout(root, DataSettings("folder", str(root), **settings))  # type: ignore[arg-type]
    return layout, dict(chosen)


def refusal(root: Path, **settings: str) -> str:
    with pytest.raises(UserError) as caught:
        found(root, **settings)
    return str(caught.value)


def test_what_is_given_is_not_chosen(tmp_path: Path) -> None:
    two(tmp_path, "photos", "labels", "_gt")
    layout = Layout("photos", "labels", "*_gt")
    assert found(tmp_path) == (layout, {"images": "photos", "masks": "labels", "mask_name": "*_gt"})
    assert found(tmp_path, images="./photos/") == (layout, {"masks": "labels", "mask_name": "*_gt"})
    assert found(tmp_path, masks=str(tmp_path / "labels"), mask_suffix="_gt.png") == (layout, {"images": "photos"})
    assert found(tmp_path, images="photos", masks="labels", mask_name="*_gt") == (layout, {})


def test_the_usual_folders_are_looked_at_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two(tmp_path, "images", "masks")
    two(tmp_path, "imgs", "labels")
    put(tmp_path, "runs/x/y.png")
    listed: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(Path(path).name) or scan(path))  # type: ignore[func-returns-value]
    assert found(tmp_path)[0] == Layout("images", "masks", "*")
    assert listed == ["images", "masks"]


def test_places_outside_of_the_folder_are_given_together(tmp_path: Path) -> None:
    two(tmp_path, "elsewhere/photos", "labels", "_gt")
    (tmp_path / "data").mkdir()
    root = tmp_path / "data"
    layout, chosen = found(root, images="../elsewhere/photos", masks=str(tmp_path / "labels"))
    assert (layout, chosen) == (Layout("elsewhere/photos", "labels", "*_gt"), {"mask_name": "*_gt"})
    assert (
        refusal(root, masks="../labels") == f"{tmp_path}/labels is outside of data.root={root}. Set data.images, too."
    )


def test_a_folder_that_is_not_there_names_the_others(tmp_path: Path) -> None:
    two(tmp_path, "photos", "labels")
    assert refusal(tmp_path, images="photo") == (
        f"data.images=photo: there is no such folder in {tmp_path}. Set it to a folder or a pattern relative to "
        f"data.root; {tmp_path} has labels/, photos/. Did you mean photos?"
    )
    assert refusal(tmp_path, masks="label/*.png").startswith("data.masks=label/*.png: there is no such folder in ")


def test_several_ways_to_read_a_folder_are_listed_to_paste(tmp_path: Path) -> None:
    two(tmp_path, "imgs", "labels")
    two(tmp_path, "imgs", "masks", "_b c")
    assert refusal(tmp_path) == (
        f"{tmp_path} can be read in several ways. Add the settings of the one that is meant:\n"
        "  data.images=imgs data.masks=labels (3 pairs)\n"
        "  data.images=imgs data.masks=masks 'data.mask_name=*_b c' (3 pairs)"
    )


def test_kinds_of_masks_in_given_folders_are_listed_too(tmp_path: Path) -> None:
    two(tmp_path, "one", "two", "_ids")
    two(tmp_path, "one", "two", "_edges")
    assert refusal(tmp_path, images="one", masks="two").splitlines()[1:] == [
        "  data.images=one 'data.masks=two/*_edges' (3 pairs)",
        "  data.images=one 'data.masks=two/*_ids' (3 pairs)",
    ]
    assert found(tmp_path, images="one", masks="two/*_ids")[1] == {"mask_name": "*"}
    assert found(tmp_path, images="one", masks="two/*_ids", mask_name="*")[1] == {}


def test_what_nothing_tells_is_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "readme.txt")
    begin = f"{tmp_path} has no images: got readme.txt. Expected files that end in .avif .bmp "
    assert refusal(tmp_path).startswith(begin)
    put(tmp_path, "a.jpg")
    begin = (
        f"No folder masks/ in {tmp_path}. Expected images/ with the photos and masks/ with masks of the same names; "
    )
    assert refusal(tmp_path) == (
        f"{begin}got a.jpg, readme.txt. Other folders and names: data.images=…, data.masks=…, data.mask_suffix=… or "
        "data.pairs=FILE.csv."
    )
    put(tmp_path, "a.json")
    assert refusal(tmp_path).endswith(
        "got a.jpg, a.json, readme.txt. It has annotation files: 1 .json (COCO, labelme or Label Studio); masks must "
        "be images."
    )
    put(tmp_path, "a_1.png")
    assert "Names of files match: if these are photos and their masks, set data.images=. data.masks=. " in refusal(
        tmp_path
    )


def test_the_folder_above_may_be_meant(tmp_path: Path) -> None:
    two(tmp_path, "images", "masks")
    assert refusal(tmp_path / "images").endswith(f"got a.jpg, b.jpg, c.jpg. Perhaps data.root={tmp_path} is meant.")
    assert refusal(tmp_path / "masks").endswith(f"got a.png, b.png, c.png. Perhaps data.root={tmp_path} is meant.")


def test_folders_whose_names_do_not_match_show_what_they_hold(tmp_path: Path) -> None:
    for name in ("imgs/a.jpg", "imgs/b.jpg", "gt/x.png"):
        put(tmp_path, name)
    text = (
        f"No photo in {tmp_path} has a mask: imgs/ contains a.jpg, b.jpg; gt/ contains x.png. Photo and mask must have "
    )
    assert refusal(tmp_path).startswith(text)
    assert refusal(tmp_path, images="imgs", masks="gt").startswith(text)
    two(tmp_path, "photos", "labels", "_m")
    assert refusal(tmp_path, images="photos", masks="labels", mask_suffix="_gt").endswith(
        " Masks are named *_m, where * is the name of the photo: set data.mask_name='*_m'"
    )


def test_a_folder_that_cannot_be_read_is_named_if_it_may_hold_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two(tmp_path, "train/images", "train/masks")
    for folder in ("notes", "val"):
        (tmp_path / folder).mkdir()
    locked, scan = {"notes"}, os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name in locked:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(tmp_path)[0].images == "{split}/images"
    locked.add("val")
    assert refusal(tmp_path).endswith("/val cannot be read: Permission denied.")
