"""VGG16, with its classifier as convolutions."""

from typing import Any

import timm
from torch import Tensor, nn

from segtune.models.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec, named, paths


class FullyConvolutionalVGG16(nn.Module):
    """VGG16 with its two hidden fully connected layers as padded convolutions (Long et al. 2015, "FCN").

    At the centre of a 224 x 224 input `fc6` and `fc7` compute exactly what the fully connected layers do; padding by 3
    keeps the map at 1/32 of the input, whereas the paper pads the image by 100 and crops.
    """

    def __init__(self) -> None:
        super().__init__()
        source: Any = timm.create_model("vgg16", num_classes=0)
        self.features: nn.Sequential = source.features
        self.fc6: nn.Conv2d = source.pre_logits.fc1
        self.fc6.padding = (3, 3)
        self.relu6 = nn.ReLU()
        self.drop6 = nn.Dropout(0.5)
        self.fc7: nn.Conv2d = source.pre_logits.fc2
        self.relu7 = nn.ReLU()
        self.drop7 = nn.Dropout(0.5)
        # For files without a classifier. A step of Adam at 1e-3 changes every weight by 1e-3, those of 25,088 inputs
        # in the same direction: at the usual standard deviation, 0.009, the first steps would replace these layers.
        # The size of what they return does not matter, as the model scales it.
        for layer in (self.fc6, self.fc7):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised RGB (N, 3, H, W) to (N, 4096, H / 32, W / 32)."""
        x = self.drop6(self.relu6(self.fc6(self.features(x))))
        x = self.drop7(self.relu7(self.fc7(x)))
        return x


_VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)


def _vgg16_layout() -> dict[str, Any]:
    blocks, others, index = {}, dict[str, str](), 0
    layers, convolutions = [("input_layer", "")], {"relu6": "fc6", "relu7": "fc7"}
    for block, depth in enumerate(_VGG16_CONVOLUTIONS, start=1):
        blocks[f"block{block}"] = tuple(f"features.{i}" for i in range(index, index + 2 * depth + 1))
        for conv in range(1, depth + 1):
            # A Keras convolution includes its ReLU.
            relu = f"features.{index + 1}"
            convolutions[relu] = f"features.{index}"
            layers.append((f"block{block}_conv{conv}", relu))
            others |= {f"conv{block}_{conv}": relu, f"relu{block}_{conv}": relu}
            index += 2
        layers.append((f"block{block}_pool", f"features.{index}"))
        others[f"pool{block}"] = f"features.{index}"
        index += 1
    blocks["fc"] = ("fc6", "relu6", "drop6", "fc7", "relu7", "drop7")
    aliases = named(layers) | {"fc1": "relu6", "fc2": "relu7"}  # of Keras's top
    return {
        "blocks": blocks,
        "aliases": aliases,
        "others": others,
        "layers": paths(layers),
        "convolutions": convolutions,
    }


VGG16 = BackboneSpec(
    "vgg16",
    FullyConvolutionalVGG16,
    "vgg16",
    IMAGENET_MEAN,
    IMAGENET_STD,
    **_vgg16_layout(),
    stages=("features.3", "features.8", "features.15", "features.22", "features.29", "drop7"),
    # timm's and torchvision's names of the hidden fully connected layers
    renames={"pre_logits.fc1.": "fc6.", "pre_logits.fc2.": "fc7.", "classifier.0.": "fc6.", "classifier.3.": "fc7."},
)
