"""The predictor: a trained model that maps an image of any size to a mask of the same size."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segtune.config.command_settings import PredictSettings
from segtune.config.data_settings import only_one
from segtune.config.output_settings import OBJECT, CleanSettings, category_of
from segtune.config.parse import parse
from segtune.data.transforms import build_transform
from segtune.errors import FailedError, UserError
from segtune.inference.cleaning import cleaned
from segtune.inference.sliding_window import with_tiles
from segtune.inference.tta import Network, with_tta
from segtune.metrics.overlap import logit_of
from segtune.models.checkpoint import Checkpoint
from segtune.runtime.device import Device, resolve_device
from segtune.runtime.paths import expanded

File = str | PathLike[str]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Prediction(NamedTuple):
    """The predicted foreground: `mask` (H, W), bool, and `probability` (H, W), float32, 0 to 1, before a clean-up."""

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]


class Predictor:
    """Predicts images one by one; created by `segtune.load`.

    Attributes:
        size: Height and width to which a whole image is resized for the network.
        threshold: The probability above which a pixel is foreground.
        compute: Device and precision.
        tile: Side of the tiles in which an image is predicted at its own size; None for whole images at `size`.
        overlap: Least fraction of a tile that its neighbour also covers.
        max_value: The value that is white in photos of 16 bits, for `read_photo`; None for 65535.
        clean: What is corrected in masks.
        category: What the object is called, as in training.
    """

    def __init__(
        self,
        network: Network,
        size: tuple[int, int],
        threshold: float,
        compute: Device,
        *,
        tile: int | None = None,
        overlap: float = 0.25,
        max_value: int | None = None,
        clean: CleanSettings | None = None,
        category: str = OBJECT,
    ) -> None:
        self.network, self.size, self.threshold, self.compute = network, size, threshold, compute
        self.tile, self.overlap, self.max_value = tile, overlap, max_value
        self.clean, self.category = clean or CleanSettings(), category
        self._resized = build_transform(size, None, {})
        self._threshold_logit = logit_of(threshold)

    @torch.inference_mode()
    def predict(self, image: NDArray[np.uint8]) -> Prediction:
        """Return the mask and the probability of an image, at its size.

        Args:
            image: RGB, uint8, (H, W, 3) of any size from 1 pixel up. OpenCV reads BGR: reverse the channels first.

        Raises:
            ValueError: The image has another type or shape.
            UserError: The device runs out of memory.
            FailedError: The model returns NaN or infinity.
        """
        _check(image, self.max_value)
        # PyTorch warns of an array that it may not write to.
        mask, probability = self._predict(np.require(image, requirements=["C", "W"]))
        return Prediction(cleaned(mask, self.clean), probability)

    def _predict(self, image: NDArray[np.uint8]) -> Prediction:
        try:
            if self.tile is None:
                logits = self._logits(_batch_of(self._resized(image=image)["image"]))
            else:
                logits = with_tiles(self._logits, self.tile, self.overlap)(_batch_of(image))
            if logits.shape[-2:] != image.shape[:2]:
                logits = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
            mask = (logits > self._threshold_logit)[0, 0].cpu().numpy()
            return Prediction(mask, logits.sigmoid_()[0, 0].cpu().numpy())
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{self.compute.device} ran out of memory on an image of {image.shape[0]} x {image.shape[1]} pixels. "
                "Set a smaller tile or size."
            ) from error

    def _logits(self, images: Tensor) -> Tensor:
        with self.compute.autocast():
            logits = self.network(images.contiguous().to(self.compute.device))
        if not torch.isfinite(logits).all():
            broken = "its weights are broken."
            if self.compute.dtype != torch.float32:
                broken = f"try train.precision=fp32; if that does not help, {broken}"
            what = "NaN" if logits.isnan().any() else "infinity"
            raise FailedError(f"The model returns {what} in {self.compute.precision}: {broken}")
        return logits


def _batch_of(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def load(
    path: File,
    *,
    size: int | Sequence[int] | None = None,
    threshold: float | None = None,
    tile: int | None = None,
    overlap: float | None = None,
    flips: bool = False,
    scales: Sequence[float] = (1.0,),
    clean: Mapping[str, Any] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Predictor:
    """Return the predictor of a model file; the arguments are documented at `segtune.load`."""
    plain: dict[str, Any] = {
        "checkpoint": str(Path(path)),
        "input": "none",
        "image_size": size if size is None or isinstance(size, int) else list(size),
        "tile": tile,
        "overlap": overlap,
        "tta": {"flips": flips, "scales": list(scales)},
        "clean": dict(clean or {}),
        "train": {"threshold": threshold, "device": device, "precision": precision},
    }
    return load_as(parse(PredictSettings, plain))


def load_as(settings: PredictSettings) -> Predictor:
    """Return the predictor of the model file that settings name.

    Raises:
        UserError: The file cannot be used, or the settings contradict each other.
    """
    if settings.tile is not None and settings.image_size is not None:
        raise UserError(f"{only_one(f'tile={settings.tile}', f'image_size={settings.image_size}')}.")
    path = expanded(settings.checkpoint, "checkpoint")
    compute = resolve_device(settings.train)
    exported = path.suffix.lower() == ".onnx"
    network, size, threshold, data = _exported(path) if exported else _trained(path, compute)
    tile = data.get("eval_tile") if settings.tile is None else settings.tile
    if settings.image_size is not None:
        side = settings.image_size
        size, tile = (side, side) if isinstance(side, int) else (side[0], side[1]), None
    if settings.train.threshold is not None:
        threshold = settings.train.threshold
    network = with_tta(network, flips=settings.tta.flips, scales=settings.tta.scales)
    return Predictor(
        network,
        size,
        threshold,
        compute,
        tile=tile,
        overlap=data.get("eval_overlap", 0.25) if settings.overlap is None else settings.overlap,
        max_value=data.get("max_value") if settings.max_value is None else settings.max_value,
        clean=settings.clean,
        category=settings.category or category_of(data),
    )


# A network, its input size and threshold, and the settings of data that it was trained on.
_Loaded = tuple[Network, tuple[int, int], float, Mapping[str, Any]]


def _trained(path: Path, compute: Device) -> _Loaded:
    checkpoint = Checkpoint.load(path)
    model, trained = compute.place(checkpoint.rebuild().model).eval(), checkpoint.settings
    return model, trained.data.evaluation_size, trained.train.threshold, asdict(trained.data)


def _exported(path: Path) -> _Loaded:
    from segtune.inference.onnx_model import load_onnx  # needs the optional packages of segtune[export]

    network, facts = load_onnx(path)

    def logits(images: Tensor) -> Tensor:
        # Rescaled views of test-time augmentation are floats; the exported model takes uint8.
        probability = network(images.round().to("cpu", torch.uint8))
        return torch.logit(probability.where(probability.isfinite(), torch.nan), eps=1e-7)  # eps would hide infinity

    height, width = facts["size"]
    data = facts["settings"].get("data", {})  # files of earlier versions have none, or not all
    return logits, (int(height), int(width)), float(facts["threshold"]), data


def _check(image: Any, max_value: int | None) -> None:
    expected = "predict takes RGB as a NumPy array of uint8, 0 to 255, of shape (height, width, 3)"
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{expected}; got {type(image).__name__}. For Pillow: np.array(image.convert('RGB')).")
    got = f"got {image.dtype} {image.shape}"
    if image.ndim == 2:
        raise ValueError(f"{expected}; {got}. For greyscale: np.stack([image] * 3, axis=2).")
    if image.ndim == 3 and image.shape[2] == 4:
        raise ValueError(f"{expected}; {got}. Drop the alpha channel: image[..., :3], for BGRA image[..., 2::-1].")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"{expected}; {got}. Pass one image at a time, channels last.")
    if image.dtype != np.uint8:
        convert = "(image >> 8).astype(np.uint8)"
        if max_value is not None:  # as `read_photo`
            convert = f"(np.minimum(image, {max_value}).astype(int) * 256 // {max_value + 1}).astype(np.uint8)"
        raise ValueError(
            f"{expected}; {got}. Convert it: (image * 255).round().astype(np.uint8) for floats from 0 to 1, "
            f"{convert} for 16 bits."
        )
