"""Settings of the feature cache."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segtune.config.types import STRICT, Count, Positive


@dataclass(frozen=True, config=STRICT)
class CacheSettings:
    """What the frozen part of the network computes, kept.

    In a phase in which the first layers are frozen, epoch e sees view e mod `views` of each image, an augmentation
    drawn from `seed` and the image alone, so other runs see the same ones. `mode` says where features are kept, `auto`
    decides whether they are, and `off` draws new views in every epoch. `dtype` is their type, `limit_gb` the most that
    the cache's folder or memory may take, and `folder` None the user's cache folder.
    """

    mode: Literal["auto", "off", "memory", "disk"] = "off"
    views: Count = 8
    seed: Annotated[int, Field(ge=0)] = 0
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    limit_gb: Positive = 8.0
    folder: str | None = None
