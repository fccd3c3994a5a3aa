"""Masks to polygons and back, by one's own way to draw them and by those of the tools that read them."""

from collections import Counter
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from matplotlib.path import Path
from PIL import Image, ImageDraw

from segtune.config.output_settings import PolygonSettings
from segtune.inference.cleaning import components
from segtune.inference.polygons import Ring, filled, polygon

Mask = np.ndarray
DEFAULT, EXACT = PolygonSettings(), PolygonSettings(tolerance=0.2)


def of_pillow(ring: Ring, shape: tuple[int, int]) -> Mask:
    """As labelme draws a polygon, `labelme.utils.shape_to_mask`."""
    canvas = Image.new("L", shape[::-1])
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in ring.tolist()], outline=1, fill=1)
    return np.array(canvas) > 0


def of_opencv(ring: Ring, shape: tuple[int, int]) -> Mask:
    """As Ultralytics draws a polygon, `ultralytics.data.utils.polygon2mask`."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, np.asarray([ring], np.int32), color=1)
    return canvas > 0


def of_centres(ring: Ring, shape: tuple[int, int]) -> Mask:
    """The pixels whose centres are inside, by matplotlib."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = Path(ring).contains_points(np.column_stack([columns.ravel(), rows.ravel()]))
    return inside.reshape(shape)


def of_coco(ring: Ring, shape: tuple[int, int]) -> Mask:
    """Nearly as pycocotools: corners are rounded to a fifth of a pixel (`rleFrPoly`), then the pixels are as above."""
    return of_centres(np.floor(5 * ring + 0.5) / 5, shape)


WAYS: list[Callable[[Ring, tuple[int, int]], Mask]] = [of_pillow, of_opencv, of_centres, of_coco, filled]


def iou(first: Mask, second: Mask) -> float:
    return float((first & second).sum() / (first | second).sum())


def objects(mask: Mask) -> Iterator[Mask]:
    found = components(mask > 0, 8)
    for number in range(1, len(found.boxes) + 1):
        yield found.labels == number


def shapes() -> dict[str, Mask]:
    """Drawings of about 64 x 64 pixels, of which each may hold several objects."""
    rng, made = np.random.default_rng(0), {}
    rows, columns = np.mgrid[:64, :64].astype(float)
    for number, (radius, turn) in enumerate([(11.4, 0.0), (16.5, 0.3), (24.0, 0.7), (29.7, 1.1)]):
        x, y = columns - 31.7 + number / 4, rows - 31.2
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        made[f"disc {radius}"] = x**2 + y**2 < radius**2
        made[f"ring {radius}"] = (x**2 + y**2 < radius**2) & (x**2 + y**2 > (radius / 2) ** 2)
        made[f"ellipse {radius}"] = (u / radius) ** 2 + (v / radius * 2.2) ** 2 < 1
        made[f"box {radius}"] = (abs(u) < radius) & (abs(v) < 0.6 * radius)
        made[f"frame {radius}"] = made[f"box {radius}"] & ~((abs(u) < radius / 2) & (abs(v) < 0.3 * radius))
        made[f"star {radius}"] = np.hypot(x, y) < radius * (0.75 + 0.25 * np.cos(5 * np.arctan2(y, x) + turn))
        made[f"cross {radius}"] = (np.minimum(abs(u), abs(v)) < radius / 4) & (np.maximum(abs(u), abs(v)) < radius)
    for sigma in (1.0, 2.0, 4.0):
        noise = cv2.GaussianBlur(rng.normal(size=(64, 80)).astype(np.float32), (0, 0), sigma)
        made[f"blobs {sigma}"] = noise > 0.0
        made[f"sponge {sigma}"] = noise > -0.8 * noise.std()
    made["noise"] = rng.random((40, 40)) < 0.6
    made["all"] = np.ones((24, 30), bool)
    made["pixel"] = np.pad(np.ones((1, 1), bool), 3)
    made["row"] = np.pad(np.ones((1, 30), bool), 2)
    made["diagonal"] = np.eye(25, dtype=bool)
    made["chessboard"] = np.indices((21, 22)).sum(axis=0) % 2 == 0
    bridge = np.zeros((50, 60), bool)
    bridge[5:45, 0:25] = bridge[5:45, 30:60] = bridge[20, 25:30] = True  # at two borders, one pixel between
    bridge[10:20, 5:15] = bridge[30:40, 35:45] = False
    bridge[14, 5:15] = True  # a hole in two, by a bridge of one pixel
    made["bridge"] = bridge
    corner = np.zeros((40, 41), bool)
    corner[:20, :20] = corner[20:, 20:] = True
    corner[5:10, 5:10] = corner[10:15, 10:15] = False  # two holes and two squares that touch at a corner
    made["corner"] = corner
    nested = np.ones((45, 45), bool)
    nested[2:43, 2:43] = False
    nested[4:41, 4:41] = True
    nested[20:25, 5:40] = False
    made["nested"] = nested
    return made


SHAPES = shapes()


@pytest.mark.parametrize("name", SHAPES)
def test_large_objects_come_back_by_every_way_to_draw_them(name: str) -> None:
    for mask in objects(SHAPES[name]):
        ring = polygon(mask, DEFAULT)
        assert len(ring) >= 3
        assert ((ring >= 0) & (ring <= mask.shape[::-1])).all()
        for way in WAYS:
            assert mask.sum() <= 400 or iou(way(ring, mask.shape), mask) >= 0.995, way


@pytest.mark.parametrize("name", SHAPES)
def test_a_small_tolerance_keeps_every_pixel_of_every_object(name: str) -> None:
    for mask in objects(SHAPES[name]):
        ring = polygon(mask, EXACT)
        for way in WAYS:
            assert np.array_equal(way(ring, mask.shape), mask), way


def test_the_corners_are_those_of_a_square_and_few_in_round_objects() -> None:
    square = np.pad(np.ones((20, 30), bool), 3)
    ring = polygon(square, DEFAULT)
    assert len(ring) <= 8
    assert (ring.min(axis=0), ring.max(axis=0)) == (
        pytest.approx([3, 3], abs=0.011),
        pytest.approx([33, 23], abs=0.011),
    )
    rows, columns = np.mgrid[:220, :220]
    disc = np.hypot(rows - 110, columns - 110) < 100
    corners = [len(polygon(disc, PolygonSettings(tolerance=each))) for each in (0.2, 1, 4)]
    assert corners[0] > 100 > corners[1] > 25
    assert corners[2] <= corners[1]


def test_a_rough_outline_is_as_rough_as_allowed() -> None:
    rows, columns = np.mgrid[:80, :80]
    disc = np.hypot(rows - 40.3, columns - 39.8) < 30
    rough = polygon(disc, PolygonSettings(tolerance=10, min_iou=0))
    fair = polygon(disc, PolygonSettings(tolerance=10, min_iou=0.9))
    assert 3 <= len(rough) < len(fair) < len(polygon(disc, PolygonSettings(tolerance=10)))
    assert iou(filled(rough, disc.shape), disc) < 0.9 <= iou(filled(fair, disc.shape), disc)
    assert len(polygon(np.ones((2, 2), bool), PolygonSettings(tolerance=100, min_iou=0))) >= 3


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", ["disc 29.7", "star 24.0", "frame 24.0", "blobs 4.0", "sponge 2.0"])
def test_no_point_of_an_outline_moves_by_more_than_the_tolerance(name: str, tolerance: float) -> None:
    """Nor is a corner anywhere but on the outline; the distances are OpenCV's."""
    for mask in objects(SHAPES[name]):
        exact = polygon(mask, PolygonSettings(tolerance=0))
        rough = polygon(mask, PolygonSettings(tolerance=tolerance, min_iou=0))
        line = rough.astype(np.float32)[:, None]
        farthest = max(abs(cv2.pointPolygonTest(line, (float(x), float(y)), True)) for x, y in exact)
        assert farthest <= tolerance + 0.01


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        *(
            (name, tolerance)
            for name in ("ring 24.0", "frame 29.7", "nested", "corner")
            for tolerance in (0.2, 1.0, 2.5)
        ),
        *(("sponge 2.0", 0.2), ("chessboard", 0.2)),  # holes of a pixel become lines, which are forth and back too
    ],
)
def test_each_hole_is_joined_by_a_cut_without_width(name: str, tolerance: float) -> None:
    """So it is no matter whether a pixel counts whose centre is on a line; and every cut lies in the object."""
    for mask in objects(SHAPES[name]):
        ring = polygon(mask, PolygonSettings(tolerance=tolerance, min_iou=0))
        corners = [tuple(corner) for corner in ring.tolist()]
        edges = Counter(zip(corners, [*corners[1:], corners[0]], strict=True))
        cuts = [(start, end) for start, end in edges if (end, start) in edges and start < end]
        holes = len(components(~np.pad(mask, 1), 4).boxes) - 1
        assert sum(edges[cut] for cut in cuts) == holes
        for (left, top), (right, bottom) in cuts:
            assert top == bottom
            assert mask[int(top), int(left) : int(right) + 1].all()


@pytest.mark.parametrize("number", range(6))
def test_the_pixels_inside_any_polygon(number: int) -> None:
    """By the even-odd rule, also where it crosses itself or leaves the image; the oracle is matplotlib's."""
    rng = np.random.default_rng(number)
    ring = rng.uniform(-8, 48, (3 + number, 2)).round(2)
    assert np.array_equal(filled(ring, (40, 37)), of_centres(ring, (40, 37)))


def test_a_triangle_by_hand() -> None:
    ring = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    expected = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    assert np.array_equal(filled(ring, (4, 4)) | np.eye(4, dtype=bool)[::-1], expected | np.eye(4, dtype=bool)[::-1])
    assert filled(ring - 0.1, (4, 4)).sum() == 6


def test_coco_s_own_reader_draws_the_same() -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    for mask in SHAPES.values():
        for each in objects(mask):
            ring = polygon(each, DEFAULT)
            found = coco.decode(coco.merge(coco.frPyObjects([ring.ravel().tolist()], *each.shape))) > 0
            assert each.sum() <= 400 or iou(found, each) >= 0.995
