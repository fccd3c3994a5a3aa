"""Batches of features that are computed once: the part of training that takes the place of the images."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Sampler

from segtune.data.dataset import SegmentationDataset
from segtune.data.loader import BatchLoader, EpochBatches
from segtune.data.sources.base import Pair
from segtune.models.model import SegmentationModel
from segtune.models.split import Crossing
from segtune.runtime.console import bar
from segtune.training.feature_form import FeatureForm, record_name
from segtune.training.feature_store import Store

log = logging.getLogger(__name__)

Batch = dict[str, Any]
Keys = list[list[tuple[int, int]]]


class KeyBatches(Sampler[list[tuple[int, int]]]):
    """The batches of `(view, index)` keys that it is given."""

    def __init__(self) -> None:
        self.keys: Keys = []

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.keys)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.keys)


class FeatureLoader:
    """Batches as of a `BatchLoader`, whose `image` is a `Crossing`: what the split model's frozen part computes.

    Epoch e has view e mod `views` of every image. Before an epoch, what the store lacks of it is computed and written;
    without a store, or when one has failed, each batch is computed when its turn comes.
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
    ) -> None:
        self.model, self.dataset, self.batches, self.form = model, dataset, batches, form
        self.views, self.store, self.seconds = views, store, 0.0
        self.given = KeyBatches()
        self.images = BatchLoader(dataset, self.given, workers, form.compute.device.type == "cuda")
        self.size = size

    def until(self, give_up: Callable[[float], bool]) -> Iterator[Batch]:
        """Yield the batches, and end early if `give_up(seconds)` while this process has waited so long for the next.

        Raises:
            StoppedError: A file cannot be read, or a worker has ended.
            MemoryError: A batch is too large for the memory.
        """
        view = (self.batches.epoch - 1) % self.views
        wanted = [[(view, index) for _, index in batch] for batch in self.batches]
        if not self._fill(wanted, give_up):
            return
        for number, keys in enumerate(wanted):
            if self.store is None:
                yield from self._computed(wanted[number:], give_up)
                return
            if batch := self._kept(self.store, keys):
                yield batch
            else:  # a file has been removed or damaged
                yield from self._computed([keys], give_up)

    def take_seconds(self) -> float:
        """Return the time that filling the store has taken since this was last called."""
        taken, self.seconds = self.seconds, 0.0
        return taken

    def _fill(self, wanted: Keys, give_up: Callable[[float], bool]) -> bool:
        """Compute and write what the store lacks; return whether it was not given up."""
        if self.store is None:
            return True
        began, store, done = time.perf_counter(), self.store, 0
        missing = [key for batch in wanted for key in batch if not store.has(self._name(*key))]
        size = self.batches.batch_size
        with bar("features", len(missing)) as progress:
            for batch in self._computed([missing[i : i + size] for i in range(0, len(missing), size)], give_up):
                try:
                    for key, record in zip(
                        missing[done:], self.form.records(batch["image"], batch["mask"]), strict=False
                    ):
                        store.write(self._name(*key), record)
                except (OSError, MemoryError) as error:
                    log.warning("Features are no longer kept: %s. Training goes on without.", error)
                    self.store = None
                    break
                done += len(batch["index"])
                progress(done, "")
        self.seconds += time.perf_counter() - began
        return self.store is None or done == len(missing)

    def _computed(self, keys: Keys, give_up: Callable[[float], bool]) -> Iterator[Batch]:
        self.given.keys = keys
        for batch in self.images.until(give_up):
            yield batch | {"image": self.form.through(self.model, batch["image"])}

    def _kept(self, store: Store, keys: Sequence[tuple[int, int]]) -> Batch | None:
        records = [store.read(self._name(*key)) for key in keys]
        found = [record for record in records if record is not None]
        if len(found) < len(records):
            return None
        return self.form.batch(found, self.size) | {"index": torch.tensor([index for _, index in keys])}

    def _name(self, view: int, index: int) -> str:
        return record_name(self.dataset.pairs[index], view)


class KeptValidation:
    """Takes batches of validation images through the frozen part, each image once."""

    def __init__(self, model: SegmentationModel, pairs: Sequence[Pair], store: Store | None, form: FeatureForm) -> None:
        self.model, self.store, self.form = model, store, form
        self.names = [record_name(pair, 0) for pair in pairs]

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
        if self.store:
            try:
                for name, record in zip(names, self.form.records(crossing), strict=True):
                    self.store.write(name, record)
            except (OSError, MemoryError) as error:
                log.warning("Features of validation images are no longer kept: %s.", error)
                self.store = None
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
