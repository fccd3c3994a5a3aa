"""What a folder without masks as images looks like."""

from pathlib import Path

from segtune.data.sources.listing import Listing
from segtune.data.sources.recognise import looks_like, recognise


def test_files_of_annotation_tools_are_named(tmp_path: Path) -> None:
    assert looks_like(Listing(tmp_path, {"": ["a.jpg", "train.txt", "README.txt"]})) == ""
    found = Listing(tmp_path, {"": ["a.jpg", "train.txt"], "labels": ["a.json", "b.JSON", "c.xml"]})
    assert looks_like(found) == (
        "It has annotation files: 2 .json (COCO, labelme or Label Studio), 1 .xml (CVAT or Pascal VOC boxes); masks "
        "must be images."
    )
    assert recognise(tmp_path) == ""
