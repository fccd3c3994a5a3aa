"""Xception and the Keras names of its layers."""

from typing import Any, cast

import timm
from torch import nn

from segtune.models.backbones.spec import BackboneSpec, KerasLayers, ambiguous, named, paths, unambiguous


def _xception() -> nn.Module:
    network: Any = timm.create_model("legacy_xception", num_classes=0)
    # The stem is unpadded as published: 256 px give maps of 125, 63, 32, ... Padded, every stride is exact.
    network.conv1.padding = network.conv2.padding = (1, 1)
    return cast(nn.Module, network)


def _keras_layers() -> KerasLayers:
    layers = [("input_layer", ""), *_convolution("block1_conv1", 1), *_convolution("block1_conv2", 2)]
    # Keras counts the stem as block 1, so its block N is timm's block N - 1.
    for n in range(1, 13):
        shortcut, index = n in _XCEPTION_SHORTCUTS, 0
        for unit in range(1, 3 if shortcut else 4):
            keras = f"block{n + 1}_sepconv{unit}"
            if (n, unit) != (1, 1):  # the first block starts without an activation
                layers.append((f"{keras}_act", f"block{n}.rep.{index}"))
                index += 1
            layers += [(keras, f"block{n}.rep.{index}"), (f"{keras}_bn", f"block{n}.rep.{index + 1}")]
            index += 2
        if shortcut:
            layers += [("", f"block{n}.skip"), (f"block{n + 1}_pool", f"block{n}.rep.{index}")]
            layers.append(("", f"block{n}.skipbn"))
        layers.append(("", f"block{n}.add"))
    return [*layers, *_convolution("block14_sepconv1", 3), *_convolution("block14_sepconv2", 4)]


def _convolution(keras: str, n: int) -> KerasLayers:
    return [(keras, f"conv{n}"), (f"{keras}_bn", f"bn{n}"), (f"{keras}_act", f"act{n}")]


#: Blocks of Xception whose shortcut is a convolution.
_XCEPTION_SHORTCUTS = (1, 2, 3, 12)


def _xception_unnamed() -> dict[str, list[str]]:
    """Return the layers that Keras only numbers: from 0, which it leaves out, or from 1 in old versions."""
    return {
        "add": [f"block{n}.add" for n in range(1, 13)],
        "conv2d": [f"block{n}.skip" for n in _XCEPTION_SHORTCUTS],
        "batch_normalization": [f"block{n}.skipbn" for n in _XCEPTION_SHORTCUTS],
    }


XCEPTION = BackboneSpec(
    "xception",
    _xception,
    "legacy_xception",
    (0.5,) * 3,
    (0.5,) * 3,
    blocks={
        "stem": ("conv1", "bn1", "act1", "conv2", "bn2", "act2"),
        **{f"block{n}": (f"block{n}",) for n in range(1, 13)},
        "exit": ("conv3", "bn3", "act3", "conv4", "bn4", "act4"),
    },
    aliases=named(_keras_layers()) | unambiguous(_xception_unnamed()),
    ambiguous=ambiguous(_xception_unnamed()),
    layers=paths(_keras_layers()),
    stages=("act2", "block2.rep.0", "block3.rep.0", "block12.rep.0", "act4"),
)
