"""The boundary F-score against scipy's morphology and distances, and by hand."""

import numpy as np
import pytest
from scipy import ndimage

from segtune.metrics.boundary import boundary_counts, boundary_f


def by_scipy(predicted: np.ndarray, truth: np.ndarray, tolerance: float) -> tuple[int, int, int, int]:
    ours, theirs = (mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (predicted, truth))

    def near(these: np.ndarray, those: np.ndarray) -> int:
        return int((ndimage.distance_transform_edt(~those)[these] <= tolerance).sum()) if those.any() else 0

    return near(ours, theirs), int(ours.sum()), near(theirs, ours), int(theirs.sum())


@pytest.mark.parametrize("tolerance", [0, 1, 2, 2.5, 7])
@pytest.mark.parametrize("seed", range(6))
def test_counts_agree_with_scipy(tolerance: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blobs = [ndimage.gaussian_filter(rng.normal(size=(57, 83)), 1 + seed) > 0.01 for _ in range(2)]
    counts = boundary_counts(blobs[0], blobs[1], tolerance)
    assert counts == by_scipy(blobs[0], blobs[1], tolerance)
    assert 0 < counts[0] <= counts[1]


def test_a_square_shifted_by_three_pixels() -> None:
    truth, predicted = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    truth[10:20, 10:20] = predicted[10:20, 13:23] = True
    assert boundary_counts(predicted, truth, 3) == (36, 36, 36, 36)  # a square of 10 has 36 boundary pixels
    # Exactly met are the pixels that both outlines share: columns 13 to 19 of the upper and the lower side.
    assert boundary_counts(predicted, truth, 0) == (14, 36, 14, 36)
    assert boundary_f(np.array([14, 36, 14, 36])) == pytest.approx(14 / 36)


def test_the_frame_is_no_boundary() -> None:
    half = np.zeros((8, 10), bool)
    half[:, :4] = True
    assert boundary_counts(half, half, 1)[1] == 8  # its right column
    full = np.ones((8, 10), bool)
    assert boundary_counts(full, full, 1) == (0, 0, 0, 0)
    assert boundary_f(np.array(boundary_counts(full, ~full, 1))) == 0  # nothing found of what is everywhere
    assert boundary_f(np.array(boundary_counts(~full, ~full, 1))) == 1


def test_scores_of_masks_without_boundary() -> None:
    nothing, one_sided = np.array([0, 0, 0, 0]), np.array([0, 12, 0, 0])
    assert boundary_f(nothing) == 1
    assert boundary_f(one_sided) == 0
    assert boundary_f(np.array([0, 12, 0, 9])) == 0


def test_f_is_the_harmonic_mean() -> None:
    counts = np.random.default_rng(0).integers(1, 50, (20, 4))
    counts[:, 1] += counts[:, 0]
    counts[:, 3] += counts[:, 2]
    precision, recall = counts[:, 0] / counts[:, 1], counts[:, 2] / counts[:, 3]
    assert boundary_f(counts) == pytest.approx(2 / (1 / precision + 1 / recall))


@pytest.mark.parametrize("tolerance", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_void_counts_as_background_of_both_masks(seed: int, tolerance: float) -> None:
    """As in the toolkit of DAVIS 2017, whatever is predicted there."""
    rng = np.random.default_rng(seed)
    predicted, truth, void = (ndimage.gaussian_filter(rng.normal(size=(57, 83)), 3) > low for low in (0, 0, 0.05))
    found = boundary_counts(predicted, truth, tolerance, void)
    assert found == by_scipy(predicted & ~void, truth & ~void, tolerance)
    assert found == boundary_counts(predicted ^ void, truth ^ void, tolerance, void)
    assert found != boundary_counts(predicted, truth, tolerance)


def test_an_object_in_a_frame_of_void_has_its_boundary_where_void_begins() -> None:
    truth, void = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    truth[10:20, 10:20] = True
    void[8:22, 8:22] = ~truth[8:22, 8:22]  # two pixels wide
    predicted = np.zeros((30, 30), bool)
    predicted[9:21, 9:21] = True  # up to within void
    assert boundary_counts(predicted, truth, 0, void) == (36, 36, 36, 36)
    predicted[:] = False
    predicted[12:18, 12:18] = True  # two pixels too small
    assert boundary_counts(predicted, truth, 1, void) == (0, 20, 0, 36)
    assert boundary_counts(predicted, truth, 2, void)[0] == 20
    assert boundary_counts(predicted, truth, 2, np.ones((30, 30), bool)) == (0, 0, 0, 0)
