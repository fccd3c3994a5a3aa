"""ResNet50 and the Keras names of its layers."""

import timm
from torch import nn

from segtune.models.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec


def _resnet50() -> nn.Module:
    return timm.create_model("resnet50", num_classes=0)


_RESNET50_DEPTHS = (3, 4, 6, 3)


def _resnet50_layout() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    blocks: dict[str, tuple[str, ...]] = {"stem": ("conv1", "bn1", "act1", "maxpool")}
    aliases = {"conv1_conv": "conv1", "conv1_bn": "bn1", "conv1_relu": "act1", "pool1_pool": "maxpool"}
    for stage, depth in enumerate(_RESNET50_DEPTHS, start=1):
        blocks[f"layer{stage}"] = (f"layer{stage}",)
        for unit in range(depth):
            keras, path = f"conv{stage + 1}_block{unit + 1}", f"layer{stage}.{unit}"
            for k in (1, 2, 3):
                aliases |= {f"{keras}_{k}_conv": f"{path}.conv{k}", f"{keras}_{k}_bn": f"{path}.bn{k}"}
            aliases |= {f"{keras}_1_relu": f"{path}.act1", f"{keras}_2_relu": f"{path}.act2"}
            aliases |= {f"{keras}_add": f"{path}.add", f"{keras}_out": f"{path}.act3"}
        first = f"conv{stage + 1}_block1_0"
        aliases |= {f"{first}_conv": f"layer{stage}.0.downsample.0", f"{first}_bn": f"layer{stage}.0.downsample.1"}
    return blocks, aliases


RESNET50 = BackboneSpec(
    "resnet50",
    _resnet50,
    "resnet50",
    IMAGENET_MEAN,
    IMAGENET_STD,
    *_resnet50_layout(),
    stages=("act1", "layer1", "layer2", "layer3", "layer4"),
)
