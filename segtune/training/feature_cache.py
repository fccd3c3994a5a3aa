"""Whether the features of a phase are kept, and where."""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from segtune.config.cache_settings import CacheSettings
from segtune.config.schema import Settings
from segtune.data.dataset import build_dataset
from segtune.data.reduced import FORMAT
from segtune.errors import UserError
from segtune.models.split import Split, split_backbone
from segtune.runtime import distributed
from segtune.runtime.console import shown
from segtune.runtime.cores import worker_count
from segtune.runtime.memory import free_memory
from segtune.training.feature_folders import cache_root, make_room
from segtune.training.feature_form import DTYPES, FeatureForm, folder_name
from segtune.training.feature_store import FolderStore, MemoryStore, Record, Store
from segtune.training.features import FeatureLoader, FeatureSource, KeptValidation
from segtune.training.phases import Phase
from segtune.training.state import Run
from segtune.version import __version__

_GB = 10**9


def feature_source(run: Run, phase: Phase) -> FeatureSource | None:
    """Return what takes the place of the images in a phase that has been entered; None if nothing can be kept.

    Splits the model.
    """
    settings, model = run.settings, run.built.model
    cache, data, compute = settings.cache, settings.data, run.compute
    model.split = split_backbone(model.backbone) if cache.mode != "off" else None
    if model.split is None:
        return None
    share = -(-settings.train.images_per_batch // distributed.world())
    form = FeatureForm(compute, DTYPES.get(cache.dtype, compute.dtype), share)
    pairs, val_pairs = run.loader.dataset.pairs, run.evaluator.pairs
    views = cache.views if settings.augment.random else 1
    epochs = run.span(phase).epochs
    record, seconds = _measure(run, form)
    bytes_each = sum(value.nbytes for value in record.values())
    photos = run.loader.dataset.photos
    reduced = {"photos": f"reduced {FORMAT}"} if photos else {}
    stores, texts = list[Store | None](), list[str]()
    splits = [("training", len(pairs), min(views, epochs), data.size, views_of(settings) | reduced)]
    if data.eval_tile is None:  # the features of tiles are not kept
        of_images = views_of(settings, validation=True)
        splits.append(("validation", len(val_pairs), 1, data.evaluation_size, of_images))
    for of, count, uses, size, given in splits:
        scale = math.prod(size) / math.prod(data.size)
        needed = round(count * uses * bytes_each * scale)
        facts = describe(settings, model.split, form, of, size)
        store, why = choose_store(cache, needed, epochs / uses, partial(folder_name, model, form, given), facts)
        write, read = transfer(store, record) if store else (0.0, 0.0)
        anew = count * (epochs - uses) * seconds * scale
        taken = count * (uses * write + epochs * read) * scale
        if store and cache.mode == "auto" and taken >= anew:
            store, why = None, f"to write and read them takes about {taken:,.1f} s, to compute them {anew:,.1f} s"
        stores.append(store)
        texts.append(_line(phase.name, count, uses, needed, anew - taken, store, why))
    dataset = build_dataset(pairs, data, settings.augment, cache.seed, by_content=True, photos=photos)
    workers = worker_count(settings.train.workers, compute.device)
    times = settings.augment.crops_per_image
    loader = FeatureLoader(model, dataset, run.batches, views, stores[0], form, data.size, workers, times)
    trunk: Any = model.backbone
    same = not trunk.training or str(trunk.train_graph) == str(trunk.eval_graph)
    mine = [val_pairs[index] for index in run.evaluator.mine]
    validation = KeptValidation(model, mine, stores[1], form) if same and stores[1:] else None
    return FeatureSource(loader, validation, texts[0])


def views_of(settings: Settings, *, validation: bool = False) -> dict[str, Any]:
    """Return as plain values what decides the view of an image beside the image itself and the number of the view."""
    data, augment = settings.data, asdict(settings.augment)
    common: dict[str, Any] = {"foreground": data.foreground, "invert": data.invert, "max_value": data.max_value}
    common |= {} if data.mask_channel == "all" else {"mask_channel": data.mask_channel}  # as in earlier versions
    common |= {"ignore": data.ignore} if data.ignore else {}
    augment |= {} if augment.pop("border") is None else {"border": settings.augment.border}
    if validation:
        return common | {"size": data.evaluation_size}
    return common | {"size": data.size, "augment": augment, "seed": settings.cache.seed}


def describe(settings: Settings, split: Split, form: FeatureForm, of: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return what a folder's description says: what its records are of, for people."""
    return {
        "segtune": __version__,
        "backbone": settings.backbone.name,
        "frozen_to": split.end,
        "of": of,
        "size": list(size),
        "dtype": str(form.dtype).removeprefix("torch."),
    }


def choose_store(
    cache: CacheSettings, needed: int, uses: float, name: Callable[[], str], facts: Mapping[str, Any]
) -> tuple[Store | None, str]:
    """Return where features are kept, None for nowhere, and where that is or why, as text.

    Args:
        cache: The settings.
        needed: Bytes that they will take.
        uses: How often each is used, on average.
        name: Returns the name of their folder.
        facts: What they are of, for its description.
    """
    if cache.mode == "auto" and uses <= 1:
        return None, "no view of an image comes twice"
    if needed > cache.limit_gb * _GB:
        return None, f"they would take {needed / _GB:.1f} GB, more than cache.limit_gb={cache.limit_gb:g}"
    if cache.mode != "memory":
        store, why = folder_store(cache, needed, name, facts)
        if store or cache.mode == "disk":
            return store, why
    if needed * int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world())) > free_memory() / 2:
        return None, f"they would take {needed / _GB:.1f} GB, more than half of the free memory"
    return MemoryStore(), "in memory"


def folder_store(
    cache: CacheSettings, needed: int, name: Callable[[], str], facts: Mapping[str, Any]
) -> tuple[Store | None, str]:
    """Return a store in a folder of the cache, None if there is no room, and where that is or why, as text."""
    try:
        root = cache_root(cache.folder)
    except UserError as error:
        return None, f"{error} Set cache.folder or HOME"
    try:
        store = FolderStore(root / name(), facts)
        if not make_room(root, store.folder, needed, round(cache.limit_gb * _GB)):
            return None, f"there is no room for {needed / _GB:.1f} GB in {shown(root)}"
        store.describe()
    except OSError as error:
        return None, f"{shown(root)} cannot be written: {error.strerror or error}"
    return store, f"in {shown(root)}"


def _measure(run: Run, form: FeatureForm) -> tuple[Record, float]:
    """Return what is kept of an image and mask, and the seconds that the frozen part takes for an image."""
    size, batch = run.settings.data.size, form.batch_size
    if form.compute.device.type == "cpu":  # there an image takes about the same time in a batch of any size
        batch = min(batch, 2)
        form = replace(form, batch_size=batch)
    images = torch.zeros(batch, 3, *size, dtype=torch.uint8)
    masks = torch.zeros(batch, 1, *size, dtype=torch.uint8)
    for _ in range(2):  # the first pass warms up
        began = time.perf_counter()
        crossing = form.through(run.built.model, images)
        record = next(form.records(crossing, masks))
        seconds = time.perf_counter() - began
    return record, seconds / batch


def transfer(store: Store, record: Record) -> tuple[float, float]:
    """Return the seconds that it takes to write a record to a folder, and to read it; zeros for other stores."""
    if not isinstance(store, FolderStore):
        return 0.0, 0.0
    name = f"speed-{os.getpid()}"
    with suppress(OSError):  # where nothing can be written, all may lie there
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            store.write(name, record)
            written = time.perf_counter()
            store.read(name)
            done = time.perf_counter()
        store.discard(name)
        return written - began, done - written
    return 0.0, 0.0


def _line(phase: str, count: int, views: int, needed: int, saved: float, store: Store | None, why: str) -> str:
    """Return a line on where the features of a phase are kept, or why not."""
    of = f"{count} images" if views == 1 else f"{count} images x {views} views"
    if store is None:
        return f"{phase:>10}  features of the frozen part are not kept: {why}"
    size = f"{needed / 1e6:,.0f} MB"
    return f"{phase:>10}  features of the frozen part are kept {why}: {of}, {size}; saves about {max(saved, 0):,.0f} s"
