"""Settings of what becomes of predicted masks: clean-up, and outlines for annotation tools."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from segtune.config.types import STRICT, UnitInterval

#: What a predicted mask is written as: images, or the annotations of a tool.
Format = Literal["masks", "coco", "labelme", "yolo", "cvat"]

#: A number of pixels or, below 1, a fraction of the image.
Area = Annotated[float, Field(ge=0, allow_inf_nan=False)]

#: Which objects are written as run-length encoded masks by the formats that have them.
RLE = Literal["holes", "all", "never"]

#: What objects are called where nothing says it.
OBJECT = "object"


def _some(value: Any) -> Any:
    if isinstance(value, list) and not value:
        raise ValueError("at least one format")
    return value


Formats = Annotated[Format | list[Format], AfterValidator(_some)]


def category_of(data: Mapping[str, Any]) -> str:
    """Return what the object is called by the settings of data that a model was trained on, such as "skin"."""
    given = data.get("category")
    names = [given] if isinstance(given, str) else list(given or [])
    return str(names[0]) if len(names) == 1 else OBJECT


@dataclass(frozen=True, config=STRICT)
class CleanSettings:
    """What is corrected in a predicted mask, in this order.

    `fill_holes` fills holes, all of them or those smaller than an area; `min_area` removes smaller objects; `largest`
    keeps the largest object alone. An area is in pixels of the image at its own size or, below 1, a fraction of it.
    """

    fill_holes: bool | Area = False
    min_area: Area = 0.0
    largest: bool = False

    @property
    def active(self) -> bool:
        """Whether any of it is asked for."""
        return bool(self.fill_holes or self.min_area or self.largest)


@dataclass(frozen=True, config=STRICT)
class PolygonSettings:
    """How outlines are simplified.

    `tolerance` is the most, in pixels, by which a point of an outline may move, less where otherwise the polygon and
    the mask of an object would have an IoU below `min_iou`. `rle` says which objects COCO and CVAT get as masks.
    """

    tolerance: Annotated[float, Field(ge=0, le=100)] = 1.0
    min_iou: UnitInterval = 0.997
    rle: RLE = "holes"
