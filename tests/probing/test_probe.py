"""The probe against brute force and data whose answer is known."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.config.data_settings import DataSettings
from segtune.data.dataset import build_dataset
from segtune.data.sources.base import Pair
from segtune.errors import UserError
from segtune.metrics import VOID
from segtune.metrics.overlap import counts, per_image
from segtune.probing.linear_classifier import Classifier
from segtune.probing.probe import Probe, _above_each, _at, _draw, _scores, thresholds
from segtune.runtime.device import Device


@pytest.mark.parametrize(
    ("objects", "drawn"), [(500, (50, 50)), (30, (70, 30)), (970, (30, 70)), (0, (100, 0)), (1000, (0, 100))]
)
def test_pixels_are_drawn_of_both_classes_alike(objects: int, drawn: tuple[int, int]) -> None:
    mask = torch.zeros(1, 20, 50, dtype=torch.uint8)
    mask.view(-1)[torch.randperm(1000)[:objects]] = 1
    places = _draw(mask, 100, (0, 7))
    assert len(places.unique()) == len(places)
    labels = mask.view(-1)[places]
    assert (int((labels == 0).sum()), int((labels == 1).sum())) == drawn
    assert torch.equal(places, _draw(mask, 100, (0, 7)))
    assert not torch.equal(places, _draw(mask, 100, (1, 7)))


def test_fewer_pixels_than_asked_for_are_all_taken() -> None:
    mask = torch.tensor([[[0, 1, 0], [1, 1, 0]]])
    assert _draw(mask, 100, (0, 0)).tolist() == [0, 1, 2, 3, 4, 5]


def test_no_void_pixel_is_drawn() -> None:
    mask = torch.tensor([[[0, VOID, 0, 1], [1, VOID, VOID, 0]]])
    assert _draw(mask, 100, (0, 0)).tolist() == [0, 2, 3, 4, 7]
    assert VOID not in mask.flatten()[_draw(mask, 3, (0, 0))]
    assert len(_draw(torch.full((1, 4, 4), VOID), 10, (0, 0))) == 0


def test_features_at_places_are_those_of_the_enlarged_map() -> None:
    features, size = torch.randn(2, 3, 5, 7), (20, 42)
    enlarged = F.interpolate(features, size=size, mode="bilinear", align_corners=False).flatten(2)
    places = [torch.randperm(20 * 42)[:50] for _ in range(2)]
    expected = torch.cat([enlarged[i, :, place].T for i, place in enumerate(places)])
    torch.testing.assert_close(_at(features, places, size), expected, rtol=1e-4, atol=1e-5)


def test_scores_are_those_of_enlarged_features() -> None:
    features = {"a": torch.randn(2, 3, 4, 4), "b": torch.randn(2, 2, 8, 8)}
    classifier = Classifier({"a": torch.randn(3), "b": torch.randn(2)}, 0.7, 1.0)
    alone = Classifier({"b": torch.randn(2)}, -1.0, 1.0)
    enlarged = [F.interpolate(x, size=(16, 16), mode="bilinear", align_corners=False) for x in features.values()]
    weights = torch.cat(list(classifier.weights.values()))
    expected = torch.einsum("nchw,c->nhw", torch.cat(enlarged, 1), weights)[:, None] + 0.7
    found = _scores([alone, classifier], features, torch.zeros(2, 1, 16, 16))
    torch.testing.assert_close(found[:, 1:], expected, rtol=1e-4, atol=1e-5)
    expected = torch.einsum("nchw,c->nhw", enlarged[1], alone.weights["b"]) - 1
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_counts_above_each_threshold_are_those_made_one_by_one() -> None:
    scores, masks = torch.randn(3, 2, 9, 9), torch.rand(3, 1, 9, 9) > 0.6
    scores[0, 0, 0, :2] = torch.tensor([-1e3, 1e3])
    found = _above_each(scores, masks, torch.tensor([0.2, 0.7]))
    assert found.shape == (3, 2, 511, 4)
    void = torch.rand(3, 1, 9, 9) > 0.6
    labels = masks.to(torch.uint8).masked_fill(void, VOID)
    left = _above_each(scores, labels.float(), torch.tensor([0.2, 0.7]))
    for column, spread in enumerate((0.2, 0.7)):
        edges = thresholds(spread)
        assert edges[255] == 0
        for n in (0, 100, 255, 400, 510):
            assert torch.equal(found[:, column, n], counts(scores[:, column : column + 1] > edges[n], masks))
            assert torch.equal(left[:, column, n], counts(scores[:, column : column + 1] > edges[n], labels))


# --- a trunk whose layers are known ---


class Channels(nn.Module):
    """Three layers: the red and the green channel, and noise that follows from neither."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        blue = torch.sin(1e4 * x[:, 2:3])
        return {"red": x[:, :1], "green": F.avg_pool2d(x[:, 1:2], 2), "noise": blue}


def write_pictures(folder: Path, count: int, rule: str, void: str = "") -> list[Pair]:
    pairs = []
    for number in range(count):
        rng = np.random.default_rng(number)
        photo = np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3), np.uint8), 4, 0), 4, 1)
        red, green = photo[..., 0].astype(int), photo[..., 1].astype(int)
        mask = {"red": red > 150, "both": red + green > 280, "none": red < 0}[rule]
        pair = Pair(f"p{number}", folder / f"p{number}.png", folder / f"m{number}.png")
        cv2.imwrite(str(pair.photo), photo[..., ::-1])
        values = 255 * mask.astype(np.uint8)
        if void:  # a third of the image: without labels, or with wrong ones
            places = np.repeat(np.repeat(rng.random((8, 8)) < 0.33, 4, 0), 4, 1)
            values[places] = {"void": 7, "wrong": 255 - values[places]}[void]
        cv2.imwrite(str(pair.mask), values)
        pairs.append(pair)
    return pairs


def probe_of(folder: Path, rule: str, void: str = "", **changes: object) -> Probe:
    pairs = write_pictures(folder, 10, rule, void)
    data = DataSettings(name="folder", root=str(folder), image_size=32, ignore=7)
    options = {"batch_size": 3, "workers": 0, "pixels": 200, "ridge": 1e-3, "seed": 0, "empty": "one"} | changes
    training, validation = (build_dataset(each, data, None) for each in (pairs[:6], pairs[6:]))
    half, cpu = torch.full((3,), 0.5), Device(torch.device("cpu"), torch.float32)
    return Probe(Channels(), half, half, cpu, training, validation, **options)  # type: ignore[arg-type]


SINGLES = [("red",), ("green",), ("noise",)]


def test_the_layer_that_tells_everything_gets_a_dice_of_one(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, "red")
    found = probe.measure(probe.fit(SINGLES))
    assert found["red",] > 0.98  # the threshold lies on one of 511 places
    assert found["noise",] < found["green",] + 0.1 < 0.9


def test_layers_together_tell_what_none_tells_alone(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, "both")
    alone = probe.measure(probe.fit(SINGLES))
    pairs = [("red", "green"), ("red", "noise"), ("green", "noise")]
    together = probe.measure(probe.fit(pairs))
    assert max(together, key=together.__getitem__) == ("red", "green")
    assert together["red", "green"] > max(alone.values()) + 0.1
    assert together["red", "noise"] == pytest.approx(alone["red",], abs=0.02)


def test_pairs_fitted_later_are_the_same_as_at_once(tmp_path: Path) -> None:
    first, second = (probe_of(tmp_path, "both") for _ in range(2))
    first.fit(SINGLES)
    late, at_once = first.fit([("red", "green")]), second.fit([*SINGLES, ("red", "green")])
    pair = ("red", "green")
    assert late[pair].threshold == at_once[pair].threshold
    assert all(torch.equal(late[pair].weights[name], at_once[pair].weights[name]) for name in pair)
    assert first.classes[0].count == second.classes[0].count


def test_batches_do_not_matter(tmp_path: Path) -> None:
    one, many = (probe_of(tmp_path, "both", batch_size=size) for size in (1, 6))
    a, b = (probe.fit([("red", "green")])["red", "green"] for probe in (one, many))
    torch.testing.assert_close(a.weights, b.weights, rtol=1e-5, atol=1e-7)


def test_the_threshold_is_the_best_of_all_on_every_second_training_picture(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, "both")
    classifier = probe.fit([("green",)])["green",]
    places = thresholds(classifier.spread).tolist()

    def dice(threshold: float) -> float:
        rows = [
            counts(_scores([classifier], features, masks) > threshold, masks)
            for features, masks, _ in probe._batches("half")
        ]
        return per_image(torch.cat(rows))["dice"].mean().item()

    assert dice(classifier.threshold) == pytest.approx(max(dice(place) for place in places), abs=1e-12)
    assert classifier.threshold in places


def test_every_picture_moves_the_bar(tmp_path: Path) -> None:
    seen: list[int] = []
    probe = probe_of(tmp_path, "red", advance=seen.append)
    probe.measure(probe.fit(SINGLES))
    assert sum(seen) == 6 + 3 + 4 == probe.images


def test_pictures_without_the_object(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        probe_of(tmp_path, "none").fit(SINGLES)
    assert str(caught.value) == (
        "The training images have no pixels of the object; a probe needs both classes. Check data.foreground and "
        "data.invert, and that the masks belong to these images."
    )


def test_wrong_labels_below_void_do_not_matter(tmp_path: Path) -> None:
    """Without void they do; what is measured is the Dice of the pixels that are left."""
    wrong, probe = probe_of(tmp_path, "red", "wrong"), None
    assert wrong.measure(wrong.fit(SINGLES))["red",] < 0.9
    probe = probe_of(tmp_path, "red", "void")
    classifiers = probe.fit(SINGLES)
    found = probe.measure(classifiers)
    assert found["red",] > 0.98
    rows = []
    for features, masks, _ in probe._batches("validation"):
        scores = _scores([classifiers["green",]], features, masks)
        rows.append(counts(scores > classifiers["green",].threshold, masks))
    assert (torch.cat(rows).sum(1) < 16 * 16).all()
    assert found["green",] == pytest.approx(per_image(torch.cat(rows))["dice"].mean().item())


def test_wholly_void_images_are_in_no_mean(tmp_path: Path) -> None:
    probe = probe_of(tmp_path, "red")
    expected = probe.measure(probe.fit(SINGLES))
    void = np.full((32, 32), 7, np.uint8)
    cv2.imwrite(str(tmp_path / "m9.png"), void)
    last = probe.measure(probe.fit(SINGLES))
    assert last["red",] > 0.98
    assert not np.isnan(list(last.values())).any()
    assert last.keys() == expected.keys()
