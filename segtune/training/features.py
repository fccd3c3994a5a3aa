"""Batches of features that are computed once: the part of training that takes the place of the images."""

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch.utils.data import Sampler

from segtune.data.dataset import SegmentationDataset
from segtune.data.loader import BatchLoader, EpochBatches
from segtune.data.record import is_unchanged
from segtune.data.sources.base import Pair
from segtune.models.model import SegmentationModel
from segtune.models.split import Crossing
from segtune.runtime import distributed
from segtune.runtime.console import bar, say_without_bar
from segtune.training.feature_form import FeatureForm, record_name
from segtune.training.feature_store import Store

log = logging.getLogger(__name__)

Batch = dict[str, Any]
Keys = list[list[tuple[int, int]]]


#: Seconds after which it is said how long features will take to compute.
_LONG = 30.0


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
    what it still lacks then, as when it cannot be written, is computed when its turn comes.
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
        self.views, self.store, self.writes = views, store, True
        self.seconds = self.reading = 0.0
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
        self._fill(wanted, give_up)
        there = self.store.names() if self.store else ()
        for whole, group in groupby(wanted, lambda keys: all(self._name(*key) in there for key in keys)):
            # Those to compute are asked for together, so that the next ones are prepared meanwhile.
            for batches in ([keys] for keys in group) if whole else [list(group)]:
                if batch := self._timed(batches[0]) if whole else None:
                    yield batch
                elif (yield from self._computed(batches, give_up)) < len(batches):
                    return

    def take_seconds(self) -> float:
        """Return the time that filling the store has taken since this was last called."""
        taken, self.seconds = self.seconds, 0.0
        return taken

    def take_wait(self) -> float:
        """Return the seconds that batches were waited for since this was last called, without filling the store."""
        taken, self.reading = self.reading + self.images.take_wait(), 0.0
        return taken

    def _fill(self, wanted: Keys, give_up: Callable[[float], bool]) -> None:
        """Compute and write what the store lacks. The processes go on together, so that none waits for long."""
        began = time.perf_counter()
        filling = self._filling(wanted, give_up)
        with closing(filling):
            while True:
                busy, stopped = distributed.all_reduce_sum([next(filling, 0), give_up(math.inf)])
                if not busy or stopped:
                    break
        self.seconds += time.perf_counter() - began
        self.images.take_wait()

    def _filling(self, wanted: Keys, give_up: Callable[[float], bool]) -> Generator[int]:
        """Compute and write what the store lacks, and yield after each batch."""
        if self.store is None or not self.writes:
            return
        there, done, size = self.store.names(), 0, self.form.batch_size
        missing = [key for batch in wanted for key in batch if self._name(*key) not in there]
        began, told = time.perf_counter(), False
        with bar("features", len(missing)) as progress:
            for batch in self._computed([missing[i : i + size] for i in range(0, len(missing), size)], give_up):
                records = self.form.records(batch["image"], batch["mask"])
                try:
                    for (view, index), record in zip(missing[done:], records, strict=False):
                        if _may_be_kept(self.dataset.pairs[index]):
                            self.store.write(self._name(view, index), record)
                except (OSError, MemoryError) as error:
                    log.warning("Features are no longer kept: %s. Training goes on without.", error)
                    self.writes = False
                    return
                done += len(batch["index"])
                progress(done, "")
                taken = time.perf_counter() - began
                if taken > _LONG and not told:
                    told, left = True, taken / done * (len(missing) - done) / 60
                    say_without_bar(f"computing features: {done} of {len(missing)} images, {left:,.0f} minutes to go")
                yield 1

    def _computed(self, keys: Keys, give_up: Callable[[float], bool]) -> Generator[Batch, None, int]:
        """Yield batches that are computed now, and return their number: fewer than `keys` if they were given up."""
        self.given.keys, done = keys, 0
        for batch in self.images.until(give_up):
            done += 1
            yield batch | {"image": self.form.through(self.model, batch["image"])}
        return done

    def _timed(self, keys: Sequence[tuple[int, int]]) -> Batch | None:
        began = time.perf_counter()
        batch = self._kept(keys)
        self.reading += time.perf_counter() - began
        return batch

    def _kept(self, keys: Sequence[tuple[int, int]]) -> Batch | None:
        found = [record for key in keys if self.store and (record := self.store.read(self._name(*key)))]
        if len(found) < len(keys):  # a file has been removed or damaged
            return None
        return self.form.batch(found, self.size) | {"index": torch.tensor([index for _, index in keys])}

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
