"""YOLO segmentation: a text file for each image, and `data.yaml`. See https://docs.ultralytics.com/datasets/segment."""

import yaml

from segtune.inference.annotations.base import AnnotatedImage, Annotations
from segtune.inference.inputs import Source


class Yolo(Annotations):
    """A line for each object: its class, and x and y of the corners as fractions of the image's width and height.

    The format has no place for scores, and no holes: see `segtune.inference.polygons`. Ultralytics turns a photo by its
    EXIF orientation, as segtune does.
    """

    shared = "data.yaml"

    @staticmethod
    def file_of(source: Source) -> str:
        """Return the name of an image's own file, where Ultralytics looks for it: at the last images/ of its path."""
        return "labels/".join(f"images/{source.name}.txt".rsplit("images/", 1))

    @staticmethod
    def link_of(source: Source) -> str:
        """Return where the photo is expected."""
        return f"images/{source.name}{source.path.suffix}"

    def add(self, image: AnnotatedImage) -> str:
        """Return the content of an image's file, empty without objects."""
        rings = [each.polygon / (image.width, image.height) for each in image.objects]
        return "".join(f"0 {' '.join(f'{value:.7f}' for value in ring.ravel())}\n" for ring in rings)

    def content(self) -> str:
        """Return the content of `data.yaml`."""
        facts = {"path": ".", "train": "images", "names": {0: self.category}}
        comment = "# Predictions, to be corrected. Ultralytics needs `val` too: the folder of other images.\n"
        return comment + yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
