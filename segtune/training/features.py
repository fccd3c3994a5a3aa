"""Batches of features that are computed once: the part of training that takes the place of the images."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Sampler

from segtune.data.dataset import SegmentationDataset
from segtune.data.loader import BatchLoader, EpochBatches
from segtune.data.record import is_unchanged
from segtune.data.sources.base import Pair
from segtune.models.model import SegmentationModel
from segtune.models.split import Crossing
from segtune.training.feature_form import FeatureForm, record_name
from segtune.training.feature_store import Record, Store

log = logging.getLogger(__name__)

Batch = dict[str, Any]
Key = tuple[int, int]
Keys = list[Key]


class KeyBatches(Sampler[Keys]):
    """The batches of `(view, index)` keys that it is given."""

    def __init__(self) -> None:
        self.keys: Sequence[Keys] = []

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.keys)

    def __iter__(self) -> Iterator[Keys]:
        return iter(self.keys)


class FeatureLoader:
    """Batches as of a `BatchLoader`, whose `image` is a `Crossing`: what the split model's frozen part computes.

    Epoch e has view e mod `views` of every image. What the store lacks is computed, and written, when the turn of its
    batch comes. An image that the data set holds `times` times, one round after the other, has other views each time.
    """

    def __init__(
        self,
        model: SegmentationModel,
        dataset: SegmentationDataset,
        batches: EpochBatches,
        views: int,
        store: Store | None,
        form: FeatureForm,
        size: tuple[int, int],
        workers: int,
        times: int = 1,
    ) -> None:
        self.model, self.dataset, self.batches, self.form = model, dataset, batches, form
        self.views, self.store, self.writes = views, store, True
        self.seconds = self.reading = 0.0
        self.given, self.lost = KeyBatches(), KeyBatches()
        pin_memory = form.compute.device.type == "cuda"
        self.images = BatchLoader(dataset, self.given, workers, pin_memory)
        self.lost_images = BatchLoader(dataset, self.lost, 0, pin_memory)
        self.size, self.distinct = size, len(dataset) // times

    def until(self, give_up: Callable[[float], bool]) -> Iterator[Batch]:
        """Yield the batches, and end early if `give_up(seconds)` while this process has waited so long for the next.

        Raises:
            StoppedError: A file cannot be read, or a worker has ended.
            MemoryError: A batch is too large for the memory.
        """
        view = (self.batches.epoch - 1) % self.views
        wanted = [[(view + self.views * (i // self.distinct), i) for _, i in batch] for batch in self.batches]
        groups = self.given.keys = self._groups(wanted)
        pending, made = {key for group in groups for key in group}, dict[Key, Record]()
        with closing(self.images.until(give_up)) as images:
            for keys in wanted:
                batch = None
                while not pending.isdisjoint(keys):
                    group, *groups = groups
                    if (computed := self._computed(group, images)) is None:
                        return
                    pending.difference_update(group)
                    if group == keys:
                        batch = computed
                    else:
                        made.update(zip(group, self._records(computed), strict=True))
                if batch is None and (batch := self._read(keys, made)) is None:  # a file has been removed or damaged
                    self.lost.keys = [keys]
                    if (batch := self._computed(keys, self.lost_images.until(give_up))) is None:
                        return
                yield batch

    def _groups(self, wanted: Sequence[Keys]) -> list[Keys]:
        """Return what the store lacks of an epoch as batches to compute, in the order in which they are needed.

        A batch of which all is lacking is one of them; single images of the others are put together.
        """
        there = self.store.names() if self.store else ()
        groups, singles = list[Keys](), Keys()
        for keys in wanted:
            lacking = [key for key in keys if self._name(*key) not in there]
            if lacking == keys:
                groups.append(keys)
                continue
            for key in lacking:
                if len(singles) % self.form.batch_size == 0:
                    groups.append(singles := [])
                singles.append(key)
        return groups

    def take_seconds(self) -> float:
        """Return the time that filling the store has taken since this was last called."""
        taken, self.seconds = self.seconds, 0.0
        return taken

    def take_wait(self) -> float:
        """Return the seconds that batches were waited for since this was last called, without filling the store."""
        taken, self.reading = self.reading + self.images.take_wait(), 0.0
        return taken

    def _computed(self, keys: Keys, images: Iterator[Batch]) -> Batch | None:
        """Return the next batch of images taken through the frozen part, and keep it; None if there is none."""
        keeps = self.store is not None and self.writes
        if keeps:
            self.form.compute.wait()  # else the steps that a GPU has not finished would count as filling
        began = time.perf_counter()
        if (batch := next(images, None)) is None:
            return None
        batch["image"] = self.form.through(self.model, batch["image"])
        if keeps:
            self._keep(keys, batch)
            self.seconds += time.perf_counter() - began
            self.images.take_wait()
        return batch

    def _records(self, batch: Batch) -> Iterator[Record]:
        return self.form.records(batch["image"], batch["mask"])

    def _keep(self, keys: Keys, batch: Batch) -> None:
        try:
            for (view, index), record in zip(keys, self._records(batch), strict=True):
                if self.store and _may_be_kept(self.dataset.pairs[index]):
                    self.store.write(self._name(view, index), record)
        except (OSError, MemoryError) as error:
            log.warning("Features are no longer kept: %s. Training goes on without.", error)
            self.writes = False

    def _read(self, keys: Keys, made: dict[Key, Record]) -> Batch | None:
        """Return a batch of what has been made, and is removed, and of what is kept; None if some of it is lost."""
        began = time.perf_counter()
        found = [made.pop(key, None) or (self.store and self.store.read(self._name(*key))) for key in keys]
        records = [record for record in found if record]
        whole = len(records) == len(keys)
        batch = self.form.batch(records, self.size) | {"index": torch.tensor([i for _, i in keys])} if whole else None
        self.reading += time.perf_counter() - began
        return batch

    def _name(self, view: int, index: int) -> str:
        return record_name(self.dataset.pairs[index], view)


def _may_be_kept(pair: Pair) -> bool:
    """Return whether an image that has just been read is the one whose name its features would get."""
    if is_unchanged(pair):
        return True
    log.warning("%s or its mask has changed since the run began: its features are not kept.", pair.photo)
    return False


class KeptValidation:
    """Takes batches of validation images through the frozen part, each image once."""

    def __init__(self, model: SegmentationModel, pairs: Sequence[Pair], store: Store | None, form: FeatureForm) -> None:
        self.model, self.store, self.form, self.writes = model, store, form, True
        self.pairs, self.names = pairs, [record_name(pair, 0) for pair in pairs]

    def __call__(self, batch: Batch) -> Crossing:
        """Return the crossing values of a batch with `image` (N, 3, H, W) and `index` (N,)."""
        images, names = batch["image"], [self.names[index] for index in batch["index"].tolist()]
        if self.store:
            found = [record for name in names if (record := self.store.read(name))]
            if len(found) == len(names):
                height, width = images.shape[-2:]
                crossing: Crossing = self.form.batch(found, (height, width))["image"]
                return crossing
        crossing = self.form.through(self.model, images)
        if self.store and self.writes:
            try:
                records = self.form.records(crossing)
                for index, name, record in zip(batch["index"].tolist(), names, records, strict=True):
                    if _may_be_kept(self.pairs[index]):
                        self.store.write(name, record)
            except (OSError, MemoryError) as error:
                log.warning("Features of validation images are no longer kept: %s.", error)
                self.writes = False
        return crossing


@dataclass(frozen=True)
class FeatureSource:
    """What takes the place of the images in a phase, and a line that says so.

    Attributes:
        loader: Of the training batches.
        validation: Of validation; None if it takes the images.
        text: Where features are kept, or why they are not.
    """

    loader: FeatureLoader
    validation: KeptValidation | None
    text: str
