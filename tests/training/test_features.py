"""Batches of features are those of the images, in the same order, whether kept or computed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segtune.data.dataset import SegmentationDataset, build_dataset
from segtune.data.loader import EpochBatches, make_loader
from segtune.data.splits import build_splits
from segtune.models.split import Crossing
from segtune.runtime.device import Device
from segtune.training.feature_form import FeatureForm
from segtune.training.feature_store import FolderStore, MemoryStore, Store
from segtune.training.features import FeatureLoader, KeptValidation
from tests.training.conftest import settings

FORM = FeatureForm(Device(torch.device("cpu"), torch.float32), torch.float32, 2)


def crossing(images: torch.Tensor) -> Crossing:
    """Stand in for a frozen part: halves."""
    return Crossing({"half": images.float() / 2}, (images.shape[-2], images.shape[-1]))


MODEL: Any = SimpleNamespace(crossing=crossing)


@pytest.fixture
def dataset(discs: Path) -> SegmentationDataset:
    chosen = settings(discs)
    pairs = build_splits(chosen.data, 0, 0)["train"]
    return build_dataset(pairs, chosen.data, chosen.augment, seed=0, by_content=True)


def loaded(dataset: SegmentationDataset, store: Store | None, epoch: int, views: int = 2, start: int = 0) -> list[Any]:
    batches = EpochBatches(len(dataset), 2, seed=3)
    batches.epoch, batches.start = epoch, start
    loader = FeatureLoader(MODEL, dataset, batches, views, store, FORM, (64, 64), 0)
    return list(loader.until(lambda _: False))


@pytest.mark.parametrize("kind", ["none", "memory", "folder"])
def test_epochs_take_the_views_in_turn(kind: str, dataset: SegmentationDataset, tmp_path: Path) -> None:
    store = {"none": None, "memory": MemoryStore(), "folder": FolderStore(tmp_path)}[kind]
    for epoch in (1, 2, 3):
        order = EpochBatches(len(dataset), 2, seed=3)
        order.epoch = epoch
        found = loaded(dataset, store, epoch)
        assert [batch["index"].tolist() for batch in found] == [[index for _, index in keys] for keys in order]
        for batch in found:
            for i, index in enumerate(batch["index"].tolist()):
                sample = dataset[(epoch - 1) % 2, index]
                assert torch.equal(batch["image"].values["half"][i], sample["image"].float() / 2)
                assert torch.equal(batch["mask"][i], sample["mask"])
            assert batch["image"].size == (64, 64)
    assert len(loaded(dataset, store, 2, start=1)) == 2


def test_a_view_depends_on_the_image_and_not_on_its_place(dataset: SegmentationDataset) -> None:
    turned = SegmentationDataset(
        dataset.pairs[::-1], dataset.foreground, dataset.transform, 0, by_content=dataset.by_content
    )
    for view in range(4):
        for index in range(len(dataset)):
            one, other = dataset[view, index], turned[view, len(dataset) - 1 - index]
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["mask"], other["mask"])


def test_filling_is_given_up_when_asked(dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    batches = EpochBatches(len(dataset), 2, seed=3)
    batches.epoch = 1
    loader = FeatureLoader(MODEL, dataset, batches, 2, store, FORM, (64, 64), 0)
    monkeypatch.setattr(loader.images, "until", lambda give_up: iter(()))  # as if a signal came at once
    assert list(loader.until(lambda _: True)) == []
    assert store.records == {}


def test_filling_is_timed_once(dataset: SegmentationDataset) -> None:
    batches = EpochBatches(len(dataset), 2, seed=3)
    batches.epoch = 1
    loader = FeatureLoader(MODEL, dataset, batches, 2, MemoryStore(), FORM, (64, 64), 0)
    list(loader.until(lambda _: False))
    assert loader.take_seconds() > 0
    assert loader.take_seconds() == 0


def test_validation_images_go_through_once(discs: Path) -> None:
    chosen = settings(discs)
    pairs = build_splits(chosen.data, 0, 0)["val"]
    loader = make_loader(build_dataset(pairs, chosen.data, None), EpochBatches(3, 2, 0, shuffle=False), 0, False)
    calls: list[int] = []

    def counted(images: torch.Tensor) -> Crossing:
        calls.append(len(images))
        return crossing(images)

    model: Any = SimpleNamespace(crossing=counted)
    validation = KeptValidation(model, pairs, MemoryStore(), FORM)
    for _ in range(2):
        for batch in loader:
            assert torch.equal(validation(batch).values["half"], batch["image"].float() / 2)
    assert calls == [2, 2]  # the second, of one image, filled up
