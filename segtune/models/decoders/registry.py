"""The decoders by name, and the contract of a decoder."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from segtune.models.decoders.deeplabv3plus import DeepLabV3Plus
from segtune.models.decoders.fcn8s import FCN8s


class DecoderClass(Protocol):
    """The contract of a decoder class, a subclass of `nn.Module`.

    Its `forward(features)` maps features by role, each (N, C, h, w), to logits (N, `settings.outputs`, h, w) of any
    height and width; the model scales the features before (`segtune.models.tap_scale`), and resizes the logits to the
    image. A class may have `fixed_start`: names of its modules that start at fixed, meaningful values and not at random
    ones, so that a phase may freeze them before they have trained.
    """

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the taps it reads, from fine to coarse."""

    @property
    def strides(self) -> Mapping[str, int]:
        """The stride of each role at which `taps=auto` chooses a layer, in input pixels."""

    def __call__(self, channels: Mapping[str, int], strides: Mapping[str, int], settings: Any, /) -> nn.Module:
        """Return a decoder for features of these channels and strides (input pixels) by role, with its own settings.

        Raises:
            UserError: The features do not fit it.
        """


#: To add a decoder: its class in a file of its own, its name here, its settings in `segtune.config.model_settings`.
DECODERS: Mapping[str, DecoderClass] = {"fcn8s": FCN8s, "deeplabv3plus": DeepLabV3Plus}
