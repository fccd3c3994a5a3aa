"""Batches of features are those of the images, in the same order, whether kept or computed."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch

from segtune.config.data_settings import AugmentSettings
from segtune.data.dataset import SegmentationDataset, build_dataset
from segtune.data.loader import EpochBatches, make_loader
from segtune.data.splits import build_splits
from segtune.models.split import Crossing
from segtune.runtime.device import Device
from segtune.training.feature_form import FeatureForm, record_name
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
    store = {"none": None, "memory": MemoryStore(), "folder": FolderStore(tmp_path, {})}[kind]
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


def test_an_image_that_comes_twice_in_an_epoch_has_other_views_each_time(dataset: SegmentationDataset) -> None:
    count, store = len(dataset), MemoryStore()
    twice = SegmentationDataset(
        [*dataset.pairs, *dataset.pairs], dataset.foreground, dataset.transform, 0, by_content=dataset.by_content
    )
    batches = EpochBatches(len(twice), 2, seed=3)
    loader = FeatureLoader(MODEL, twice, batches, 2, store, FORM, (64, 64), 0, 2)
    for epoch in (1, 2, 3):
        batches.epoch = epoch
        found = list(loader.until(lambda _: False))
        assert sorted(index for batch in found for index in batch["index"].tolist()) == list(range(2 * count))
        for batch in found:
            for i, index in enumerate(batch["index"].tolist()):
                sample = dataset[(epoch - 1) % 2 + 2 * (index // count), index % count]
                assert torch.equal(batch["image"].values["half"][i], sample["image"].float() / 2)
                assert torch.equal(batch["mask"][i], sample["mask"])
    assert len(store.names()) == 4 * count


def test_a_view_depends_on_the_image_and_not_on_its_place(dataset: SegmentationDataset) -> None:
    turned = SegmentationDataset(
        dataset.pairs[::-1], dataset.foreground, dataset.transform, 0, by_content=dataset.by_content
    )
    for view in range(4):
        for index in range(len(dataset)):
            one, other = dataset[view, index], turned[view, len(dataset) - 1 - index]
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["mask"], other["mask"])


def loader_of(
    dataset: SegmentationDataset, store: Store, monkeypatch: pytest.MonkeyPatch, name: str = "images"
) -> FeatureLoader:
    """Return a loader whose images, or lost images, end, as by a signal, when asked whether to give up."""
    batches = EpochBatches(len(dataset), 2, seed=3)
    batches.epoch = 1
    loader = FeatureLoader(MODEL, dataset, batches, 2, store, FORM, (64, 64), 0)
    images = getattr(loader, name)

    class Stoppable:
        def until(self, give_up: Any) -> Any:
            for batch in images:
                if give_up(0):
                    return
                yield batch

        take_wait = images.take_wait

    monkeypatch.setattr(loader, name, Stoppable())
    return loader


def test_filling_is_given_up_when_asked(dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    assert list(loader_of(dataset, store, monkeypatch).until(lambda _: True)) == []
    assert store.records == {}


def test_an_epoch_that_is_stopped_has_kept_what_it_has_used(
    dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features are computed in the turn of their batch, so that the first step waits for one batch only."""
    store, asked = MemoryStore(), []
    found = list(loader_of(dataset, store, monkeypatch).until(lambda _: asked.append(1) or len(asked) > 2))
    assert [len(batch["index"]) for batch in found] == [2, 2]
    used = {record_name(dataset.pairs[index], 0) for batch in found for index in batch["index"].tolist()}
    assert store.records.keys() == used


def test_what_is_lost_or_cannot_be_kept_is_computed_in_its_turn(
    dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = loaded(dataset, None, 1)

    class Failing(MemoryStore):
        def write(self, name: str, record: Any) -> None:
            if len(self.records) == 4:
                raise OSError("it is full")
            super().write(name, record)

    class Losing(MemoryStore):
        def read(self, name: str) -> Any:
            return None if name == list(self.records)[2] else super().read(name)

    losing = Losing()
    loaded(dataset, losing, 1)
    for store, count in (Failing(), 3), (losing, 1):
        calls: list[int] = []
        monkeypatch.setattr(MODEL, "crossing", lambda images, calls=calls: calls.append(1) or crossing(images))
        found = loaded(dataset, store, 1)
        assert len(calls) == count
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one["image"].values["half"], other["image"].values["half"])
            assert torch.equal(one["index"], other["index"])


def test_no_batch_is_skipped_when_a_lost_one_is_given_up(
    dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = MemoryStore(), []
    loaded(dataset, store, 1)
    loader = loader_of(dataset, store, monkeypatch, "lost_images")
    monkeypatch.setattr(store, "read", lambda name: None if name == list(store.records)[2] else store.records[name])
    found = list(loader.until(lambda _: asked.append(1) or True))
    assert len(asked) == 1
    assert [batch["index"].tolist() for batch in found] == [[index for _, index in next(iter(loader.batches))]]


def test_single_images_that_are_lacking_are_computed_together(
    dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when photos have been added to a data set: every batch lacks some."""
    store = MemoryStore()
    wanted = loaded(dataset, store, 1)
    for batch in wanted[:2]:
        del store.records[record_name(dataset.pairs[int(batch["index"][1])], 0)]
    calls: list[list[float]] = []
    monkeypatch.setattr(MODEL, "crossing", lambda images: calls.append(images) or crossing(images))
    found = loaded(dataset, store, 1)
    assert [len(images) for images in calls] == [2]
    assert len(store.records) == 5
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one["image"].values["half"], other["image"].values["half"])
        assert torch.equal(one["mask"], other["mask"])
        assert torch.equal(one["index"], other["index"])


def test_filling_is_timed_once(dataset: SegmentationDataset) -> None:
    batches = EpochBatches(len(dataset), 2, seed=3)
    batches.epoch = 1
    loader = FeatureLoader(MODEL, dataset, batches, 2, MemoryStore(), FORM, (64, 64), 0)
    list(loader.until(lambda _: False))
    assert loader.take_seconds() > 0
    assert loader.take_seconds() == 0


def test_an_image_that_has_changed_is_not_kept_under_its_old_name(
    discs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(discs, tmp_path / "data")
    given = settings(tmp_path / "data")
    pairs = build_splits(given.data, 0, 0)["train"]
    changed = pairs[1]
    photo = cv2.imread(str(changed.photo))
    photo[0, 0, 0] ^= 1
    cv2.imwrite(str(changed.photo), photo)
    store, named = MemoryStore(), {record_name(pair, 0) for pair in pairs}
    found = loaded(build_dataset(pairs, given.data, AugmentSettings(), by_content=True), store, 1, views=1)
    assert len(found) == 3
    assert store.records.keys() == named - {record_name(changed, 0)}
    assert f"{changed.photo} or its mask has changed since the run began: its features are not kept." in caplog.text


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
