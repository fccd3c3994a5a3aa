"""The network as it predicts, and predictions of single images for display."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segtune.config.command_settings import TTASettings
from segtune.config.data_settings import DataSettings
from segtune.config.output_settings import CleanSettings
from segtune.config.training_settings import TrainSettings
from segtune.data.dataset import build_dataset
from segtune.data.overlays import Mask, RGBImage
from segtune.data.sources.base import Pair
from segtune.inference.cleaning import cleaned
from segtune.inference.sliding_window import with_tiles
from segtune.inference.tta import Network, with_tta
from segtune.metrics import VOID
from segtune.metrics.overlap import logit_of
from segtune.runtime.device import Device


@dataclass(frozen=True)
class SamplePrediction:
    """An image (h, w, 3), its true and predicted masks and the probability (h, w), as the network gets it.

    That is the network's input size; with tiles the original size, which `size` is in any case. `original` is the true
    mask there, (H, W), where 1 is foreground; `void` is where there is no truth, None for nowhere.
    """

    size: tuple[int, int]
    photo: RGBImage
    truth: Mask
    predicted: Mask
    probability: NDArray[np.float32]
    original: NDArray[np.uint8] | None = None
    void: Mask | None = None


SamplePredictions = Iterable[tuple[Pair, SamplePrediction]]


class GivenUpError(Exception):
    """A prediction was given up, as asked."""


def predicting(
    model: nn.Module,
    data: DataSettings,
    compute: Device,
    tta: TTASettings,
    stop: Callable[[], bool] = lambda: False,
) -> Network:
    """Return a model as it predicts, with test-time augmentation and in tiles, as `predict` does.

    Args:
        model: The model, on its device.
        data: Says whether images are predicted in tiles.
        compute: The device.
        tta: The test-time augmentation.
        stop: Asked before each batch or tile, it says whether to give up.

    Returns:
        A function from images (N, 3, H, W) on any device to logits (N, 1, H, W): with tiles on the images' device, else
        on that of the model. It raises `GivenUpError` if it was asked to stop.
    """
    network = with_tta(model.eval(), flips=tta.flips, scales=tta.scales)

    def on_device(images: Tensor) -> Tensor:
        if stop():
            raise GivenUpError
        return network(images.to(compute.device, non_blocking=True))

    return on_device if data.eval_tile is None else with_tiles(on_device, data.eval_tile, data.eval_overlap)


def predict_samples(
    model: nn.Module,
    pairs: Sequence[Pair],
    data: DataSettings,
    train: TrainSettings,
    compute: Device,
    tta: TTASettings,
    clean: CleanSettings | None = None,
) -> Iterator[SamplePrediction]:
    """Yield predictions of some images, computed as by the evaluator."""
    dataset = build_dataset(pairs, data, None)
    network = predicting(model, data, compute, tta)
    threshold_logit = logit_of(train.threshold)
    for index in range(len(pairs)):
        sample: dict[str, Any] = dataset[0, index]
        with torch.inference_mode(), compute.autocast():
            logits = network(sample["image"][None])
        yield as_seen(sample["image"], sample["mask"], sample["truth"], logits[0], threshold_logit, clean)


def as_seen(
    image: Tensor,
    mask: Tensor,
    truth: Tensor,
    logits: Tensor,
    threshold_logit: float,
    clean: CleanSettings | None = None,
) -> SamplePrediction:
    """Return the prediction of an image as the network gets it.

    `threshold_logit` is the threshold as a logit; `clean` says what is corrected in the predicted mask.
    """
    void = mask[0].numpy() == VOID
    predicted = (logits[0] > threshold_logit).cpu().numpy()
    return SamplePrediction(
        (truth.shape[0], truth.shape[1]),
        image.permute(1, 2, 0).numpy(),
        mask[0].numpy() == 1,
        cleaned(predicted, clean or CleanSettings(), predicted.size / truth.numel()),
        logits[0].float().sigmoid().cpu().numpy(),
        original=truth.numpy(),
        void=void if void.any() else None,
    )
