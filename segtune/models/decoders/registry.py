"""The decoders by name."""

from collections.abc import Callable, Mapping

from torch import nn

from segtune.models.decoders.deeplabv3plus import DeepLabV3Plus
from segtune.models.decoders.fcn8s import FCN8s

DECODERS: Mapping[str, Callable[..., nn.Module]] = {"fcn8s": FCN8s, "deeplabv3plus": DeepLabV3Plus}
