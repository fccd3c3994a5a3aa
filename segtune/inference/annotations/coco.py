"""COCO: one JSON file for all images. See https://cocodataset.org/#format-data and pycocotools."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from segtune.inference.annotations.base import AnnotatedImage, Annotations
from segtune.inference.inputs import Source
from segtune.inference.objects import FoundObject, run_lengths
from segtune.version import __version__


class Coco(Annotations):
    """An annotation for each object, with `score`: a polygon, or run lengths down the columns (uncompressed RLE).

    `file_name` is the photo's name below the input, and a link to it is in `images/`. Sizes are those of photos as
    displayed; not every tool that reads COCO turns photos by their EXIF orientation.
    """

    shared = "annotations.json"

    def __init__(self, folder: Path, category: str) -> None:
        super().__init__(folder, category)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    @staticmethod
    def link_of(source: Source) -> str:
        """Return where the photo is expected."""
        return f"images/{source.file}"

    def add(self, image: AnnotatedImage) -> str:
        """Keep an image."""
        number, first = len(self._images) + 1, len(self._annotations) + 1
        found = [_annotation(each, image) | {"image_id": number} for each in image.objects]
        size = {"width": image.width, "height": image.height}
        self._images.append({"id": number, "file_name": image.source.file} | size)
        self._annotations += [{"id": first + place} | each for place, each in enumerate(found)]
        return ""

    def content(self) -> str:
        """Return the content of the shared file."""
        content = {
            "info": {"description": f"predicted by segtune {__version__}"},
            "licenses": [],
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": 1, "name": self.category, "supercategory": ""}],
        }
        return json.dumps(content, ensure_ascii=False) + "\n"


def _annotation(found: FoundObject, image: AnnotatedImage) -> dict[str, Any]:
    height, width = found.mask.shape
    facts = {
        "category_id": 1,
        "segmentation": _segmentation(found, image),
        "area": found.area,
        "bbox": [found.left, found.top, width, height],
        "iscrowd": 0,
    }
    return facts if found.score is None else facts | {"score": found.score}


def _segmentation(found: FoundObject, image: AnnotatedImage) -> Any:
    if not found.as_mask:
        return [found.polygon.ravel().tolist()]
    height, width = found.mask.shape
    columns = np.zeros((image.height, width), bool)  # those of the image that the object is in
    columns[found.top : found.top + height] = found.mask
    counts = run_lengths(columns.ravel(order="F"))
    counts[0] += found.left * image.height
    counts += [0] * (len(counts) % 2 == 0)  # the last run is of background, perhaps none
    counts[-1] += (image.width - found.left - width) * image.height
    return {"size": [image.height, image.width], "counts": counts if counts[-1] else counts[:-1]}
