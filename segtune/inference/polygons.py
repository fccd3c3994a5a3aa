"""Outlines of masks as polygons, and back.

A pixel is a square here: the one in row i and column j reaches from x = j to j + 1 and from y = i to i + 1, as
annotation tools draw it. The corners of a polygon lie inside pixels of the object, at least a hundredth of a pixel from
their edges. So it means the same mask to those who take the pixels whose centres are inside (COCO, CVAT), and to those
who round the corners down to whole pixels, join these by lines and fill them (labelme by Pillow, YOLO by OpenCV).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from segtune.config.output_settings import PolygonSettings
from segtune.data.overlays import Mask

#: The corners of a polygon in order, (N, 2): x and y in pixels. The last one is joined to the first.
Ring = NDArray[np.float64]

#: A tolerance in pixels at which a simplified outline still has every pixel of its mask: the unsimplified one passes
#: the centre of no pixel in less than 0.346 pixels, and corners are rounded to pixels besides.
EXACT = 0.2

#: Between the values of background and object, so that pixels that touch at a corner are joined.
_LEVEL = 0.49


def polygon(mask: Mask, settings: PolygonSettings) -> Ring:
    """Return the outline of a connected object as one polygon, simplified (Douglas and Peucker 1973).

    Holes are joined to the outline by cuts without width, forth and back along the same line, so that the even-odd rule
    leaves them out.

    Args:
        mask: An object whose pixels touch, if only at corners, (H, W).
        settings: `tolerance` is lowered until the polygon has an IoU of `min_iou` with the mask; at 0.2 it has 1.

    Returns:
        At least three corners, rounded to hundredths; x from 0 to W, y from 0 to H.
    """
    outline, fixed = _joined(_outlines(mask))
    tolerance = settings.tolerance
    while True:
        ring = _simplified(outline, fixed, tolerance)
        if tolerance <= EXACT or (len(ring) > 2 and _agreement(ring, mask) >= settings.min_iou):
            return ring
        tolerance = max(0.7 * tolerance, EXACT)


def filled(ring: Ring, shape: tuple[int, ...]) -> Mask:
    """Return the mask of the pixels whose centres a polygon has inside, by the even-odd rule.

    Args:
        ring: The polygon.
        shape: Height and width of the mask.
    """
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    first = np.ceil(np.minimum(y, next_y) - 0.5).astype(int)
    past = np.ceil(np.maximum(y, next_y) - 0.5).astype(int)
    count = past - first  # of rows of pixel centres that each edge crosses
    edge = np.repeat(np.arange(len(ring)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (next_x - x)[edge] / (next_y - y)[edge]
    column = np.ceil(x[edge] + (row + 0.5 - y[edge]) * slope - 0.5).astype(int)
    height, width = shape
    crossings = np.zeros((height, width + 1), np.uint8)
    seen = (row >= 0) & (row < height)
    np.add.at(crossings, (row[seen], np.clip(column[seen], 0, width)), 1)
    return np.asarray(np.cumsum(crossings, axis=1, dtype=np.uint8)[:, :-1] & 1, bool)


def _by_coco(ring: Ring, shape: tuple[int, ...]) -> Mask:
    """Return a mask as pycocotools draws it, which rounds corners to a fifth of a pixel."""
    return filled(np.floor(5 * ring + 0.5) / 5, shape)


def _by_opencv(ring: Ring, shape: tuple[int, ...]) -> Mask:
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [ring.astype(np.int32)], 1)
    return canvas.view(np.bool_)


def _by_pillow(ring: Ring, shape: tuple[int, ...]) -> Mask:
    canvas = Image.new("L", (shape[1], shape[0]))
    ImageDraw.Draw(canvas).polygon(ring.ravel().tolist(), fill=1, outline=1)
    return np.array(canvas).view(np.bool_)


def _agreement(ring: Ring, mask: Mask) -> float:
    """Return the IoU of a mask with that of a polygon, by the worst of the ways in which tools draw it."""
    ways: Sequence[Callable[[Ring, tuple[int, ...]], Mask]] = (filled, _by_coco, _by_opencv, _by_pillow)
    return min(float((found & mask).sum() / (found | mask).sum()) for found in (way(ring, mask.shape) for way in ways))


def _outlines(mask: Mask) -> list[Ring]:
    """Return the outline of an object and those of its holes, with a corner wherever a line between pixels is crossed.

    The corners are between the centres of a pixel of the object and its neighbour, 0.49 pixels from the former.
    """
    height_map = np.pad(mask, 1).astype(np.float64)
    generator = contour_generator(z=height_map, fill_type=FillType.OuterOffset)
    found: Any = generator.filled(_LEVEL, 2.0)  # the corners of each object, and where those of its holes begin
    corners, starts = found[0][0] - 1, found[1][0].astype(int)
    whole = np.floor(corners)
    inner = np.where(corners > whole, 2 * whole + 1 - corners, corners)  # from 0.51 pixels of the object's to 0.49
    inner = (inner + 0.5).round(2)
    return [inner[start : end - 1] for start, end in pairwise(starts)]


def _joined(rings: Sequence[Ring]) -> tuple[Ring, NDArray[np.bool_]]:
    """Return an outline and its holes as one ring, and which corners (N,) are the ends of cuts.

    From the leftmost corner of a hole a cut leads to the left, through pixels of the object, to the outline or to
    another hole, which reaches further to the left and so is joined already (Eberly, "Triangulation by Ear Clipping").
    """
    outline = rings[0]
    fixed = np.zeros(len(outline), bool)
    for hole in sorted(rings[1:], key=lambda ring: float(ring[:, 0].min())):
        hole = np.roll(hole, -int(hole[:, 0].argmin()), axis=0)
        left = np.flatnonzero((outline[:, 1] == hole[0, 1]) & (outline[:, 0] < hole[0, 0]))
        end = left[outline[left, 0].argmax()]
        fixed[end] = True
        ends = np.zeros(len(hole) + 1, bool)
        ends[[0, -1]] = True
        outline = np.concatenate([outline[: end + 1], hole, hole[:1], outline[end:]])
        fixed = np.concatenate([fixed[: end + 1], ends, fixed[end:]])
    return outline, fixed


def _simplified(ring: Ring, fixed: NDArray[np.bool_], tolerance: float) -> Ring:
    """Return a ring with fewer corners, among them those that are `fixed`."""
    kept = np.flatnonzero(fixed)
    first = int(kept[0]) if len(kept) else 0
    path = np.concatenate([ring[first:], ring[: first + 1]])
    stops = [*(kept - first if len(kept) else [0]), len(ring)]
    parts = []
    for start, stop in pairwise(stops):
        if (path[start] == path[stop]).all():  # a loop: its farthest corner stays, too
            farthest = start + int(((path[start:stop] - path[start]) ** 2).sum(axis=1).argmax())
            parts += [path[start : farthest + 1], path[farthest : stop + 1]]
        else:
            parts.append(path[start : stop + 1])
    return np.concatenate([_thinned(part, tolerance)[:-1] for part in parts])


def _thinned(line: Ring, tolerance: float) -> Ring:
    if len(line) < 3:
        return line
    points = cv2.approxPolyDP(line.astype(np.float32)[:, None], tolerance, closed=False)
    return np.asarray(points[:, 0], np.float64).round(2)
