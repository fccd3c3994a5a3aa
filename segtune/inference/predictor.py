"""A trained model as a user wants it: a picture goes in, a mask comes out."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segtune.config.command_settings import PredictSettings
from segtune.config.parse import parse
from segtune.data.transforms import build_transform
from segtune.errors import UserError
from segtune.inference.sliding_window import GRID, predict_tiled
from segtune.inference.tta import Network, with_tta
from segtune.metrics.overlap import logit_of
from segtune.models.checkpoint import Checkpoint
from segtune.runtime.device import Device, resolve_device

File = str | PathLike[str]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Prediction(NamedTuple):
    """What is object: `mask` (H, W), bool, and `probability` (H, W), float32, 0 to 1."""

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]


class Predictor:
    """Predicts pictures one by one; `segtune.load` makes it.

    Attributes:
        size: Height and width at which the network sees a whole picture.
        threshold: The probability above which a pixel is object.
        compute: Device and precision.
        tile: Side of the tiles in which a picture is predicted at its own size; None for whole pictures at `size`.
        overlap: Share of a tile that its neighbour covers too.
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
    ) -> None:
        self.network, self.size, self.threshold, self.compute = network, size, threshold, compute
        self.tile, self.overlap = tile, overlap
        self._resized = build_transform(size, None, {})
        self._threshold_logit = logit_of(threshold)

    @torch.inference_mode()
    def predict(self, image: NDArray[np.uint8]) -> Prediction:
        """Predict a picture.

        Args:
            image: RGB, uint8, (H, W, 3) of any size from 1 pixel up. OpenCV reads BGR: turn it round before.

        Returns:
            Mask and probability at the picture's size.

        Raises:
            ValueError: The image is of another type or shape.
            UserError: The device's memory is too small.
        """
        _check(image)
        image = np.ascontiguousarray(image)
        try:
            if self.tile is None:
                return self._judged(self._logits(self._resized(image=image)["image"]), image.shape[:2])
            height, width = image.shape[:2]
            seen = _at_least(GRID, image)
            if max(height, width) <= self.tile:
                return self._judged(self._logits(seen)[..., :height, :width], (height, width))
            joined = predict_tiled(self._probability, seen, self.tile, self.overlap)[:height, :width]
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"The memory of {self.compute.device} is too small for a picture of {image.shape[0]} x "
                f"{image.shape[1]} pixels. Give a smaller tile or size."
            ) from error
        return Prediction(joined > self.threshold, joined)

    def _logits(self, image: NDArray[np.uint8]) -> Tensor:
        pictures = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        with self.compute.autocast():
            return self.network(pictures.to(self.compute.device))

    def _probability(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._logits(image)[0, 0].sigmoid().cpu().numpy()

    def _judged(self, logits: Tensor, size: tuple[int, ...]) -> Prediction:
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        mask = (logits > self._threshold_logit)[0, 0].cpu().numpy()
        return Prediction(mask, logits.sigmoid_()[0, 0].cpu().numpy())


def load(
    path: File,
    *,
    size: int | Sequence[int] | None = None,
    threshold: float | None = None,
    tile: int | None = None,
    overlap: float = 0.25,
    flips: bool = False,
    scales: Sequence[float] = (1.0,),
    device: str = "auto",
    precision: Precision = "auto",
) -> Predictor:
    """Load a model; `segtune.load` says what the arguments mean."""
    plain: dict[str, Any] = {
        "checkpoint": str(Path(path)),
        "input": "",
        "image_size": size if size is None or isinstance(size, int) else list(size),
        "tile": tile,
        "overlap": overlap,
        "tta": {"flips": flips, "scales": list(scales)},
        "train": {"threshold": threshold, "device": device, "precision": precision},
    }
    return load_as(parse(PredictSettings, plain))


def load_as(settings: PredictSettings) -> Predictor:
    """Load the model that settings name.

    Raises:
        UserError: The file cannot be used, or the settings contradict each other.
    """
    if settings.tile is not None and settings.image_size is not None:
        raise UserError(
            f"tile={settings.tile} predicts a picture at its own size, image_size={settings.image_size} at this one: "
            "give one of them."
        )
    path = Path(settings.checkpoint).expanduser()
    compute = resolve_device(settings.train)
    exported = path.suffix.lower() == ".onnx"
    network, size, threshold = _exported(path) if exported else _trained(path, compute)
    if settings.image_size is not None:
        side = settings.image_size
        size = (side, side) if isinstance(side, int) else (side[0], side[1])
    if settings.train.threshold is not None:
        threshold = settings.train.threshold
    network = with_tta(network, flips=settings.tta.flips, scales=settings.tta.scales)
    return Predictor(network, size, threshold, compute, tile=settings.tile, overlap=settings.overlap)


def _trained(path: Path, compute: Device) -> tuple[Network, tuple[int, int], float]:
    checkpoint = Checkpoint.load(path)
    model, trained = compute.place(checkpoint.rebuild().model).eval(), checkpoint.settings
    return model, trained.data.evaluation_size, trained.train.threshold


def _exported(path: Path) -> tuple[Network, tuple[int, int], float]:
    from segtune.inference.onnx_model import load_onnx  # it needs packages that are not installed with segtune itself

    network, facts = load_onnx(path)

    def logits(pictures: Tensor) -> Tensor:
        # Enlarged or averaged views are floats; the file takes bytes.
        return torch.logit(network(pictures.round().to("cpu", torch.uint8)), eps=1e-7)

    height, width = facts["size"]
    return logits, (int(height), int(width)), float(facts["threshold"])


def _check(image: Any) -> None:
    expected = "predict takes RGB as a NumPy array of uint8, 0 to 255, of shape (height, width, 3)"
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{expected}; came {type(image).__name__}. Of a Pillow image: np.array(image.convert('RGB')).")
    came = f"came {image.dtype} {image.shape}"
    if image.ndim == 2:
        raise ValueError(f"{expected}; {came}. Of grey: np.stack([image] * 3, axis=2).")
    if image.ndim == 3 and image.shape[2] == 4:
        raise ValueError(
            f"{expected}; {came}. Drop the alpha channel, image[..., :3]; of OpenCV's BGRA it is image[..., 2::-1]."
        )
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"{expected}; {came}. Give one picture at a time, with the channels last.")
    if image.dtype != np.uint8:
        raise ValueError(
            f"{expected}; {came}. Scale it: of floats from 0 to 1 (image * 255).round().astype(np.uint8), "
            "of 16 bits (image >> 8).astype(np.uint8)."
        )


def _at_least(side: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror a picture beyond its lower and right border where it is smaller than what a network can see."""
    missing = [(0, max(0, side - length)) for length in image.shape[:2]]
    return np.pad(image, [*missing, (0, 0)], mode="symmetric") if any(extra for _, extra in missing) else image
