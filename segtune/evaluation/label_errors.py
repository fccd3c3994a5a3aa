"""Likely label errors: where the network confidently contradicts the mask."""

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.evaluation.predictions import SamplePrediction

#: The network is confident where its probability of foreground is at least this, or at most 1 minus this.
CONFIDENT = 0.95


def contradicted(view: SamplePrediction) -> NDArray[np.bool_]:
    """Return where (h, w) the network confidently contradicts the mask; nowhere in void."""
    wrong = np.where(view.truth, 1 - view.probability, view.probability) >= CONFIDENT
    return np.asarray(wrong if view.void is None else wrong & ~view.void)


def contradicted_regions(view: SamplePrediction) -> NDArray[np.bool_]:
    """Return the regions (h, w) that the network confidently contradicts, without strips of one or two pixels.

    Such strips are along edges.
    """
    where = contradicted(view).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(where, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), bool)


def label_error_score(view: SamplePrediction) -> float:
    """Return the fraction of the image in the largest region that the network confidently contradicts."""
    regions = contradicted_regions(view)
    _, _, facts, _ = cv2.connectedComponentsWithStats(regions.view(np.uint8), connectivity=4)
    return float(facts[1:, cv2.CC_STAT_AREA].max() / regions.size) if len(facts) > 1 else 0.0
