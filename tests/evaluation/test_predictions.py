"""Predictions for display against a model whose logits are known."""

import numpy as np
import pytest
import torch

from segtune.config.command_settings import TTASettings
from segtune.config.data_settings import DataSettings
from segtune.config.output_settings import CleanSettings
from segtune.config.training_settings import TrainSettings
from segtune.data.sources.base import Pair
from segtune.evaluation.predictions import as_seen, predict_samples
from segtune.inference.predictor import Predictor
from segtune.metrics import VOID
from segtune.runtime.device import Device
from tests.evaluation.conftest import SIZES, Blurred, Red

CPU = Device(torch.device("cpu"), torch.float32)


def test_parts_of_a_prediction() -> None:
    image = torch.arange(3 * 2 * 2, dtype=torch.uint8).view(3, 2, 2)
    logits = torch.tensor([[[-1.0, 0.0], [0.5, 2.0]]])
    found = as_seen(image, torch.tensor([[[0, 1], [1, 0]]]), torch.zeros(7, 9), logits, 0.25)
    assert found.size == (7, 9)
    assert found.photo[0, 1].tolist() == [1, 5, 9]
    assert found.truth.tolist() == [[False, True], [True, False]]
    assert found.void is None
    partly = as_seen(image, torch.tensor([[[0, VOID], [1, 0]]]), torch.zeros(7, 9), logits, 0.25)
    assert partly.truth.tolist() == [[False, False], [True, False]]
    assert partly.void is not None
    assert partly.void.tolist() == [[False, True], [False, False]]
    assert found.predicted.tolist() == [[False, False], [True, True]]
    assert found.probability == pytest.approx(1 / (1 + np.exp(-logits[0].numpy())))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_samples_are_predicted_at_the_networks_size(pairs: list[Pair], threshold: float) -> None:
    data, train = DataSettings("folder", root=".", image_size=64), TrainSettings(threshold=threshold)
    found = list(predict_samples(Red(), pairs, data, train, CPU, TTASettings()))
    assert [each.size for each in found] == SIZES
    for pair, each in zip(pairs, found, strict=True):
        assert each.photo.shape == (64, 64, 3)
        red = each.photo[..., 0].astype(float)
        assert each.probability == pytest.approx(1 / (1 + np.exp(-(red - 127.5) / 32)), abs=1e-6)
        assert np.array_equal(each.predicted, each.probability > threshold)
        if each.size == (64, 64):
            assert np.array_equal(each.photo, pair.read_photo())
            assert np.array_equal(each.truth, pair.read_mask().array > 0)


def test_shown_masks_are_corrected_as_at_the_original_size() -> None:
    """Seen at half the size in both directions, an object has a quarter of its pixels."""
    logits = torch.full((1, 10, 10), -2.0)
    logits[0, :3, :3] = logits[0, 6:8, 6:8] = 2.0
    mask, truth = torch.zeros(1, 10, 10), torch.zeros(20, 20, dtype=torch.uint8)
    image = torch.zeros(3, 10, 10, dtype=torch.uint8)
    for area, left in ((0, 13), (16, 13), (17, 9), (36, 9), (37, 0)):
        found = as_seen(image, mask, truth, logits, 0.0, CleanSettings(min_area=area))
        assert found.predicted.sum() == left
    assert found.original is not None
    assert found.original.shape == (20, 20)


def test_in_tiles_samples_are_predicted_at_their_own_size(wide_pairs: list[Pair]) -> None:
    data, train = DataSettings("folder", root=".", image_size=64, eval_tile=128), TrainSettings()
    predictor = Predictor(Blurred(), (64, 64), 0.5, CPU, tile=128)
    found = predict_samples(Blurred(), wide_pairs, data, train, CPU, TTASettings())
    for pair, each in zip(wide_pairs, found, strict=True):
        mask, probability = predictor.predict(pair.read_photo())
        assert each.size == mask.shape
        assert np.array_equal(each.photo, pair.read_photo())
        assert np.array_equal(each.truth, pair.read_mask().array > 0)
        assert np.array_equal(each.predicted, mask)
        assert np.array_equal(each.probability, probability)


def test_flips_are_averaged(pairs: list[Pair]) -> None:
    """Pixel by pixel the model does not see where it is, so that flips change nothing."""
    data, train = DataSettings("folder", root=".", image_size=64), TrainSettings()
    plain, flipped = (
        next(iter(predict_samples(Red(), pairs, data, train, CPU, TTASettings(flips=flips)))) for flips in (False, True)
    )
    assert flipped.probability == pytest.approx(plain.probability, abs=1e-5)
