"""The smallest images that a network takes."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from segtune.errors import UserError

#: The largest side that is tried, in pixels.
_LARGEST = 1024


#: Sides that are tried first: those that networks are made for, and round ones.
_USUAL = (64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 336, 384, 448, 512, 640, 768, _LARGEST)


def smallest_side(fits: Callable[[int], bool], above: int) -> int | None:
    """Return the smallest side of square images that fit, if those of `above` pixels do not; None if none is found.

    Networks made for one size fit there only, which may be below; others fit from some size on.
    """
    ordered = sorted(_USUAL, key=lambda side: (side < above, side))
    low, high = above, next((side for side in ordered if fits(side)), None)
    if high is None or high < above or not fits(high + 32):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def too_small(size: tuple[int, int], fits: Callable[[int], bool], settings: str) -> str:
    """Return what to say of a network that cannot take images of a size, behind its name.

    Args:
        size: Height and width.
        fits: Whether it takes square images of a side.
        settings: The settings that change the size.
    """
    begin = f"cannot take images of {size[0]} x {size[1]} pixels"
    side = smallest_side(fits, min(size))
    if side is None:
        return f"{begin}, nor square ones of up to {_LARGEST} pixels, so it cannot be used."
    if not fits(side + 32):
        only = f"{begin}, only of {side} x {side}: it is made for one size, as most vision transformers are"
        return f"{only}. Set {settings}."
    return f"{begin}; the smallest that fits is {max(side, size[0])} x {max(side, size[1])}. Set {settings}."


def check_size(network: nn.Module, images: Tensor, error: RuntimeError) -> None:
    """Explain an error of a network, if it is due to the size of the images.

    Args:
        network: The network, which stays unchanged.
        images: The images (N, 3, H, W) at which it failed.
        error: What it raised.

    Raises:
        UserError: The network does not take images of this size.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return
    size = (images.shape[-2], images.shape[-1])
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta")) for p in network.parameters()}
    memo |= {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    bare = copy.deepcopy(network, memo).eval()

    def works(height: int, width: int) -> bool:
        try:
            with torch.no_grad():
                bare(torch.empty(1, 3, height, width, device="meta"))
        except Exception:  # a forward pass can raise anything
            return False
        return True

    if not works(*size):
        settings = "data.image_size (in validation and evaluation data.eval_size, in predict image_size)"
        raise UserError(f"The backbone {too_small(size, lambda side: works(side, side), settings)}") from error
