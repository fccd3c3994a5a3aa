"""What the decoders share."""

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that uses its running statistics where a batch has one value per channel.

    A batch of one picture leaves a single value behind a global pooling, of which there is no variance: PyTorch raises.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def tolerate_single_values(module: nn.Module) -> nn.Module:
    """Turn every `nn.BatchNorm2d` inside a module into the one above, in place, and return the module."""
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = BatchNorm2d  # its values and settings stay
    return module


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize a map (N, C, H, W) bilinearly to `size` (height, width); a map of that size is returned as it is."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
