"""The formats of annotations by their names."""

from collections.abc import Mapping

from segtune.inference.annotations.base import Annotations
from segtune.inference.annotations.coco import Coco
from segtune.inference.annotations.cvat import Cvat
from segtune.inference.annotations.labelme import Labelme
from segtune.inference.annotations.yolo import Yolo

FORMATS: Mapping[str, type[Annotations]] = {"coco": Coco, "labelme": Labelme, "yolo": Yolo, "cvat": Cvat}
