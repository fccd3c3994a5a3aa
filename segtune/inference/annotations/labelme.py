"""labelme: a JSON file for each image. See https://github.com/wkentaro/labelme, `labelme/label_file.py` (5.5)."""

import json
from pathlib import Path
from typing import Any

from segtune.inference.annotations.base import AnnotatedImage, Annotations
from segtune.inference.inputs import Source

#: The version of labelme whose files these are.
_VERSION = "5.5.0"


class Labelme(Annotations):
    """Polygons; labelme turns a photo by its EXIF orientation, as segtune does.

    A link to the photo is beside its file, because labelme lists the photos of a folder, and saves the path of the one
    that it shows. Objects have, beside what labelme knows, a `score`, which it keeps. It has no holes: see
    `segtune.inference.polygons`.
    """

    @staticmethod
    def file_of(source: Source) -> str:
        """Return the name of an image's own file."""
        return f"{source.name}.json"

    @staticmethod
    def link_of(source: Source) -> str:
        """Return where the photo is expected."""
        return f"{source.name}{source.path.suffix}"

    def add(self, image: AnnotatedImage) -> str:
        """Return the content of an image's file."""
        shapes = [
            {
                "label": each.label,
                "points": each.polygon.tolist(),
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            }
            | ({} if each.score is None else {"score": each.score})
            for each in image.objects
        ]
        content: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(self.link_of(image.source)).name,
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
