"""The evaluator against a model whose logits are known, counted again with NumPy."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.config.command_settings import TTASettings
from segtune.config.data_settings import DataSettings
from segtune.config.output_settings import CleanSettings
from segtune.config.training_settings import TrainSettings
from segtune.data.dataset import build_dataset
from segtune.data.record import with_checksums
from segtune.data.reduced import ReducedPhotos
from segtune.data.sources.base import Pair
from segtune.errors import FailedError
from segtune.evaluation.evaluator import Evaluation, Evaluator
from segtune.evaluation.skin_tone import typology_angle
from segtune.inference.predictor import Predictor
from segtune.inference.tta import with_tta
from segtune.losses import bce_loss
from segtune.metrics import VOID
from segtune.metrics.boundary import boundary_counts
from segtune.metrics.curves import BINS, histogram
from segtune.runtime.device import Device
from segtune.training.feature_store import FolderStore
from tests.evaluation.conftest import SIZES, Blurred, Red, wide_pair

CPU = Device(torch.device("cpu"), torch.float32)
DATA = DataSettings("folder", root=".", image_size=64)


def evaluate(pairs: list[Pair], model: nn.Module | None = None, batch_size: int = 2, **options: Any) -> Evaluation:
    train = TrainSettings(batch_size=batch_size, workers=0, threshold=0.6)
    found = Evaluator(pairs, DATA, train, bce_loss, CPU, **options)(model or Red())
    assert found is not None
    return found


def by_hand(
    pairs: list[Pair], correct: Callable[[np.ndarray], np.ndarray] = lambda mask: mask
) -> tuple[list[list[int]], float]:
    """Counts of every image at its own size, and the mean cross-entropy at 64 x 64."""
    counts, losses = [], []
    for index, pair in enumerate(pairs):
        sample = build_dataset(pairs, DATA, None)[0, index]
        truth, target = pair.read_mask().array > 0, sample["mask"].numpy().astype(float)
        logits = (sample["image"][:1].float() - 127.5) / 32
        resized = F.interpolate(logits[None], size=truth.shape, mode="bilinear", align_corners=False)[0, 0].numpy()
        predicted = correct(1 / (1 + np.exp(-resized)) > 0.6)
        counts.append([int((predicted == p)[truth == t].sum()) for p, t in ((1, 1), (1, 0), (0, 1), (0, 0))])
        losses.append(np.mean(np.log1p(np.exp(logits.numpy())) - target * logits.numpy()))
    return counts, float(np.mean(losses))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_counts_and_loss_do_not_depend_on_the_batches(pairs: list[Pair], batch_size: int) -> None:
    found, (counts, loss) = evaluate(pairs, batch_size=batch_size), by_hand(pairs)
    assert found.counts.tolist() == counts
    assert found.counts.sum(1).tolist() == [height * width for height, width in SIZES]
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.scores.images == 5
    assert found.scores.empty_images == 1
    assert found.samples == {}


def test_four_numbers_of_an_image_come_back_from_the_device_once_per_batch(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, read, cpu, tolist = [], [], Tensor.cpu, Tensor.tolist

    def to_cpu(tensor: Tensor) -> Tensor:
        moved.append(tuple(tensor.shape))
        return cpu(tensor)

    def to_list(tensor: Tensor) -> Any:
        if tensor.is_floating_point():  # and no mask, which is on the CPU
            read.append(len(tensor))
        return tolist(tensor)

    monkeypatch.setattr(Tensor, "cpu", to_cpu)
    monkeypatch.setattr(Tensor, "tolist", to_list)
    monkeypatch.setattr("segtune.evaluation.evaluator.summarise", lambda *_: None)  # of what has come
    evaluate(pairs)
    assert moved == [(2, 4), (2, 4), (1, 4)]
    assert read == [3]  # the losses of the batches, at the end


def test_details_are_collected_with_a_tolerance(pairs: list[Pair]) -> None:
    found = evaluate(pairs, tolerance=1.0)
    details = found.detailed
    above = details.histograms[..., round(0.6 * BINS) :].sum(-1)
    assert (above[:, 1] - found.counts[:, 0]).abs().max() <= 2  # but for rounding at the threshold
    assert details.histograms.sum((1, 2)).tolist() == found.counts.sum(1).tolist()
    assert details.boundaries.shape == (5, 4)
    assert (details.boundaries[:, 0] <= details.boundaries[:, 1]).all()
    assert details.boundaries[4, 3] == 0  # the empty mask has no boundary
    assert details.label_errors[4] > 0  # the model is sure of something there
    same_size = typology_angle(pairs[0].read_photo(), pairs[0].read_mask().array > 0)
    assert details.tones[0].item() == pytest.approx(same_size)
    assert details.tones.isnan().tolist() == [False] * 4 + [True]


def test_corrected_masks_are_what_is_scored(pairs: list[Pair]) -> None:
    """Holes, small objects and all but the largest, by SciPy; probabilities, and what follows from them, stay."""
    masks = []

    def correct(mask: np.ndarray) -> np.ndarray:
        labels, _ = ndimage.label(ndimage.binary_fill_holes(mask), np.ones((3, 3)))
        areas = np.bincount(labels.ravel())
        areas[0] = 0
        masks.append(labels == areas.argmax() if areas.max() >= 100 else np.zeros_like(mask))
        return masks[-1]

    plain = evaluate(pairs, tolerance=1.0)
    found = evaluate(pairs, tolerance=1.0, clean=CleanSettings(fill_holes=True, min_area=100, largest=True))
    assert found.counts.tolist() == by_hand(pairs, correct)[0] != plain.counts.tolist()
    assert torch.equal(found.detailed.histograms, plain.detailed.histograms)
    assert found.loss == plain.loss
    truths = [pair.read_mask().array > 0 for pair in pairs]
    boundaries = [boundary_counts(mask, truth, 1.0) for mask, truth in zip(masks, truths, strict=True)]
    assert found.detailed.boundaries.tolist() == np.array(boundaries).tolist()


def test_large_photos_are_evaluated_as_they_are_without_being_read_again(
    pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.evaluation.test_evaluator.DATA", replace(DATA, image_size=32))
    checked = []
    for number, pair in enumerate(pairs):
        large = Pair(pair.name, tmp_path / f"p{number}.png", tmp_path / f"m{number}.png")
        for small, path in ((pair.photo, large.photo), (pair.mask, large.mask)):
            Image.open(small).resize((4 * SIZES[number][1] + 1, 4 * SIZES[number][0])).save(path)
        checked.append(with_checksums(large, bytes(16)))
    photos = ReducedPhotos((32, 32), None, FolderStore(tmp_path / "kept", {}), truth=True)
    expected = evaluate(checked, samples=5, tolerance=1.0)
    evaluate(checked, photos=photos)
    monkeypatch.setattr(Pair, "load_photo", None)
    monkeypatch.setattr(Pair, "load_mask", None)
    found = evaluate(checked, samples=5, tolerance=1.0, photos=photos)
    assert (found.loss, found.scores) == (expected.loss, expected.scores)
    assert all(np.array_equal(found.samples[name], drawn) for name, drawn in expected.samples.items())
    torch.testing.assert_close(vars(found.detailed), vars(expected.detailed), rtol=0, atol=0, equal_nan=True)


TILED = replace(DATA, eval_tile=128)


def test_tiles_are_those_of_predict_and_their_scores_are_counted_by_hand(wide_pairs: list[Pair]) -> None:
    train = TrainSettings(batch_size=4, workers=0, threshold=0.55)
    found = Evaluator(wide_pairs, TILED, train, bce_loss, CPU, tolerance=2.0, samples=1)(Blurred())
    assert found is not None
    losses, differs = [], 0
    predictor, whole = (Predictor(Blurred(), (64, 64), 0.55, CPU, tile=tile) for tile in (128, 8192))
    for number, pair in enumerate(wide_pairs):
        photo, truth = pair.read_photo(), pair.read_mask().array > 0
        mask, probability = predictor.predict(photo)
        differs += int((mask != whole.predict(photo).mask).sum())
        cells = [int((mask == p)[truth == t].sum()) for p, t in ((1, 1), (1, 0), (0, 1), (0, 0))]
        assert found.counts[number].tolist() == cells
        bins = np.clip(probability * np.float32(BINS), 0, BINS - 1).astype(int)
        expected = [np.bincount(bins[truth == label], minlength=BINS) for label in (False, True)]
        assert np.array_equal(found.detailed.histograms[number], expected)
        assert found.detailed.boundaries[number].tolist() == list(boundary_counts(mask, truth, 2.0))
        right = np.where(truth, probability, 1 - probability).astype(float)
        losses.append(-np.log(np.clip(right, 1e-7, 1)).mean())
    assert differs > 100  # else tiles would not matter here
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-4)
    (drawn,) = found.samples.values()
    assert drawn.shape == (200, 3 * 300, 3)  # at its own size


def test_a_tile_as_large_as_the_images_is_the_evaluation_of_whole_images(tmp_path: Path) -> None:
    pairs = [wide_pair(tmp_path, number, (130, 160)) for number in range(3)]
    train = TrainSettings(batch_size=1, workers=0)
    whole, tiled = (
        Evaluator(pairs, data, train, bce_loss, CPU, tolerance=1.0, samples=3)(Blurred())
        for data in (replace(DATA, image_size=[130, 160]), replace(DATA, eval_tile=160))
    )
    assert whole
    assert tiled
    assert (tiled.loss, tiled.scores) == (whole.loss, whole.scores)
    torch.testing.assert_close(tiled.counts, whole.counts, rtol=0, atol=0)
    torch.testing.assert_close(vars(tiled.detailed), vars(whole.detailed), rtol=0, atol=0, equal_nan=True)
    assert all(np.array_equal(tiled.samples[name], drawn) for name, drawn in whole.samples.items())


def test_averaging_in_tiles_is_that_of_predict(wide_pairs: list[Pair]) -> None:
    tta = TTASettings(flips=True, scales=[1.0, 0.5])
    train = TrainSettings(workers=0)
    found = Evaluator(wide_pairs[:1], TILED, train, bce_loss, CPU, tta=tta)(Blurred())
    assert found is not None
    network = with_tta(Blurred(), flips=True, scales=[1.0, 0.5])
    mask, _ = Predictor(network, (64, 64), 0.5, CPU, tile=128).predict(wide_pairs[0].read_photo())
    truth = wide_pairs[0].read_mask().array > 0
    assert found.counts[0, :2].tolist() == [(mask & truth).sum(), (mask & ~truth).sum()]


def test_a_wish_to_stop_is_heard_between_two_tiles(wide_pairs: list[Pair]) -> None:
    seen: list[int] = []

    class Counting(Red):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().forward(images)

    evaluator = Evaluator(wide_pairs, TILED, TrainSettings(workers=0), bce_loss, CPU)
    assert evaluator(Counting(), stop=lambda: len(seen) == 3) is None
    assert seen == [1, 1, 1]  # of the six tiles of the first image


def test_details_are_missed_by_name(pairs: list[Pair]) -> None:
    with pytest.raises(ValueError, match="create the Evaluator with a tolerance"):
        _ = evaluate(pairs[:1]).detailed


def test_samples_are_drawn_evenly_spaced(pairs: list[Pair]) -> None:
    drawn = evaluate(pairs, samples=3).samples
    assert list(drawn) == ["1 p0", "3 p2", "5 p4"]
    assert all(each.shape == (256, 3 * 256, 3) for each in drawn.values())
    enlarged = cv2.resize(pairs[0].read_photo(), (256, 256), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(drawn["1 p0"][:, :256], enlarged)
    assert np.array_equal(drawn["5 p4"], evaluate(pairs[3:], samples=2).samples["2 p4"])


def test_an_evaluation_can_be_stopped(pairs: list[Pair]) -> None:
    seen: list[int] = []

    class Counting(Red):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().forward(images)

    evaluator = Evaluator(pairs, DATA, TrainSettings(batch_size=2, workers=0), bce_loss, CPU)
    assert evaluator(Counting(), stop=lambda: len(seen) == 2) is None
    assert seen == [2, 2]


def test_a_model_that_returns_nan_is_not_scored(pairs: list[Pair]) -> None:
    class Broken(Red):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * torch.nan

    with pytest.raises(FailedError, match="The model returns NaN for p0 in float32, so it cannot be scored"):
        evaluate(pairs, Broken(), tolerance=1.0)


def test_void_is_left_out_of_everything(pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted again on the pixels that are left; one mask is wholly void."""
    monkeypatch.setattr("tests.evaluation.test_evaluator.DATA", replace(DATA, ignore=[7]))
    made, rng = [], np.random.default_rng(0)
    for number, pair in enumerate(pairs):
        mask = np.array(Image.open(pair.mask))
        void = cv2.resize(rng.random((4, 4)), mask.shape[::-1], interpolation=cv2.INTER_NEAREST) < 0.4
        mask[void if number != 2 else slice(None)] = 7
        made.append(Pair(pair.name, pair.photo, tmp_path / f"m{number}.png"))
        Image.fromarray(mask).save(made[-1].mask)
    found = evaluate(made, tolerance=1.0, samples=5)
    losses = []
    for index, pair in enumerate(made):
        sample = build_dataset(made, replace(DATA, ignore=[7]), None)[0, index]
        values, target = pair.read_mask().array, sample["mask"]
        logits = (sample["image"][:1].float() - 127.5) / 32
        resized = F.interpolate(logits[None], size=values.shape, mode="bilinear", align_corners=False)[0, 0]
        probability, counted = resized.sigmoid(), torch.from_numpy(values != 7)
        predicted, truth = (probability > 0.6).numpy(), values == 255
        cells = [
            int(((predicted == p) & (truth == t) & counted.numpy()).sum()) for p, t in ((1, 1), (1, 0), (0, 1), (0, 0))
        ]
        assert found.counts[index].tolist() == cells
        assert found.detailed.void[index] == (~counted).sum()
        left = histogram(probability[counted], torch.from_numpy(truth)[counted])
        assert (found.detailed.histograms[index] - left).abs().sum() <= 2  # but for rounding
        boundaries = boundary_counts(predicted & counted.numpy(), truth & counted.numpy(), 1.0)
        assert tuple(found.detailed.boundaries[index].tolist()) == boundaries
        if index != 2:
            where = target != VOID
            losses.append(F.binary_cross_entropy_with_logits(logits[where], target[where].float()).item())
    assert found.scores.images == len(losses) == 4
    assert found.loss == pytest.approx(evaluate_loss_by_batches(made), rel=1e-6)
    assert evaluate(made, batch_size=1).loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.detailed.tones.isnan().tolist() == [False, False, True, False, True]
    assert found.detailed.label_errors[2] == 0
    striped = np.isin(found.samples["3 p2"][:, 256:], (96, 160)).all(-1)
    assert striped.all()
    assert not np.isin(found.samples["3 p2"][:, :256], (96, 160)).all(-1).all()


def evaluate_loss_by_batches(pairs: list[Pair]) -> float:
    """The mean of the batches' losses, weighted by their images that are not wholly void: two, one and one."""
    data = build_dataset(pairs, replace(DATA, ignore=[7]), None)
    losses = []
    for batch in ([0, 1], [2, 3], [4]):
        samples = [data[0, index] for index in batch]
        logits = torch.stack([(sample["image"][:1].float() - 127.5) / 32 for sample in samples])
        losses.append(bce_loss(logits, torch.stack([sample["mask"] for sample in samples])).item())
    return (2 * losses[0] + losses[1] + losses[2]) / 4
