"""Xception and the Keras names of its layers."""

from typing import Any, cast

import timm
from torch import nn

from segtune.models.backbones.spec import BackboneSpec, ambiguous, unambiguous


def _xception() -> nn.Module:
    network: Any = timm.create_model("legacy_xception", num_classes=0)
    # The stem is unpadded as published: 256 px give maps of 125, 63, 32, ... Padded, every stride is exact.
    network.conv1.padding = network.conv2.padding = (1, 1)
    return cast(nn.Module, network)


def _xception_layout() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    blocks: dict[str, tuple[str, ...]] = {"stem": ("conv1", "bn1", "act1", "conv2", "bn2", "act2")}
    blocks |= {f"block{n}": (f"block{n}",) for n in range(1, 13)}
    blocks["exit"] = ("conv3", "bn3", "act3", "conv4", "bn4", "act4")
    aliases: dict[str, str] = {}
    for keras, n in {"block1_conv1": 1, "block1_conv2": 2, "block14_sepconv1": 3, "block14_sepconv2": 4}.items():
        aliases |= {keras: f"conv{n}", f"{keras}_bn": f"bn{n}", f"{keras}_act": f"act{n}"}
    # Keras counts the stem as block 1, so its block N is timm's block N - 1.
    for n in range(1, 13):
        units = 2 if n in _XCEPTION_SHORTCUTS else 3
        index = 0
        for unit in range(1, units + 1):
            keras = f"block{n + 1}_sepconv{unit}"
            if (n, unit) != (1, 1):  # the first block starts without an activation
                aliases[f"{keras}_act"] = f"block{n}.rep.{index}"
                index += 1
            aliases |= {keras: f"block{n}.rep.{index}", f"{keras}_bn": f"block{n}.rep.{index + 1}"}
            index += 2
        if units == 2:
            aliases[f"block{n + 1}_pool"] = f"block{n}.rep.{index}"
    return blocks, aliases | unambiguous(_xception_unnamed())


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
    *_xception_layout(),
    ambiguous=ambiguous(_xception_unnamed()),
    stages=("act2", "block2.rep.0", "block3.rep.0", "block12.rep.0", "act4"),
)
