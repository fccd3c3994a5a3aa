"""What a folder without masks as images looks like."""

from collections import Counter
from pathlib import Path, PurePosixPath

from segtune.data.sources.listing import Listing

#: Files in which annotation tools keep what is not an image, and what they usually are.
_KINDS = {
    ".json": "COCO, labelme or Label Studio",
    ".xml": "CVAT or Pascal VOC boxes",
    ".txt": "YOLO",
}


def recognise(root: Path) -> str:
    """Return the sentence on the annotation format of a folder, with the setting that reads it; "" for none."""
    return ""


def looks_like(listing: Listing) -> str:
    """Return the sentence on files that may hold the annotations of a folder; "" if there are none."""
    names = [PurePosixPath(name) for files in listing.files.values() for name in files]
    lists = {"train", "val", "test", "trainval", "readme", "classes", "labelmap"}
    counts = Counter(name.suffix.lower() for name in names if name.stem.lower() not in lists)
    found = [f"{counts[kind]} {kind} ({what})" for kind, what in _KINDS.items() if counts[kind]]
    return f"It has annotation files: {', '.join(found)}; masks must be images." if found else ""
