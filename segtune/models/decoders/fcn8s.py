"""FCN-8s (Long, Shelhamer, Darrell 2015, "Fully Convolutional Networks", arXiv:1411.4038)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from segtune.config.model_settings import FCN8sSettings
from segtune.errors import UserError
from segtune.models.decoders.layers import resize


class FCN8s(nn.Module):
    """Scores at three depths, fused from the coarsest to the finest by learnable 2 x upsampling.

    As published, the upsampling starts as bilinear and the skip scores start at zero, so training starts from the
    plain coarse network; the last upsampling, to the input's size, is fixed bilinear (the model does it).
    The published code also multiplies pool4 by 0.01 and pool3 by 0.0001; here the model scales all features.
    """

    roles: ClassVar[tuple[str, ...]] = ("pool3", "pool4", "high")
    #: The strides at which `taps=auto` chooses layers.
    strides: ClassVar[Mapping[str, int]] = {"pool3": 8, "pool4": 16, "high": 32}
    #: Modules that do not start at random: while they are frozen, this is an FCN-32s, or an FCN-16s.
    fixed_start: ClassVar[tuple[str, ...]] = ("score_pool4", "score_pool3", "upsample_high", "upsample_pool4")

    def __init__(self, channels: Mapping[str, int], strides: Mapping[str, int], settings: FCN8sSettings) -> None:
        """Build the decoder from the channels and strides (input pixels) of `pool3`, `pool4` and `high`.

        Raises:
            UserError: A deeper tap is finer than a shallower one.
        """
        super().__init__()
        ordered = [strides[role] for role in self.roles]
        if ordered != sorted(ordered):
            named = ", ".join(f"taps.{role} has stride {strides[role]}" for role in self.roles)
            raise UserError(
                f"fcn8s fuses features from coarse to fine, but {named}. Choose taps whose strides rise with depth."
            )
        outputs = settings.outputs
        self.score_high = nn.Conv2d(channels["high"], outputs, 1)
        self.score_pool4 = nn.Conv2d(channels["pool4"], outputs, 1)
        self.score_pool3 = nn.Conv2d(channels["pool3"], outputs, 1)
        self.upsample_high = _upsampling(outputs, strides["high"] // strides["pool4"])
        self.upsample_pool4 = _upsampling(outputs, strides["pool4"] // strides["pool3"])
        for skip in (self.score_pool4, self.score_pool3):
            nn.init.zeros_(skip.weight)
        for score in (self.score_high, self.score_pool4, self.score_pool3):
            if score.bias is not None:
                nn.init.zeros_(score.bias)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Map features by role, each (N, C, h, w), to logits (N, outputs, h, w) of `pool3`'s size."""
        pool4, pool3 = self.score_pool4(features["pool4"]), self.score_pool3(features["pool3"])
        scores = self.score_high(features["high"])
        scores = pool4 + resize(self.upsample_high(scores), pool4.shape[-2:])
        logits: Tensor = pool3 + resize(self.upsample_pool4(scores), pool3.shape[-2:])
        return logits


def _upsampling(channels: int, factor: int) -> nn.Sequential:
    doublings = max(0, factor.bit_length() - 1)  # none if both taps have the same stride
    return nn.Sequential(*(bilinear_upsampling(channels) for _ in range(doublings)))


def bilinear_upsampling(channels: int) -> nn.ConvTranspose2d:
    """Return a learnable 2 x upsampling (N, C, h, w) to (N, C, 2h, 2w) that starts as bilinear interpolation."""
    layer = nn.ConvTranspose2d(channels, channels, kernel_size=4, stride=2, padding=1, bias=False)
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = torch.outer(ramp, ramp)
    return layer
