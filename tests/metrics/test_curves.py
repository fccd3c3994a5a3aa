"""Curves over thresholds against thresholding itself and torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification as tm

from segtune.metrics import VOID
from segtune.metrics.curves import (
    BINS,
    THRESHOLDS,
    best_threshold,
    calibration,
    counts_at,
    dice_curve,
    histogram,
    precision_recall,
)
from segtune.metrics.overlap import counts, per_image


@pytest.fixture
def images() -> list[tuple[torch.Tensor, torch.Tensor]]:
    rng = torch.Generator().manual_seed(0)
    found = []
    for size in ((21, 33), (40, 17), (9, 9)):
        truth = (torch.rand(size, generator=rng) < 0.3).to(torch.uint8)
        noise = torch.rand(size, generator=rng)
        found.append(((0.55 * noise + 0.45 * truth * torch.rand(size, generator=rng)).clamp(0, 1), truth))
    found[2] = (found[2][0], torch.zeros(9, 9, dtype=torch.uint8))
    return found


def stacked(images: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    return torch.stack([histogram(probability, truth) for probability, truth in images])


def test_every_threshold_counts_what_it_selects(images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    histograms = stacked(images)
    for step in (1, 57, 100, 141, 199):
        expected = [counts((p * BINS >= step)[None], t[None])[0] for p, t in images]
        assert torch.equal(counts_at(histograms, THRESHOLDS[step - 1]), torch.stack(expected))


def test_the_ends_of_the_range_are_counted() -> None:
    probability = torch.tensor([0.0, 1.0, 1.0, 0.4999])
    found = histogram(probability, torch.tensor([0, 1, 0, 1]))
    assert found.sum() == 4
    assert found[0, 0] == found[1, -1] == found[0, -1] == found[1, 99] == 1


def test_dice_by_threshold(images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    curve = dice_curve(stacked(images), "one")
    expected = [per_image(counts((p * BINS >= 60)[None], t[None]))["dice"].item() for p, t in images]
    assert curve[59] == pytest.approx(np.mean(expected))
    assert curve.shape == THRESHOLDS.shape


def test_the_best_threshold_is_the_middle_of_the_best() -> None:
    dices = np.zeros(BINS - 1)
    dices[[10, 11, 12, 50]] = 0.9, 0.9, 0.9, 0.8
    assert best_threshold(dices) == THRESHOLDS[11]
    dices[0] = np.nan
    assert best_threshold(dices) == THRESHOLDS[11]


def test_average_precision_is_torchmetrics(images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    found = precision_recall(stacked(images))
    probabilities = torch.cat([p.flatten() for p, _ in images])
    truths = torch.cat([t.flatten() for _, t in images]).long()
    rounded = (probabilities * BINS).floor() / BINS
    assert found.average_precision == pytest.approx(tm.binary_average_precision(rounded, truths).item(), abs=1e-6)
    assert found.average_precision == pytest.approx(tm.binary_average_precision(probabilities, truths).item(), abs=0.01)
    chosen = probabilities * BINS >= 100
    assert found.precision[99] == pytest.approx(tm.binary_precision(chosen, truths).item())
    assert found.recall[99] == pytest.approx(tm.binary_recall(chosen, truths).item())


def test_without_any_object_there_is_no_average_precision() -> None:
    found = precision_recall(histogram(torch.rand(50), torch.zeros(50))[None])
    assert np.isnan(found.average_precision)
    assert (found.recall == 1).all()


def test_calibration_is_torchmetrics(images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    found = calibration(stacked(images))
    probabilities = torch.cat([p.flatten() for p, _ in images])
    truths = torch.cat([t.flatten() for _, t in images]).long()
    middles = ((probabilities * BINS).floor() + 0.5) / BINS
    assert found.error == pytest.approx(tm.binary_calibration_error(middles, truths, n_bins=10).item(), abs=1e-6)
    assert found.error == pytest.approx(tm.binary_calibration_error(probabilities, truths, n_bins=10).item(), abs=0.003)
    assert found.pixels.sum() == len(truths)


def test_true_probabilities_are_calibrated() -> None:
    rng = torch.Generator().manual_seed(1)
    probability = torch.rand(400_000, generator=rng)
    truth = torch.rand(400_000, generator=rng) < probability
    assert calibration(histogram(probability, truth.long())[None]).error < 0.005
    assert calibration(histogram(probability**2, truth.long())[None]).error > 0.1


def test_void_pixels_are_in_no_bin(images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    probability = torch.tensor([0.1, 0.9, 0.6, 0.6, 0.2])
    found = histogram(probability, torch.tensor([0, 1, VOID, 1, VOID], dtype=torch.uint8))
    assert torch.equal(found, histogram(probability[[0, 1, 3]], torch.tensor([0, 1, 1])))
    labels = [
        t.masked_fill(torch.rand(t.shape, generator=torch.Generator().manual_seed(2)) < 0.4, VOID) for _, t in images
    ]
    histograms = torch.stack([histogram(p, t) for (p, _), t in zip(images, labels, strict=True)])
    rounded = torch.cat([(p * BINS).floor().flatten() / BINS for p, _ in images])
    truths = torch.cat([t.flatten() for t in labels]).long()
    expected = tm.binary_average_precision(rounded, truths, ignore_index=VOID).item()
    assert precision_recall(histograms).average_precision == pytest.approx(expected, abs=1e-6)
    dices = [
        per_image(counts((p * BINS >= 60)[None], t[None]))["dice"].item()
        for (p, _), t in zip(images, labels, strict=True)
    ]
    assert dice_curve(histograms, "one")[59] == pytest.approx(np.mean(dices))


def test_wholly_void_images_are_in_no_curve(images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    void = histogram(torch.rand(50), torch.full((50,), VOID))
    assert not void.any()
    histograms = stacked(images)
    found, expected = (dice_curve(each, "one") for each in (torch.cat([histograms, void[None]]), histograms))
    assert found == pytest.approx(expected)
    truth = torch.full((50,), VOID)
    histogram(torch.rand(50), truth)
    assert (truth == VOID).all()  # it is left as it is
