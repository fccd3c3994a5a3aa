"""Random crops of fixed size that favour the object, for images that must not be shrunk."""

from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.metrics import VOID


class ObjectCrop(A.DualTransform):  # type: ignore[misc]
    """A random crop of `height` x `width` pixels, copied and not resized.

    With the probability `object_fraction` its centre is a pixel of the object, each as likely, moved as far as it takes
    to keep the crop inside the image; else, and where the mask is empty, every place is as likely. nnU-Net oversamples
    foreground so, in a third of its patches (Isensee et al. 2021, "nnU-Net: a self-configuring method for deep
    learning-based biomedical image segmentation", doi:10.1038/s41592-020-01008-z).

    An image that is smaller than the crop is continued by reflection, below and to the right, where its mask is void.
    """

    def __init__(self, height: int, width: int, object_fraction: float) -> None:
        super().__init__(p=1.0)
        self.size, self.object_fraction = (height, width), object_fraction

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Return `start`, the crop's first row and column, for a mask (H, W) whose object is 1."""
        room = [max(0, length - side) for length, side in zip(params["shape"], self.size, strict=False)]
        centred = self.py_random.random() < self.object_fraction
        if centred and (pixel := self._pixel_of_object(data["mask"])):
            middles = zip(pixel, self.size, room, strict=True)
            return {"start": tuple(min(max(0, place - side // 2), most) for place, side, most in middles)}
        return {"start": tuple(self.py_random.randint(0, most) for most in room)}

    def _pixel_of_object(self, mask: NDArray[np.uint8]) -> tuple[int, int] | None:
        """Return the row and column of a random pixel of the object; None if there is none."""
        inside = mask == 1
        until = np.cumsum(np.count_nonzero(inside, axis=1))  # pixels of the object in all rows up to each
        if not until[-1]:
            return None
        number = self.py_random.randrange(int(until[-1]))
        row = int(np.searchsorted(until, number, side="right"))
        before = int(until[row - 1]) if row else 0
        return row, int(np.flatnonzero(inside[row])[number - before])

    def apply(self, img: NDArray[np.uint8], start: tuple[int, int], **_: Any) -> NDArray[np.uint8]:
        """Return the crop of an image (H, W, 3)."""
        return self._crop(img, start, cv2.BORDER_REFLECT)

    def apply_to_mask(self, mask: NDArray[np.uint8], start: tuple[int, int], **_: Any) -> NDArray[np.uint8]:
        """Return the crop of a mask (H, W)."""
        return self._crop(mask, start, cv2.BORDER_CONSTANT)

    def _crop(self, array: NDArray[np.uint8], start: tuple[int, int], border: int) -> NDArray[np.uint8]:
        (top, left), (height, width) = start, self.size
        part = array[top : top + height, left : left + width]
        below, right = height - part.shape[0], width - part.shape[1]
        return np.asarray(cv2.copyMakeBorder(part, 0, below, 0, right, border, value=VOID), np.uint8)
