"""Folders and patterns of files."""

import unicodedata
from pathlib import Path

import pytest

from segtune.data.sources.listing import Listing
from segtune.data.sources.places import Place, fixed_part, is_pattern

LISTING = Listing(
    Path("root"),
    {
        "": ["top.jpg", "notes.txt"],
        "images": ["a.jpg", "b.PNG", "readme.md"],
        "images/p1": ["c.jpg"],
        "train": [],
        "train/images": ["d_sat.jpg", "d_mask.png"],
        "Valid/images": ["e_sat.jpg"],
        "cafe\u0301": ["f.jpg"],
        "odd/x\ny": ["1\n2.jpg"],
    },
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("images", {"a": "images/a.jpg", "b": "images/b.PNG", "p1/c": "images/p1/c.jpg"}),
        ("images/*.jpg", {"a": "images/a.jpg"}),
        ("images/**/*.jpg", {"a": "images/a.jpg", "p1/c": "images/p1/c.jpg"}),
        ("images/?.*", {"a": "images/a.jpg", "b": "images/b.PNG"}),
        ("images/p*", {"1/c": "images/p1/c.jpg"}),
        ("*.jpg", {"top": "top.jpg"}),
        ("*/images/*_sat", {"train/d": "train/images/d_sat.jpg", "Valid/e": "Valid/images/e_sat.jpg"}),
        ("train/images/d_*", {"sat": "train/images/d_sat.jpg", "mask": "train/images/d_mask.png"}),
        ("caf*", {"e\u0301/f": "cafe\u0301/f.jpg"}),
        ("caf\u00e9", {"f": "cafe\u0301/f.jpg"}),
        ("odd", {"x\ny/1\n2": "odd/x\ny/1\n2.jpg"}),
        ("odd/**/1*", {"x\ny/\n2": "odd/x\ny/1\n2.jpg"}),
        ("nowhere", {}),
    ],
)
def test_a_place_names_its_images(text: str, expected: dict[str, str]) -> None:
    found = {key.name: path for key, path in Place(text).files(LISTING)}
    assert found == {unicodedata.normalize("NFC", name): path for name, path in expected.items()}


def test_the_root_holds_everything() -> None:
    assert len(Place(".").files(LISTING)) == sum(len(LISTING.images(folder)) for folder in LISTING.files)
    assert Place(".").others(LISTING) == ["readme.md"]  # lists and notes usually lie in the root


def test_a_split_is_known_by_its_words() -> None:
    found = Place("{split}/images").files(LISTING)
    assert [(key.split, key.name) for key, _ in found] == [("val", "e_sat"), ("train", "d_sat"), ("train", "d_mask")]
    both = Listing(Path(), {"DUTS-TR/DUTS-TR-Image": ["a.jpg"], "DUTS-TR/DUTS-TE-Image": ["b.jpg"]})
    assert [key.name for key, _ in Place("DUTS-{split}/DUTS-{split}-Image").files(both)] == ["a"]


def test_what_is_fixed_in_a_place() -> None:
    texts = ("images", "./a/b", "a/*/b", "{split}/x", ".", "a/b_*.png")
    assert [fixed_part(text) for text in texts] == ["images", "a/b", "a", "", "", "a"]
    assert [is_pattern(text) for text in texts] == [False, False, True, True, False, True]
    assert Place("images").covers("images/p1")
    assert not Place("images").covers("imagesx")
