"""The boundary F-score, computed from counts of boundary pixels."""

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def boundary_counts(
    predicted: Mask, truth: Mask, tolerance: float, void: Mask | None = None
) -> tuple[int, int, int, int]:
    """Count boundary pixels, and those that lie near the other mask's boundary.

    A boundary pixel is a foreground pixel with a background pixel above, below, left or right of it; the edge of the
    image is not a boundary. If one mask is all foreground and the other empty, each counts as one unmatched pixel.

    Void pixels count as background of both masks, as in the toolkit of the 2017 DAVIS Challenge (Pont-Tuset et al.,
    arXiv:1704.00675): what is predicted there never matters, and foreground beside them has its boundary where they
    begin, in both masks.

    Args:
        predicted: `(H, W)`.
        truth: `(H, W)`.
        tolerance: The largest Euclidean distance, in pixels, at which boundary pixels match.
        void: `(H, W)`, where there is no truth; None for nowhere.

    Returns:
        Predicted boundary pixels near the true boundary, all predicted ones, true ones near the predicted boundary, all
        true ones.
    """
    if void is not None:
        predicted, truth = predicted & ~void, truth & ~void
    ours, theirs = _boundary(predicted), _boundary(truth)
    if not ours.any() and not theirs.any() and predicted.flat[0] != truth.flat[0]:
        return 0, 1, 0, 1  # all foreground against none: the worst score
    return _near(ours, theirs, tolerance), int(ours.sum()), _near(theirs, ours, tolerance), int(theirs.sum())


def boundary_f(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return boundary F-scores: harmonic means of precision and recall (Martin et al. 2004; Csurka et al. 2013).

    Args:
        counts: `(..., 4)`, from `boundary_counts`, or sums of them.

    Returns:
        `(...)`, 0 to 1: 1 where neither mask has a boundary and they agree, 0 where only one has.
    """
    near_ours, ours, near_theirs, theirs = np.moveaxis(counts, -1, 0)
    # With precision a/b and recall c/d, 2PR/(P+R) is 2ac / (ad + cb): no 0/0 where one of them is undefined.
    above = 2.0 * near_ours * near_theirs
    below = 1.0 * near_ours * theirs + 1.0 * near_theirs * ours
    score = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return np.where((ours == 0) & (theirs == 0), 1.0, score)


def _boundary(mask: Mask) -> Mask:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=1.0)
    return np.asarray(mask & (inner == 0))


def _near(these: Mask, those: Mask, tolerance: float) -> int:
    if not those.any():
        return 0
    distance = cv2.distanceTransform((~those).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return int((distance[these] <= tolerance + 1e-4).sum())
