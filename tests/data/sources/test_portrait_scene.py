"""Shapes by their equations; a canvas that draws image and mask together."""

import numpy as np
import pytest

from segtune.data.sources.portrait_scene import Canvas, Person, ellipse, limb, smooth


@pytest.fixture
def canvas() -> Canvas:
    return Canvas(np.full((3, 64, 64), 0.5, np.float32), np.random.default_rng(0))


def square(low: float, high: float) -> np.ndarray:
    return np.array([(low, low), (high, low), (high, high), (low, high)], np.float32)


def test_points_of_an_ellipse_satisfy_its_equation() -> None:
    x, y = ellipse(3, -2, 5, 1.5).T
    np.testing.assert_allclose(((x - 3) / 5) ** 2 + ((y + 2) / 1.5) ** 2, 1, atol=1e-5)
    half = ellipse(0, 0, 1, 1, 0, 180)
    assert half[0] == pytest.approx((1, 0))
    assert half[len(half) // 2][1] > 0.99  # 90 degrees is down


def test_a_limb_is_convex_and_reaches_past_its_ends() -> None:
    outline = limb((0, 0), (10, 0), 2, 1)
    assert outline.min(0) == pytest.approx((-2, -2), abs=0.05)
    assert outline.max(0) == pytest.approx((11, 2), abs=0.05)
    edges = np.roll(outline, -1, 0) - outline
    after = np.roll(edges, -1, 0)
    turns = edges[:, 0] * after[:, 1] - edges[:, 1] * after[:, 0]
    assert (turns >= -1e-4).all() or (turns <= 1e-4).all()


def test_smoothing_cuts_corners_and_stays_inside() -> None:
    points = smooth([(0, 0), (8, 0), (8, 8), (0, 8)])
    assert len(points) == 4 * 2**3
    assert points.min() >= 0
    assert points.max() <= 8
    assert np.abs(points - 8).sum(1).min() > 1  # no corner is left
    assert points.mean(0) == pytest.approx((4, 4))


def test_the_mask_is_what_was_filled_with_skin(canvas: Canvas) -> None:
    colour = np.array((0.9, 0.6, 0.4), np.float32)
    canvas.fill(square(10, 40), colour, skin=True)
    expected = np.zeros((64, 64), bool)
    expected[10:41, 10:41] = True
    assert np.array_equal(canvas.skin > 0, expected)
    np.testing.assert_array_equal(canvas.rgb[:, expected].T, np.broadcast_to(colour, (expected.sum(), 3)))
    assert (canvas.rgb[:, ~expected] == 0.5).all()
    canvas.fill(square(20, 30), (0, 0, 0))  # what covers skin is not skin
    expected[20:31, 20:31] = False
    assert np.array_equal(canvas.skin > 0, expected)


def test_relief_shades_the_shape_and_shadows_its_surroundings_alone(canvas: Canvas) -> None:
    canvas.fill(square(24, 40), (0.8, 0.8, 0.8), skin=True, relief=0.5)
    assert np.ptp(canvas.rgb[0, 24:41, 24:41]) > 0.05
    outside = canvas.rgb[:, canvas.skin == 0]
    assert outside.min() < 0.5
    assert outside.max() <= 0.5
    assert (canvas.rgb[:, :8] == 0.5).all()


def test_what_lies_outside_the_canvas_changes_nothing(canvas: Canvas) -> None:
    canvas.fill(square(-50, -20), (1, 0, 0), skin=True)
    canvas.fill(square(80, 99), (1, 0, 0), skin=True, relief=0.5)
    assert not canvas.skin.any()
    assert (canvas.rgb == 0.5).all()


def test_a_person_has_skin_about_the_face() -> None:
    shown = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        canvas = Canvas(np.full((3, 96, 96), 0.5, np.float32), rng)
        Person(canvas, rng, (48, 40), 20).draw()
        shown.append(canvas.skin[30:50, 38:58].mean())
        assert not canvas.skin[:8].any()  # nothing of a person is two half heads above the face
        assert canvas.rgb.min() > 0
    assert np.mean(shown) > 0.7
