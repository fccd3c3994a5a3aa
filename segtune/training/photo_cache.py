"""Whether reduced photos are kept, and where: beside the features, in a folder for all runs."""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from segtune.config.schema import Settings
from segtune.data.decoding import stored_size
from segtune.data.reduced import FORMAT, ReducedPhotos
from segtune.data.sources.base import Pair
from segtune.runtime.versions import installed
from segtune.training.feature_cache import folder_store
from segtune.version import __version__

_LIBRARIES = ("albumentations", "opencv-python-headless", "pillow", "numpy")
_GB = 10**9


def reduced_photos(
    settings: Settings, pairs: Sequence[Pair], *, validation: bool = False
) -> tuple[ReducedPhotos | None, str]:
    """Return what reads the photos of a split, None if none of them is to be reduced, and a line on it.

    They are not where the network sees them at their own scale: in crops of fixed size, in tiles.

    Args:
        settings: The run's settings.
        pairs: The images, checked.
        validation: They are for validation, which needs no crop, but masks at their original size too.
    """
    cache, split = settings.cache, "validation" if validation else "training"
    at_own_scale = settings.data.eval_tile is not None if validation else settings.augment.at_own_scale
    if cache.photos == "off" or at_own_scale:
        return None, ""
    given = _form(settings, validation=validation)
    photos = ReducedPhotos(given["size"], given["crop"], truth=validation)
    needed, count = 0, 0
    for size in filter(None, (stored_size(pair.photo) for pair in pairs)):
        # A photo may be stored turned, which matters little for its size.
        if target := photos.target(*size) or photos.target(*size[::-1]):
            needed += 4 * math.prod(target) + validation * math.prod(size) * (2 if settings.data.ignore else 1) // 8
            count += 1
    if not count:
        return None, ""
    what = f"{count} of {len(pairs)} {split} photos are four times as large as needed, or larger; they are"
    if needed > cache.limit_gb * _GB:
        why = f"they would take {needed / _GB:.1f} GB, more than cache.limit_gb={cache.limit_gb:g}"
    else:
        facts: dict[str, Any] = {"segtune": __version__, "backbone": "photos", "frozen_to": "input", "of": split}
        facts |= {"size": list(photos.size), "dtype": "uint8"}
        photos.store, why = folder_store(cache, needed, lambda: folder_name(settings, validation=validation), facts)
    if photos.store is None:
        return photos, f"{what} reduced anew each time, for {why}"
    return photos, f"{what} reduced once and kept {why}: {needed / 1e6:,.0f} MB"


def _form(settings: Settings, *, validation: bool) -> dict[str, Any]:
    """Return the network's input size, the crop, and for validation that there are masks at their original size."""
    if validation:
        return {"size": settings.data.evaluation_size, "crop": None, "truth": True}
    return {"size": settings.data.size, "crop": settings.augment.crop}


def folder_name(settings: Settings, *, validation: bool = False) -> str:
    """Return a name for all that decides a reduced photo and its mask beside their contents."""
    data = settings.data
    facts = {
        "format": FORMAT,
        "kind": "photos",
        **_form(settings, validation=validation),
        "foreground": [repr(data.foreground), data.invert],
        "max_value": data.max_value,
        "libraries": installed(*_LIBRARIES),
        **({} if data.mask_channel == "all" else {"mask_channel": data.mask_channel}),  # as in earlier versions
        **({"ignore": data.ignore} if data.ignore else {}),
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
