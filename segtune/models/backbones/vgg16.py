"""VGG16, with its classifier as convolutions."""

from typing import Any

import timm
from torch import Tensor, nn

from segtune.models.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec


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


def _vgg16_layout() -> tuple[dict[str, tuple[str, ...]], dict[str, str], dict[str, str]]:
    blocks, aliases, others, index = {}, {}, dict[str, str](), 0
    for block, convolutions in enumerate(_VGG16_CONVOLUTIONS, start=1):
        layers = 2 * convolutions + 1
        blocks[f"block{block}"] = tuple(f"features.{i}" for i in range(index, index + layers))
        for conv in range(convolutions):
            # A Keras convolution includes its ReLU.
            relu = f"features.{index + 2 * conv + 1}"
            aliases[f"block{block}_conv{conv + 1}"] = relu
            others |= {f"conv{block}_{conv + 1}": relu, f"relu{block}_{conv + 1}": relu}
        index += layers
        aliases[f"block{block}_pool"] = others[f"pool{block}"] = f"features.{index - 1}"
    blocks["fc"] = ("fc6", "relu6", "drop6", "fc7", "relu7", "drop7")
    return blocks, aliases | {"fc1": "relu6", "fc2": "relu7"}, others


_LAYOUT = _vgg16_layout()

VGG16 = BackboneSpec(
    "vgg16",
    FullyConvolutionalVGG16,
    "vgg16",
    IMAGENET_MEAN,
    IMAGENET_STD,
    blocks=_LAYOUT[0],
    aliases=_LAYOUT[1],
    others=_LAYOUT[2],
    stages=("features.3", "features.8", "features.15", "features.22", "features.29", "drop7"),
    # timm's and torchvision's names of the hidden fully connected layers
    renames={"pre_logits.fc1.": "fc6.", "pre_logits.fc2.": "fc7.", "classifier.0.": "fc6.", "classifier.3.": "fc7."},
)
