"""Label-error scores of masks drawn by hand."""

from dataclasses import replace

import numpy as np
import pytest

from segtune.evaluation.label_errors import CONFIDENT, contradicted, contradicted_regions, label_error_score
from segtune.evaluation.predictions import SamplePrediction


def prediction(truth: np.ndarray, probability: np.ndarray) -> SamplePrediction:
    photo = np.zeros((*truth.shape, 3), np.uint8)
    return SamplePrediction(truth.shape, photo, truth, probability > 0.5, probability.astype(np.float32))


def test_only_confident_contradictions_count() -> None:
    truth = np.array([[True, True, True, False, False, False]])
    probability = np.array([[0.01, 0.1, 0.99, 0.99, 0.9, 0.01]])
    assert contradicted(prediction(truth, probability)).tolist() == [[True, False, False, True, False, False]]
    assert contradicted(prediction(~truth, np.full((1, 6), CONFIDENT + 1e-6))).sum() == 3


def test_the_score_is_the_fraction_of_the_largest_region() -> None:
    truth = np.zeros((20, 30), bool)
    probability = np.full((20, 30), 0.02)
    probability[2:7, 3:11] = 0.99  # 5 x 8: forgotten in the mask
    probability[12:16, 20:24] = 0.99
    assert label_error_score(prediction(truth, probability)) == pytest.approx(5 * 8 / 600)
    assert label_error_score(prediction(~truth, 1 - probability)) == pytest.approx(5 * 8 / 600)  # falsely in it


def test_strips_along_edges_are_not_label_errors() -> None:
    truth = np.zeros((20, 30), bool)
    probability = np.full((20, 30), 0.02)
    probability[:, 4:6] = 0.99
    assert label_error_score(prediction(truth, probability)) == 0
    assert not contradicted_regions(prediction(truth, probability)).any()
    probability[:, 4:7] = 0.99
    assert label_error_score(prediction(truth, probability)) == pytest.approx(60 / 600)


def test_void_contradicts_nothing() -> None:
    truth, void = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    probability = np.full((20, 30), 0.02)
    probability[2:7, 3:11] = probability[12:16, 20:24] = 0.99
    void[2:7, 3:11] = True
    view = replace(prediction(truth, probability), void=void)
    assert contradicted(view).sum() == 16
    assert label_error_score(view) == pytest.approx(16 / 600)
    assert label_error_score(replace(view, void=np.ones((20, 30), bool))) == 0
