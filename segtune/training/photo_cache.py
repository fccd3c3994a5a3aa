"""Whether reduced photos are kept, and where: beside the features, in a folder for all runs."""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from segtune.config.schema import Settings
from segtune.data.decoding import stored_size
from segtune.data.reduced import ReducedPhotos
from segtune.data.sources.base import Pair
from segtune.runtime.versions import installed
from segtune.training.feature_cache import folder_store
from segtune.version import __version__

#: To be raised when photos are reduced in another way.
_FORMAT = 1
_LIBRARIES = ("albumentations", "opencv-python-headless", "pillow", "numpy")
_GB = 10**9


def reduced_photos(settings: Settings, pairs: Sequence[Pair]) -> tuple[ReducedPhotos | None, str]:
    """Return what reads the training photos, None if none of them is large enough to be reduced, and a line on it.

    Args:
        settings: The run's settings.
        pairs: The training images, checked.
    """
    cache = settings.cache
    if cache.photos == "off":
        return None, ""
    photos = ReducedPhotos(settings.data.size, settings.augment.crop)
    sizes = [size for pair in pairs if (size := stored_size(pair.photo))]
    # A photo may be stored turned, which matters little for its size.
    targets = [target for size in sizes if (target := photos.target(*size) or photos.target(*size[::-1]))]
    if not targets:
        return None, ""
    needed = sum(4 * math.prod(target) for target in targets)
    what = f"{len(targets)} of {len(pairs)} training photos are four times as large as needed, or larger; they are"
    if needed > cache.limit_gb * _GB:
        why = f"they would take {needed / _GB:.1f} GB, more than cache.limit_gb={cache.limit_gb:g}"
    else:
        facts: dict[str, Any] = {"segtune": __version__, "backbone": "photos", "frozen_to": "input", "of": "training"}
        facts |= {"size": list(settings.data.size), "dtype": "uint8"}
        photos.store, why = folder_store(cache, needed, lambda: folder_name(settings), facts)
    if photos.store is None:
        return photos, f"{what} reduced anew each time, for {why}"
    return photos, f"{what} reduced once and kept {why}: {needed / 1e6:,.0f} MB"


def folder_name(settings: Settings) -> str:
    """Return a name for all that decides a reduced photo and its mask beside their contents."""
    data = settings.data
    facts = {
        "format": _FORMAT,
        "kind": "photos",
        "size": data.size,
        "crop": settings.augment.crop,
        "foreground": [repr(data.foreground), data.invert],
        "max_value": data.max_value,
        "libraries": installed(*_LIBRARIES),
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
