"""ResNet50 and the Keras names of its layers."""

import timm
from torch import nn

from segtune.models.backbones.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BackboneSpec,
    KerasLayers,
    ambiguous,
    named,
    paths,
    unambiguous,
)


def _resnet50() -> nn.Module:
    return timm.create_model("resnet50", num_classes=0)


_RESNET50_DEPTHS = (3, 4, 6, 3)


def _keras_layers() -> KerasLayers:
    layers = [("input_layer", ""), ("conv1_pad", ""), ("conv1_conv", "conv1"), ("conv1_bn", "bn1")]
    layers += [("conv1_relu", "act1"), ("pool1_pad", ""), ("pool1_pool", "maxpool")]
    for stage, depth in enumerate(_RESNET50_DEPTHS, start=1):
        for unit in range(depth):
            keras, path = f"conv{stage + 1}_block{unit + 1}", f"layer{stage}.{unit}"
            for k in (1, 2):
                layers += [(f"{keras}_{k}_conv", f"{path}.conv{k}"), (f"{keras}_{k}_bn", f"{path}.bn{k}")]
                layers.append((f"{keras}_{k}_relu", f"{path}.act{k}"))
            for part, index in (("conv", 0), ("bn", 1)):
                if unit == 0:
                    layers.append((f"{keras}_0_{part}", f"{path}.downsample.{index}"))
                layers.append((f"{keras}_3_{part}", f"{path}.{part}3"))
            layers += [(f"{keras}_add", f"{path}.add"), (f"{keras}_out", f"{path}.act3")]
    return layers


def _numbered() -> dict[str, list[str]]:
    """Return the layers that old versions of Keras only numbered, in the order of their numbers."""
    units = [f"layer{stage}.{unit}" for stage, depth in enumerate(_RESNET50_DEPTHS, start=1) for unit in range(depth)]
    return {
        "activation": ["act1", *(f"{unit}.act{k}" for unit in units for k in (1, 2, 3))],
        "add": [f"{unit}.add" for unit in units],
        "max_pooling2d": ["maxpool"],
    }


def _old_names() -> dict[str, str]:
    """Return the names of Caffe and of old versions of Keras, such as `res4f_branch2c`, and TF-slim's."""
    names = {"bn_conv1": "bn1", "conv1_relu": "act1", "pool1": "maxpool"}
    for stage, depth in enumerate(_RESNET50_DEPTHS, start=1):
        for unit, letter in zip(range(depth), "abcdef", strict=False):
            path, block = f"layer{stage}.{unit}", f"{stage + 1}{letter}"
            for k, branch in enumerate("abc", start=1):
                names |= {
                    f"res{block}_branch2{branch}": f"{path}.conv{k}",
                    f"bn{block}_branch2{branch}": f"{path}.bn{k}",
                }
            names |= {f"res{block}_branch2{branch}_relu": f"{path}.act{k}" for k, branch in ((1, "a"), (2, "b"))}
            names |= {f"res{block}": f"{path}.act3", f"res{block}_relu": f"{path}.act3"}
            if unit == 0:
                names |= {f"res{block}_branch1": f"{path}.downsample.0", f"bn{block}_branch1": f"{path}.downsample.1"}
            if unit + 1 < depth or stage == len(_RESNET50_DEPTHS):  # TF-slim's last unit of a block has its stride
                slim = f"block{stage}/unit_{unit + 1}/bottleneck_v1"
                names |= {slim: f"{path}.act3", f"{slim}/conv1": f"{path}.act1", f"{slim}/conv2": f"{path}.act2"}
                names |= {f"{slim}/conv3": f"{path}.bn3"}
    return names


RESNET50 = BackboneSpec(
    "resnet50",
    _resnet50,
    "resnet50",
    IMAGENET_MEAN,
    IMAGENET_STD,
    blocks={"stem": ("conv1", "bn1", "act1", "maxpool"), **{f"layer{n}": (f"layer{n}",) for n in range(1, 5)}},
    aliases=named(_keras_layers()),
    ambiguous=ambiguous(_numbered()),
    others=_old_names() | unambiguous(_numbered()),
    layers=paths(_keras_layers()),
    stages=("act1", "layer1", "layer2", "layer3", "layer4"),
)
