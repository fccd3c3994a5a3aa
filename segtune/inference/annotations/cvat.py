"""CVAT for images 1.1: one XML file for all images. See https://docs.cvat.ai/docs/manual/advanced/xml_format."""

from pathlib import Path
from xml.etree import ElementTree as ET

from segtune.inference.annotations.base import AnnotatedImage, Annotations
from segtune.inference.inputs import Source
from segtune.inference.objects import FoundObject, run_lengths

_COLOUR = "#33ddff"


class Cvat(Annotations):
    """A polygon for each object, or a mask with run lengths along the rows of its box; the score is an attribute.

    `name` of an image is its name below the input, by which CVAT finds it in a task, and a link to it is in `images/`.
    CVAT turns photos by their EXIF orientation, as segtune does.
    """

    shared = "annotations.xml"

    def __init__(self, folder: Path, category: str) -> None:
        super().__init__(folder, category)
        self._images: list[ET.Element] = []

    @staticmethod
    def link_of(source: Source) -> str:
        """Return where the photo is expected."""
        return f"images/{source.file}"

    def add(self, image: AnnotatedImage) -> str:
        """Keep an image."""
        facts = {"id": str(len(self._images)), "name": image.source.file}
        element = ET.Element("image", facts | {"width": str(image.width), "height": str(image.height)})
        for each in image.objects:
            shape = _shape(element, each)
            if each.score is not None:
                ET.SubElement(shape, "attribute", {"name": "score"}).text = f"{each.score:.4f}"
        self._images.append(element)
        return ""

    def content(self) -> str:
        """Return the content of the shared file."""
        root = ET.Element("annotations")
        ET.SubElement(root, "version").text = "1.1"
        task = ET.SubElement(ET.SubElement(root, "meta"), "task")
        for name, text in (("name", "predictions"), ("size", str(len(self._images))), ("mode", "annotation")):
            ET.SubElement(task, name).text = text
        label = ET.SubElement(ET.SubElement(task, "labels"), "label")
        for name, text in (("name", self.category), ("color", _COLOUR), ("type", "any")):
            ET.SubElement(label, name).text = text
        attribute = ET.SubElement(ET.SubElement(label, "attributes"), "attribute")
        for name, text in (("name", "score"), ("mutable", "False"), ("input_type", "text")):
            ET.SubElement(attribute, name).text = text
        for name in ("default_value", "values"):
            ET.SubElement(attribute, name).text = ""
        root.extend(self._images)
        ET.indent(root)
        return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _shape(image: ET.Element, found: FoundObject) -> ET.Element:
    facts = {"label": found.label, "source": "auto", "occluded": "0"}
    if not found.as_mask:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in found.polygon.tolist())
        return ET.SubElement(image, "polygon", facts | {"points": points, "z_order": "0"})
    height, width = found.mask.shape
    counts = ", ".join(map(str, run_lengths(found.mask.ravel())))
    box = {"left": found.left, "top": found.top, "width": width, "height": height}
    return ET.SubElement(
        image, "mask", facts | {"rle": counts} | {name: str(n) for name, n in box.items()} | {"z_order": "0"}
    )
