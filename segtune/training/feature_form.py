"""What is kept of an image, in which form, and under which name.

A name covers everything that decides a value: the frozen layers, their weights and their order, the image's and the
mask's content, their size, the augmentation and its seed, the view, precision and batch size, and the libraries.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segtune.data.record import content_name
from segtune.data.sources.base import Pair
from segtune.models.model import SegmentationModel
from segtune.models.split import Crossing
from segtune.models.state_dicts import BATCH_COUNTER
from segtune.runtime.device import Device
from segtune.runtime.versions import installed
from segtune.training.feature_store import Record

#: To be raised when what earlier versions of segtune kept no longer holds.
_FORMAT = 1
_LIBRARIES = ("torch", "timm", "albumentations", "opencv-python-headless", "pillow", "numpy")
_MASK = "mask"
DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class FeatureForm:
    """How features are kept: in `dtype`, computed on `compute` in batches of `batch_size`, channels last."""

    compute: Device
    dtype: torch.dtype
    batch_size: int

    def through(self, model: SegmentationModel, images: Tensor) -> Crossing:
        """Return the crossing values of images (N, 3, H, W), rounded as if they had been kept.

        They are computed in whole batches, the last one filled up: for another number of images a library may take
        another algorithm, and an image's values would depend on the batch that it was in.
        """
        parts = [self._whole(model, part) for part in torch.split(images, self.batch_size)]
        values = {name: torch.cat([part[name] for part in parts]) if parts[1:] else parts[0][name] for name in parts[0]}
        height, width = images.shape[-2:]
        return Crossing(values, (height, width))

    def _whole(self, model: SegmentationModel, images: Tensor) -> dict[str, Tensor]:
        count, lacking = len(images), self.batch_size - len(images)
        if lacking > 0:
            images = torch.cat([images, images[-1:].expand(lacking, *images.shape[1:])])
        with self.compute.autocast():
            crossing = model.crossing(images.to(self.compute.device, non_blocking=True))
        return {name: self._rounded(value[:count]) for name, value in crossing.values.items()}

    def records(self, crossing: Crossing, masks: Tensor | None = None) -> Iterator[Record]:
        """Yield what is kept of each image of a batch; `masks` is (N, 1, H, W)."""
        values = {f"{name} {value.dtype}": self._last(value) for name, value in crossing.values.items()}
        if masks is not None:
            values[_MASK] = masks
        for record in zip(*(value.cpu() for value in values.values()), strict=True):
            yield {name: value.contiguous() for name, value in zip(values, record, strict=True)}

    def batch(self, records: Sequence[Record], size: tuple[int, int]) -> dict[str, Any]:
        """Return the `image`, a `Crossing`, and if they were kept the `mask`s (N, 1, H, W) of records."""
        stacked = {name: torch.stack([record[name] for record in records]) for name in records[0]}
        masks = {_MASK: stacked.pop(_MASK)} if _MASK in stacked else {}
        values = {}
        for name, value in stacked.items():
            name, _, kind = name.partition(" ")
            values[name] = _first(value).to(getattr(torch, kind.removeprefix("torch.")))
        return {"image": Crossing(values, size), **masks}

    def _rounded(self, value: Tensor) -> Tensor:
        return value.to(self.dtype).to(value.dtype) if value.is_floating_point() else value

    def _last(self, value: Tensor) -> Tensor:
        value = value.to(self.dtype) if value.is_floating_point() else value
        return value.permute(0, 2, 3, 1) if value.ndim == 4 else value


def _first(value: Tensor) -> Tensor:
    return value.permute(0, 3, 1, 2) if value.ndim == 4 else value


def record_name(pair: Pair, view: int) -> str:
    """Return the name of what is kept of an image and its mask in a view, by their content."""
    return f"{content_name(pair)}-{view}"


def folder_name(model: SegmentationModel, form: FeatureForm, views: Mapping[str, Any]) -> str:
    """Return a name for all records that a split model's frozen part makes.

    Args:
        model: The split model.
        form: How its values are kept.
        views: Plain values of all that decides an image's view, but for the image: size, augmentation, seed, …
    """
    if model.split is None:
        raise ValueError("the model is not split")
    frozen = model.split.frozen
    found = hashlib.blake2b(digest_size=16)
    facts = {
        "format": _FORMAT,
        "code": frozen.code,
        "layers": {name: repr(module) for name, module in frozen.named_modules() if name},
        "precision": [form.compute.device.type, form.compute.precision, str(form.dtype), form.batch_size],
        "views": views,
        "libraries": installed(*_LIBRARIES),
    }
    found.update(json.dumps(facts, sort_keys=True).encode())
    tensors = {**frozen.state_dict(), "mean": model.mean, "std": model.std}
    for name, tensor in sorted(tensors.items()):
        if not name.endswith(BATCH_COUNTER):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
