"""What the command `check` asks of each pair beyond the checks before training."""

from dataclasses import dataclass

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtune.data.images import count_pictures
from segtune.data.pairs import Pair

Sizes = NDArray[np.int32]


@dataclass(frozen=True)
class CloseUp:
    """Facts of a pair that take a little longer.

    `hash` is the photo's perceptual hash of 64 bits and `mirrored` that of its mirror image; `spread` is the standard
    deviation of its grey values; `border` the share of the picture's border that is foreground (0 to 1). `areas` and
    `sides` are of the mask's objects at the network's size, in pixels; `pictures` is how many the photo's file holds.
    """

    hash: int
    mirrored: int
    spread: float
    border: float
    areas: Sizes
    sides: Sizes
    pictures: int


def close_up(pair: Pair, photo: NDArray[np.uint8], mask: NDArray[np.bool_], size: tuple[int, int]) -> CloseUp:
    """Take a closer look at a photo (H, W, 3) and its foreground (H, W); objects are measured at `size`."""
    grey = np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), np.uint8)
    spread = float(cv2.meanStdDev(grey)[1].item())
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    areas, sides = measure_objects(mask, size)
    return CloseUp(*hashes(grey), spread, float(border.mean()), areas, sides, count_pictures(pair.photo))


def hashes(grey: NDArray[np.uint8]) -> tuple[int, int]:
    """Give the perceptual hash of a grey picture (H, W) and of its mirror image, 64 bits each.

    The hash is ImageHash's pHash: the signs, about their median, of the lowest frequencies of a cosine transform.
    """
    # The hash is taken at 32 x 32: reduced once, for both, by averaging areas, which is the fastest way.
    small = Image.fromarray(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA))
    mirrored = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return int(str(imagehash.phash(small)), 16), int(str(imagehash.phash(mirrored)), 16)


def measure_objects(mask: NDArray[np.bool_], size: tuple[int, int]) -> tuple[Sizes, Sizes]:
    """Measure the objects of a mask as the network gets it, resized to `size` (height, width).

    An object is what hangs together, over corners too.

    Returns:
        Of each object its area and the longer side of its bounding box, in pixels at `size`.
    """
    small = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    boxes = cv2.connectedComponentsWithStats(small, connectivity=8)[2][1:]  # the first is the background
    longer = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(1, initial=0)
    return boxes[:, cv2.CC_STAT_AREA].astype(np.int32), longer.astype(np.int32)
