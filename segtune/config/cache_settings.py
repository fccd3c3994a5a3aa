"""Settings of the feature cache."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from segtune.config.types import STRICT, Count, Positive


def _off(value: Any) -> Any:
    """Return what is meant by a bare `off` in a YAML file, which YAML reads as false."""
    return "off" if value is False else value


@dataclass(frozen=True, config=STRICT)
class CacheSettings:
    """What the frozen part of the network computes, kept.

    In a phase in which the first layers are frozen, epoch e sees view e mod `views` of each image, an augmentation
    drawn from `seed` and the image alone, so other runs see the same ones. `mode` says where features are kept, `auto`
    decides whether they are, and `off` draws new views in every epoch. `dtype` is their type, `limit_gb` the most that
    the cache's folder or memory may take, and `folder` None the user's cache folder. With `photos`, photos that are
    much larger than needed are shrunk once and kept too.
    """

    mode: Annotated[Literal["auto", "off", "memory", "disk"], BeforeValidator(_off)] = "off"
    views: Count = 4
    seed: Annotated[int, Field(ge=0)] = 0
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    limit_gb: Positive = 8.0
    folder: str | None = None
    photos: Annotated[Literal["auto", "off"], BeforeValidator(_off)] = "off"
