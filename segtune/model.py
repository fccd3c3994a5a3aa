"""The model: a cut backbone and a decoder."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segtune.decoders.layers import resize, tolerate_single_values
from segtune.taps import Feature


class SegmentationModel(nn.Module):
    """From pictures to logits of the same size.

    Contract: RGB in 0..255, uint8 or float, (N, 3, H, W) of any H and W from 32 up, to logits (N, outputs, H, W) in
    float32. The normalisation the backbone was trained with is part of the model.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        features: Mapping[str, Feature],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.backbone = tolerate_single_values(backbone)  # at 32 px the deepest map may be a single pixel
        self.decoder = decoder
        self.features = dict(features)
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Segment pictures; see the class."""
        x = (images.float() - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        logits = self.decoder(self.backbone(x))
        return resize(logits.float(), images.shape[-2:])
