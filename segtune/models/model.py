"""The segmentation model: a cut backbone and a decoder."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segtune.models.decoders.depthwise import hasten_dilated
from segtune.models.decoders.layers import resize, tolerate_single_values
from segtune.models.input_size import check_size
from segtune.models.split import Crossing, Split
from segtune.models.tap_scale import TapScale
from segtune.models.taps import FeatureInfo


class SegmentationModel(nn.Module):
    """From images to logits of the same size.

    Contract: RGB in 0..255, uint8 or float, (N, 3, H, W) of any H and W from 32 up, to logits (N, 1, H, W) in float32.
    The backbone's input normalisation and the scale of its features are part of the model. If the decoder has two
    outputs, background and object, the logit is their difference, object - background: its sigmoid is the softmax of
    the two.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        features: Mapping[str, FeatureInfo],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.backbone = tolerate_single_values(backbone)  # at 32 px the deepest map may be a single pixel
        self.decoder = decoder
        hasten_dilated(self)
        self.features = dict(features)
        self.scale = TapScale(features) if features else nn.Identity()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))
        self.split: Split | None = None

    def forward(self, images: Tensor | Crossing) -> Tensor:
        """Return the logits of images, see the class; or of what `split.frozen` has computed from them.

        Raises:
            UserError: The backbone does not take images of this size.
        """
        if isinstance(images, Crossing):
            if self.split is None:
                raise ValueError("the model is not split, so it takes images only")
            features, size = self.split.trained(**images.values), images.size
        else:
            size = (images.shape[-2], images.shape[-1])
            try:
                features = self.backbone(self.normalised(images))
            except RuntimeError as error:
                check_size(self.backbone, images, error)
                raise
        logits = resize(self.decoder(self.scale(features)).float(), size)
        if logits.shape[1] == 2:  # in float32: the difference of two can overflow in float16
            logits = logits[:, 1:] - logits[:, :1]
        return logits

    def normalised(self, images: Tensor) -> Tensor:
        """Return images (N, 3, H, W) as the backbone takes them."""
        return ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def crossing(self, images: Tensor) -> Crossing:
        """Return what the frozen part of the backbone computes from images (N, 3, H, W); the model must be split."""
        if self.split is None:
            raise ValueError("the model is not split, so nothing is frozen of it")
        with torch.no_grad():
            values = self.split.frozen(self.normalised(images))
        height, width = images.shape[-2:]
        return Crossing(values, (height, width))
