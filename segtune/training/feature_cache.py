"""Whether the features of a phase are kept, and where."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from segtune.config.cache_settings import CacheSettings
from segtune.config.schema import Settings
from segtune.data.dataset import build_dataset
from segtune.models.split import split_backbone
from segtune.runtime.console import shown
from segtune.runtime.paths import expanded
from segtune.training.feature_form import DTYPES, FeatureForm, folder_name
from segtune.training.feature_store import FolderStore, MemoryStore, Store, make_room
from segtune.training.features import FeatureLoader, FeatureSource, KeptValidation
from segtune.training.phases import Phase
from segtune.training.state import Run

_GB = 10**9


def cache_root(cache: CacheSettings) -> Path:
    """Return the cache's folder: `cache.folder`, or `segtune/features` in the user's cache folder."""
    if cache.folder:
        return expanded(cache.folder, "cache.folder")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(f"{home}/segtune/features", "cache.folder")


def feature_source(run: Run, phase: Phase) -> FeatureSource | None:
    """Return what takes the place of the images in a phase that has been entered; None if nothing can be kept.

    Splits the model.
    """
    settings, model = run.settings, run.built.model
    cache, data, compute = settings.cache, settings.data, run.compute
    model.split = split_backbone(model.backbone) if cache.mode != "off" else None
    if model.split is None:
        return None
    form = FeatureForm(compute, DTYPES.get(cache.dtype, compute.dtype), settings.train.batch_size)
    pairs, val_pairs = run.loader.dataset.pairs, run.evaluator.pairs
    random = settings.augment.crop is not None or bool(settings.augment.transforms)
    views = cache.views if random else 1
    epochs = run.span(phase).epochs
    bytes_each, seconds_each = _measure(run, form)
    stores, texts = list[Store | None](), list[str]()
    for count, uses, size, given in (
        (len(pairs), min(views, epochs), data.size, views_of(settings)),
        (len(val_pairs), 1, data.evaluation_size, views_of(settings, validation=True)),
    ):
        per_image = bytes_each * math.prod(size) / math.prod(data.size)
        needed = round(count * uses * per_image)
        store, why = choose_store(cache, needed, epochs / uses, partial(folder_name, model, form, given))
        saved = count * (epochs - uses) * seconds_each
        stores.append(store)
        texts.append(_line(phase.name, count, uses, needed, saved, store, why))
    dataset = build_dataset(pairs, data, settings.augment, cache.seed, by_content=True)
    workers = settings.train.workers
    loader = FeatureLoader(model, dataset, run.batches, views, stores[0], form, data.size, workers)
    trunk: Any = model.backbone
    same = not trunk.training or str(trunk.train_graph) == str(trunk.eval_graph)
    mine = [val_pairs[index] for index in run.evaluator.mine]
    return FeatureSource(loader, KeptValidation(model, mine, stores[1], form) if same else None, texts[0])


def views_of(settings: Settings, *, validation: bool = False) -> dict[str, Any]:
    """Return as plain values what decides the view of an image beside the image itself and the number of the view."""
    data = settings.data
    common = {"foreground": data.foreground, "invert": data.invert, "max_value": data.max_value}
    if validation:
        return common | {"size": data.evaluation_size}
    return common | {"size": data.size, "augment": asdict(settings.augment), "seed": settings.cache.seed}


def choose_store(cache: CacheSettings, needed: int, uses: float, name: Callable[[], str]) -> tuple[Store | None, str]:
    """Return where features are kept, None for nowhere, and where that is or why, as text.

    Args:
        cache: The settings.
        needed: Bytes that they will take.
        uses: How often each is used, on average.
        name: Returns the name of their folder.
    """
    if cache.mode == "auto" and uses <= 1:
        return None, "no view of an image comes twice"
    if needed > cache.limit_gb * _GB:
        return None, f"they would take {needed / _GB:.1f} GB, more than cache.limit_gb={cache.limit_gb:g}"
    if cache.mode != "memory":
        root = cache_root(cache)
        folder = root / name()
        try:
            if make_room(root, folder, needed, round(cache.limit_gb * _GB)):
                return FolderStore(folder), f"in {shown(root)}"
            why = f"there is no room for {needed / _GB:.1f} GB in {shown(root)}"
        except OSError as error:
            why = f"{shown(root)} cannot be written: {error.strerror or error}"
        if cache.mode == "disk":
            return None, why
    if needed > _free_memory() / 2:
        return None, f"they would take {needed / _GB:.1f} GB, more than half of the free memory"
    return MemoryStore(), "in memory"


def _free_memory() -> int:
    """Return the bytes of free memory, 0 where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def _measure(run: Run, form: FeatureForm) -> tuple[int, float]:
    """Return the bytes that are kept of an image and mask, and the seconds that the frozen part takes for it."""
    size, batch = run.settings.data.size, run.settings.train.batch_size
    images = torch.zeros(batch, 3, *size, dtype=torch.uint8)
    masks = torch.zeros(batch, 1, *size, dtype=torch.uint8)
    for _ in range(2):  # the first pass warms up
        began = time.perf_counter()
        crossing = form.through(run.built.model, images)
        record = next(form.records(crossing, masks))
        seconds = time.perf_counter() - began
    return sum(value.nbytes for value in record.values()), seconds / batch


def _line(phase: str, count: int, views: int, needed: int, saved: float, store: Store | None, why: str) -> str:
    """Return a line on where the features of a phase are kept, or why not."""
    of = f"{count} images" if views == 1 else f"{count} images x {views} views"
    if store is None:
        return f"{phase:>10}  features of the frozen part are not kept: {why}"
    size = f"{needed / 1e6:,.0f} MB"
    return f"{phase:>10}  features of the frozen part are kept {why}: {of}, {size}; saves about {saved:,.0f} s"
