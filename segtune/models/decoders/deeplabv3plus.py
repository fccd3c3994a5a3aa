"""DeepLabV3+ (Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution", arXiv:1802.02611)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPP, ASPPPooling, SeparableConv2d
from torch import Tensor, nn

from segtune.config.model_settings import DeepLabV3PlusSettings
from segtune.errors import UserError
from segtune.models.decoders.layers import BatchNorm2d, resize, tolerate_single_values

#: The paper's dilation rates at output stride 16; they scale inversely with the stride.
_RATES_AT_16 = (6, 12, 18)


def atrous_rates(stride: int) -> tuple[int, ...]:
    """Return the ASPP's dilation rates for a high-level feature of `stride`: (6, 12, 18) at 16, twice that at 8."""
    return tuple(max(1, rate * 16 // stride) for rate in _RATES_AT_16)


class DeepLabV3Plus(nn.Module):
    """ASPP on the `high` tap, joined with a narrow projection of the `low` tap, refined by 3 x 3 convolutions."""

    roles: ClassVar[tuple[str, ...]] = ("low", "high")
    #: The strides at which `taps=auto` chooses layers: those of the paper, with an output stride of 16.
    strides: ClassVar[Mapping[str, int]] = {"low": 4, "high": 16}

    def __init__(
        self, channels: Mapping[str, int], strides: Mapping[str, int], settings: DeepLabV3PlusSettings
    ) -> None:
        """Build the decoder.

        Args:
            channels: Channels of the features `low` and `high`.
            strides: Their strides, in input pixels.
            settings: Widths, rates and dropout.

        Raises:
            UserError: `low` is coarser than `high`.
        """
        super().__init__()
        if strides["low"] > strides["high"]:
            raise UserError(
                f"taps.low has stride {strides['low']}, taps.high {strides['high']}: deeplabv3plus joins fine "
                "low-level features with coarse high-level ones. Swap the taps, or choose a shallower taps.low."
            )
        width, rates = settings.channels, settings.atrous_rates or atrous_rates(strides["high"])
        self.aspp = tolerate_single_values(
            ASPP(channels["high"], width, list(rates), separable=settings.separable, dropout=settings.dropout)
        )
        for branch in self.aspp.modules():
            if type(branch) is ASPPPooling:
                branch.__class__ = _Pooling
        self.project = nn.Sequential(
            nn.Conv2d(channels["low"], settings.low_channels, 1, bias=False),
            BatchNorm2d(settings.low_channels),
            nn.ReLU(),
        )
        self.refine = _refine(width + settings.low_channels, width, settings.separable)
        self.classifier = nn.Conv2d(width, settings.outputs, 1)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Map `{"low": (N, C, h, w), "high": (N, C', h', w')}` to logits (N, outputs, h, w) of `low`'s size."""
        low = self.project(features["low"])
        high = resize(self.aspp(features["high"]), low.shape[-2:])
        logits: Tensor = self.classifier(self.refine(torch.cat([high, low], dim=1)))
        return logits


class _Pooling(ASPPPooling):  # type: ignore[misc]
    """The ASPP's image-level branch, whose one value per channel is repeated.

    To enlarge it bilinearly gives the same values, and takes longer, its gradient most of all.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, channels, h, w)."""
        value: Tensor = nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
        return value.expand(-1, -1, *x.shape[-2:])


def _refine(channels_in: int, width: int, separable: bool) -> nn.Sequential:
    convolution = SeparableConv2d if separable else nn.Conv2d
    layers: list[nn.Module] = []
    for before, after in ((channels_in, width), (width, width)):
        layers += [convolution(before, after, kernel_size=3, padding=1, bias=False), BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
