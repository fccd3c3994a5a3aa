"""Samples as functions of (seed, epoch, index)."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from segtune.config.data_settings import AugmentSettings, DataSettings
from segtune.data.dataset import SegmentationDataset, build_dataset
from segtune.data.labels import Foreground
from segtune.data.sources.base import Pair
from segtune.data.transforms import build_transform
from segtune.metrics import VOID

AUGMENT = {
    "HorizontalFlip": {"p": 0.5},
    "VerticalFlip": {"p": 0.5},
    "Affine": {"rotate": [-20, 20], "p": 0.5},
    "GaussNoise": {"p": 0.5},
    "GridDistortion": {"p": 0.5},
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    made = []
    for i in range(7):
        pair = Pair(f"p{i}", root / f"p{i}.png", root / f"m{i}.png")
        Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), np.uint8)).save(pair.photo)
        Image.fromarray(rng.integers(0, 2, (40 + i, 50), np.uint8) * np.uint8(255)).save(pair.mask)
        made.append(pair)
    return made


def dataset(pairs: list[Pair], seed: int = 0, truth: bool = False) -> SegmentationDataset:
    crop = {"scale": [0.5, 1.0], "ratio": [0.8, 1.25]}
    return SegmentationDataset(pairs, Foreground(), build_transform((32, 48), crop, AUGMENT), seed, truth=truth)


def same(a: dict, b: dict) -> bool:
    return torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])


def test_sixteen_bits_are_scaled_by_the_setting(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (64, 64, 3), np.uint16)
    pair = Pair("a", tmp_path / "a.png", tmp_path / "m.png")
    cv2.imwrite(str(pair.photo), deep[..., ::-1])
    Image.fromarray(np.eye(64, dtype=np.uint8)).save(pair.mask)
    settings = DataSettings("folder", str(tmp_path), image_size=64, max_value=4095)
    for made in (build_dataset([pair], settings, None), build_dataset([pair], settings, AugmentSettings())):
        for each in (made, made.only(slice(1))):
            assert np.array_equal(each[0, 0]["image"].numpy().transpose(1, 2, 0), deep >> 4)


def test_a_sample_holds_what_it_says(pairs: list[Pair]) -> None:
    sample = dataset(pairs, truth=True)[0, 3]
    assert set(sample) == {"image", "mask", "index", "truth"}
    assert (sample["image"].shape, sample["image"].dtype) == ((3, 32, 48), torch.uint8)
    assert (sample["mask"].shape, sample["mask"].dtype) == ((1, 32, 48), torch.uint8)
    assert set(sample["mask"].unique().tolist()) == {0, 1}
    assert sample["index"] == 3
    assert np.array_equal(sample["truth"].numpy() * 255, np.asarray(Image.open(pairs[3].mask)))
    assert "truth" not in dataset(pairs)[0, 3]


def test_without_augmentation_the_sample_is_the_file(pairs: list[Pair]) -> None:
    plain = SegmentationDataset(pairs, Foreground(invert=True), build_transform((42, 50), None, {}), 0)
    sample = plain[9, 2]
    assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), np.asarray(Image.open(pairs[2].photo)))
    assert np.array_equal(sample["mask"][0].numpy(), np.asarray(Image.open(pairs[2].mask)) == 0)


def test_in_tiles_a_sample_is_the_file_at_its_own_size(pairs: list[Pair]) -> None:
    settings = DataSettings("folder", ".", image_size=32, eval_tile=128)
    for index, pair in enumerate(pairs):
        sample = build_dataset(pairs, settings, None)[0, index]
        assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), np.asarray(Image.open(pair.photo)))
        assert np.array_equal(sample["mask"][0].numpy(), sample["truth"].numpy())
        assert np.array_equal(sample["truth"].numpy() * 255, np.asarray(Image.open(pair.mask)))
    assert build_dataset(pairs, settings, AugmentSettings())[0, 0]["image"].shape == (3, 32, 32)


def test_augmentation_depends_on_seed_epoch_and_index_alone(pairs: list[Pair]) -> None:
    first, second = dataset(pairs), dataset(pairs)
    wanted = {index: first[1, index] for index in range(7)}
    for index in reversed(range(7)):
        second[0, index]  # other draws before must not matter
        assert same(second[1, index], wanted[index])
    assert not any(same(first[2, index], wanted[index]) for index in range(7))
    assert not any(same(dataset(pairs, seed=1)[1, index], wanted[index]) for index in range(7))


def test_transforms_are_drawn_independently(pairs: list[Pair]) -> None:
    # Started from one seed each, both flips would always come together.
    flips = build_transform((40, 50), None, {"HorizontalFlip": {"p": 0.5}, "VerticalFlip": {"p": 0.5}})
    data = SegmentationDataset(pairs[:1], Foreground(), flips, 0)
    whole = np.asarray(Image.open(pairs[0].mask)) // 255
    found = [data[epoch, 0]["mask"][0].numpy() for epoch in range(80)]
    for way in (whole, whole[:, ::-1], whole[::-1], whole[::-1, ::-1]):
        assert sum(np.array_equal(mask, way) for mask in found) >= 8  # 20 expected; less than 8 has odds below 1e-3


def test_void_is_a_label_of_its_own(pairs: list[Pair], tmp_path: Path) -> None:
    values = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (40, 50))
    pair = Pair("a", pairs[0].photo, tmp_path / "m.png")
    Image.fromarray(values).save(pair.mask)
    settings = DataSettings("folder", str(tmp_path), image_size=64, ignore=255)
    expected = np.where(values == 255, VOID, values)
    plain = build_dataset([pair], settings, None)[0, 0]
    assert np.array_equal(plain["truth"].numpy(), expected)
    rows, columns = (np.arange(64) + 0.5) * 40 // 64, (np.arange(64) + 0.5) * 50 // 64  # the nearest pixels
    assert np.array_equal(plain["mask"][0].numpy(), expected[rows.astype(int)][:, columns.astype(int)])
    turn = {"Affine": {"rotate": [30, 30], "p": 1}}
    shares = []
    for border in (None, "void"):
        mask = build_dataset([pair], settings, AugmentSettings(transforms=turn, border=border))[0, 0]["mask"]
        assert set(mask.unique().tolist()) == {0, 1, VOID}
        shares.append((mask == VOID).float().mean().item())
    assert shares[1] > shares[0] + 0.05
