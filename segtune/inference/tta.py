"""Test-time augmentation: the mean prediction over several views of an image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segtune.models.decoders.layers import resize

Network = Callable[[Tensor], Tensor]


def with_tta(network: Network, *, flips: bool = False, scales: Sequence[float] = (1.0,)) -> Network:
    """Return a network that averages the probabilities over flips and scales of its input.

    Args:
        network: Maps images (N, 3, H, W), 0 to 255, to logits (N, 1, H, W).
        flips: Add the horizontally flipped image at every scale.
        scales: Multiples of the image size; sides below 32 pixels become 32.

    Returns:
        A function from images to logits (N, 1, H, W) of the mean probability, within ±16.
    """
    if not flips and list(scales) == [1.0]:
        return network

    def predict(images: Tensor) -> Tensor:
        size = images.shape[-2:]
        total = torch.zeros(len(images), 1, *size, device=images.device)
        for scale in scales:
            height, width = (max(32, round(side * scale)) for side in size)
            view = images if scale == 1 else _resized(images, (height, width))
            for flipped in (False, True)[: 1 + flips]:
                logits = network(view.flip(-1) if flipped else view)
                total += resize(logits.flip(-1) if flipped else logits, size).sigmoid()
        return torch.logit(total / (len(scales) * (1 + flips)), eps=1e-7)

    return predict


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
