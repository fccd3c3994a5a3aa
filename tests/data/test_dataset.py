"""Samples and their order as functions of (seed, epoch, index)."""

import numpy as np
import pytest
import torch
from PIL import Image

from segtune.data.dataset import SegmentationDataset
from segtune.data.images import Foreground
from segtune.data.loader import EpochBatches, collate, make_loader
from segtune.data.sources.base import Pair
from segtune.data.transforms import build_transform

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


def test_workers_change_nothing_and_stay_for_all_epochs(pairs: list[Pair]) -> None:
    batches = [EpochBatches(7, 3, seed=0) for _ in range(2)]
    alone, helped = (
        make_loader(dataset(pairs), batches[0], 0, False),
        make_loader(dataset(pairs), batches[1], 2, False),
    )
    seen = []
    for epoch in range(2):
        batches[0].epoch = batches[1].epoch = epoch
        expected, got = list(alone), list(helped)
        assert [len(batch["index"]) for batch in got] == [3, 3, 1]
        assert all(same(a, b) and torch.equal(a["index"], b["index"]) for a, b in zip(expected, got, strict=True))
        seen.append(got)
    assert sorted(torch.cat([batch["index"] for batch in seen[1]]).tolist()) == list(range(7))
    assert not same(seen[0][0], seen[1][0])


def test_a_resumed_epoch_gives_the_tail() -> None:
    whole, tail = EpochBatches(23, 4, seed=5), EpochBatches(23, 4, seed=5)
    whole.epoch = tail.epoch = 6
    tail.start = 2
    assert list(tail) == list(whole)[2:]
    assert (len(whole), len(tail)) == (6, 4)
    tail.start = 9
    assert (list(tail), len(tail)) == ([], 0)


@pytest.mark.parametrize(("length", "size", "world"), [(6, 4, 2), (5, 4, 2), (5, 4, 3), (23, 7, 4), (3, 8, 8)])
def test_shares_of_several_processes_make_the_batches_of_one(length: int, size: int, world: int) -> None:
    whole = EpochBatches(length, size, seed=3)
    shares = [EpochBatches(length, size, seed=3, rank=rank, world=world) for rank in range(world)]
    for batches in (whole, *shares):
        batches.epoch = 2
    assert {len(share) for share in shares} == {len(whole)}
    for number, (expected, *parts) in enumerate(zip(whole, *shares, strict=True)):
        counted = [share.share_of(number) for share in shares]
        assert {everyones for _, everyones in counted} == {len(expected)}
        given = [key for (mine, _), part in zip(counted, parts, strict=True) for key in part[:mine]]
        assert sorted(given) == sorted(expected)  # each image once
        assert all(len(part) == max(1, mine) for (mine, _), part in zip(counted, parts, strict=True))
    assert whole.share_of(0) == (min(length, size), min(length, size))


def test_a_process_without_a_share_gets_a_picture_of_no_weight() -> None:
    last = EpochBatches(5, 4, seed=0, rank=1, world=2)
    last.start = 1
    first = EpochBatches(5, 4, seed=0, rank=0, world=2)
    first.start = 1
    assert last.share_of(1) == (0, 1)
    assert list(last) == list(first)


def test_the_end_stops_an_epoch_early() -> None:
    whole, short = EpochBatches(23, 4, seed=5), EpochBatches(23, 4, seed=5)
    short.start, short.end = 1, 3
    assert list(short) == list(whole)[1:3]
    assert (len(short), short.whole) == (2, 6)


def test_the_order_is_a_permutation_that_follows_seed_and_epoch() -> None:
    def order(seed: int, epoch: int, shuffle: bool = True) -> list[int]:
        batches = EpochBatches(50, 8, seed, shuffle=shuffle)
        batches.epoch = epoch
        keys = [key for batch in batches for key in batch]
        assert {key[0] for key in keys} == {epoch}
        return [key[1] for key in keys]

    assert sorted(order(0, 0)) == list(range(50))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order(0, 3, shuffle=False) == list(range(50))


def test_collate_stacks_all_but_the_truth(pairs: list[Pair]) -> None:
    data = dataset(pairs, truth=True)
    batch = collate([data[0, 1], data[0, 4]])
    assert batch["image"].shape == (2, 3, 32, 48)
    assert batch["mask"].shape == (2, 1, 32, 48)
    assert batch["index"].tolist() == [1, 4]
    assert [tuple(truth.shape) for truth in batch["truth"]] == [(41, 50), (44, 50)]
