"""A photo with objects, and what a format makes of them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segtune.config.output_settings import PolygonSettings
from segtune.inference.annotations.base import AnnotatedImage
from segtune.inference.inputs import Source
from segtune.inference.objects import find_objects

Annotate = Callable[..., AnnotatedImage]


@pytest.fixture(scope="session")
def mask() -> np.ndarray:
    """Three objects of more than 400 pixels, (60, 90): a disc, a ring, and a box in the corner, and a speck."""
    drawn = np.zeros((60, 90), np.uint8)
    cv2.circle(drawn, (20, 22), 14, 1, -1)
    cv2.circle(drawn, (62, 20), 17, 1, -1)
    cv2.circle(drawn, (62, 20), 6, 0, -1)
    drawn[42:60, 60:90] = 1
    drawn[50, 10] = 1
    return drawn > 0


@pytest.fixture
def annotate(mask: np.ndarray, tmp_path: Path) -> Annotate:
    """Return a function that writes a photo and returns it with the objects of a mask, by default `mask`."""

    def annotated(file: str = "photos/a.jpg", mask: np.ndarray = mask, **polygons: object) -> AnnotatedImage:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mask.shape[::-1], (200, 0, 0)).save(path)
        probability = np.where(mask, 0.875, 0.0).astype(np.float32)
        objects = find_objects(mask, probability, PolygonSettings(**polygons), "skin")  # type: ignore[arg-type]
        below = path.relative_to(tmp_path / "photos").as_posix()
        return AnnotatedImage(Source(path, below.rpartition(".")[0], below), *mask.shape, objects)

    return annotated


@pytest.fixture(scope="session")
def iou() -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda first, second: float((first & second).sum() / (first | second).sum())
