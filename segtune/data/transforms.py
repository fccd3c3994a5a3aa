"""Augmentation by any transform of albumentations named in the settings, checked before training."""

import inspect
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from segtune.config.data_settings import OBJECT_FRACTION
from segtune.data.object_crop import ObjectCrop
from segtune.errors import UserError, close_matches
from segtune.metrics import VOID

# Arguments that settings cannot or must not set: code, files, and images passed in the sample.
_REFUSED = frozenset({"read_fn", "reference_images", "font_path", "metadata_key", "cropping_bbox_key"})
_ABSTRACT = frozenset({"DualTransform", "ImageOnlyTransform", "Lambda"})

_RESIZING = {
    "interpolation": cv2.INTER_LINEAR,
    "mask_interpolation": cv2.INTER_NEAREST,
    "area_for_downscale": "image",
}


def build_transform(
    size: tuple[int, int] | None,
    crop: Mapping[str, Any] | None,
    transforms: Mapping[str, Mapping[str, Any]],
    *,
    void_border: bool = False,
) -> A.Compose:
    """Return the transform from a photo and mask of any size to a sample.

    Args:
        size: Height and width of the output, in pixels; `None` for those of the photo, without crop and transforms.
        crop: `scale` (fraction of the photo's area, 0 to 1) and `ratio` (width / height) of a random crop, which is
            resized; or `object_fraction` (0 to 1) of one that has the output's size, see `ObjectCrop`; `None` resizes
            the whole photo.
        transforms: albumentations class names with their arguments, applied in this order after the crop.
        void_border: What rotations, shifts and distortions bring in from outside is void in the mask, and in the image
            one colour, whatever the transform's `border_mode`: its `fill`, black by default.

    Returns:
        A callable that maps `image` (uint8, `(H, W, 3)`) and `mask` (uint8 0, 1 or `VOID`, `(H, W)`) to the same keys
        at `size`. Images are downscaled by area averaging; masks always use nearest-neighbour sampling.

    Raises:
        UserError: Unknown names or arguments, wrong values, or a transform that changes size or type.
    """
    if size is None:
        return A.Compose([A.NoOp()])
    first = A.Resize(*size, **_RESIZING) if crop is None else _random_crop(size, crop)
    steps = [_step(name, arguments, void_border=void_border) for name, arguments in transforms.items()]
    for name, step in zip(transforms, steps, strict=True):
        _check_step(name, step, size)
    whole = A.Compose([first, *steps], mask_interpolation=cv2.INTER_NEAREST)
    if not isinstance(first, ObjectCrop):
        # INTER_NEAREST takes a cell's corner, half a cell off the image; INTER_NEAREST_EXACT takes its centre, but only
        # resizing supports it.
        first.mask_interpolation = cv2.INTER_NEAREST_EXACT
    return whole


def _random_crop(size: tuple[int, int], crop: Mapping[str, Any]) -> A.BasicTransform:
    if OBJECT_FRACTION in crop:  # a number from 0 to 1, without others: the settings have been checked
        return ObjectCrop(*size, crop[OBJECT_FRACTION])
    _check_arguments("augment.crop", crop, ["scale", "ratio", f"or {OBJECT_FRACTION} without these"])
    return _construct("augment.crop", A.RandomResizedCrop, {**crop, "size": size, **_RESIZING})


def crop_ranges(size: tuple[int, int], crop: Mapping[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ranges of a resized random crop's share of the photo's area, and of its width / height."""
    made: Any = _random_crop(size, crop)
    return made.scale, made.ratio


def resize(
    photo: NDArray[np.uint8], mask: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a photo (H, W, 3) and its mask (h, w), resized as `build_transform` does without a crop."""
    transform = build_transform(size, None, {})
    transform.is_check_shapes = False  # the photo may have been decoded at a smaller size
    out = transform(image=photo, mask=mask)
    return out["image"], out["mask"]


#: Arguments of transforms that take something in from outside of an image.
_OUTSIDE = {"border_mode": cv2.BORDER_CONSTANT, "fill_mask": VOID}


def _step(name: str, arguments: Mapping[str, Any] | None, *, void_border: bool) -> A.BasicTransform:
    where = f"augment.transforms.{name}"
    known = _usable_transforms()
    if name not in known:
        near = close_matches(name, known, 3)
        hint = f"nearest: {', '.join(near)}" if near else "see albumentations.ai/docs for the names"
        raise UserError(f"{where}: no albumentations transform of this name takes plain settings; {hint}.")
    arguments = arguments or {}
    _check_arguments(where, arguments, _parameters(known[name]))
    if void_border and _OUTSIDE.keys() <= set(_parameters(known[name])):
        arguments = {**arguments, **_OUTSIDE}
    return _construct(where, known[name], arguments)


@cache
def _usable_transforms() -> dict[str, type[A.BasicTransform]]:
    return {
        name: kind
        for name, kind in inspect.getmembers(A, inspect.isclass)
        if issubclass(kind, A.ImageOnlyTransform | A.DualTransform)
        and not issubclass(kind, A.Transform3D)
        and name not in _ABSTRACT
        and not _REFUSED & set(_parameters(kind))
    }


def _parameters(kind: type) -> list[str]:
    return list(inspect.signature(kind).parameters)


def _check_arguments(where: str, arguments: object, valid: list[str]) -> None:
    if not isinstance(arguments, Mapping):
        raise UserError(f"{where}: got {arguments!r}; expected a mapping of arguments, such as {{p: 0.5}}.")
    for name in arguments:
        if name not in valid:
            raise UserError(f"{where}: got the argument {name!r}; expected {', '.join(valid)}.")
        if not _is_finite(arguments[name]):
            raise UserError(f"{where}.{name}: got {arguments[name]!r}; expected finite numbers.")


def _is_finite(value: Any) -> bool:
    """Return whether all numbers of an argument are finite: albumentations takes some that are not."""
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _construct(where: str, kind: type[A.BasicTransform], arguments: Mapping[str, Any]) -> A.BasicTransform:
    # Without strict, albumentations replaces some wrong values by its defaults, with a warning; classes without a
    # schema of their own do not accept it.
    strict = {"strict": True} if "InitSchema" in vars(kind) else {}
    try:
        return kind(**arguments, **strict)
    except (TypeError, ValueError) as error:
        cause = error.__cause__
        reason = "; ".join(map(_fault, cause.errors())) if isinstance(cause, ValidationError) else str(error)
        raise UserError(f"{where}: {reason}") from error


def _fault(details: ErrorDetails) -> str:
    """Return the text of a pydantic error; the input is left out where it is all the other arguments."""
    name = ".".join(map(str, details["loc"]))
    if not name or details["type"] == "missing":
        return f"{name} {details['msg']}".strip()
    return f"{name}={details['input']!r}: {details['msg']}"


def _check_step(name: str, step: A.BasicTransform, size: tuple[int, int]) -> None:
    """Check a transform on a random sample: many break the rules only when called (Normalize, Transpose)."""
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    mask = (photo[..., 0] > 127).astype(np.uint8)
    # A rotation by 90 degrees swaps height and width, but not at every draw.
    for seed in range(1 if size[0] == size[1] else 8):
        step.set_random_seed(seed)
        try:
            out = step(image=photo, mask=mask, force_apply=True)
        except Exception as error:  # whatever the reason, the transform cannot be used
            text = f"fails on a photo of {size[0]} x {size[1]} pixels with a mask: {error}"
            raise UserError(f"augment.transforms.{name}: {text}") from error
        _check_output(name, out["image"], out["mask"], photo.shape)


def _check_output(name: str, image: NDArray[Any], mask: NDArray[Any], shape: tuple[int, ...]) -> None:
    if image.dtype != np.uint8 or image.shape != shape:
        raise UserError(
            f"augment.transforms.{name}: returns an image of {image.dtype} {image.shape}; expected uint8 "
            f"{shape}: data.image_size sets the size, and the backbone the normalisation."
        )
    if mask.shape != shape[:2] or not np.isin(mask, (0, 1, VOID)).all():
        raise UserError(f"augment.transforms.{name}: returns a mask that is not 0 and 1 at the image's size.")
