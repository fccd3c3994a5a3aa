"""Augmentation by albumentations: any of its transforms, named in the settings, checked before training."""

import inspect
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from segtune.errors import UserError, close_matches

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # importing it asks the network for a newer version otherwise

# What settings cannot give or must not: code, files, and pictures that come along in the sample.
_REFUSED = frozenset({"read_fn", "reference_images", "font_path", "metadata_key", "cropping_bbox_key"})
_ABSTRACT = frozenset({"DualTransform", "ImageOnlyTransform", "Lambda"})

_RESIZING = {
    "interpolation": cv2.INTER_LINEAR,
    "mask_interpolation": cv2.INTER_NEAREST,
    "area_for_downscale": "image",
}


def build_transform(
    size: tuple[int, int], crop: Mapping[str, Any] | None, transforms: Mapping[str, Mapping[str, Any]]
) -> A.Compose:
    """Build the way from a photo and mask of any size to a sample.

    Args:
        size: Height and width of what comes out, in pixels.
        crop: `scale` (share of the photo's area, 0 to 1) and `ratio` (width / height) of a random crop that
        is resized;
            `None` resizes the whole photo.
        transforms: albumentations class names with their arguments, applied in this order after the crop.

    Returns:
        A call with `image` (uint8, `(H, W, 3)`) and `mask` (uint8 0 or 1, `(H, W)`) gives the same keys at
        `size`. Photos shrink by area averaging, masks are always sampled at the nearest pixel.

    Raises:
        UserError: unknown names or arguments, wrong values, or a transform that changes size or type.
    """
    height, width = size
    first: A.BasicTransform
    if crop is None:
        first = A.Resize(height, width, **_RESIZING)
    else:
        _check_arguments("augment.crop", crop, ["scale", "ratio"])
        first = _construct("augment.crop", A.RandomResizedCrop, {**crop, "size": size, **_RESIZING})
    steps = [_step(name, arguments) for name, arguments in transforms.items()]
    for name, step in zip(transforms, steps, strict=True):
        _check_step(name, step, size)
    whole = A.Compose([first, *steps], mask_interpolation=cv2.INTER_NEAREST)
    # Plain nearest takes a cell's corner pixel, half a cell off the photo; the exact kind takes its centre,
    # but only resizing knows it.
    first.mask_interpolation = cv2.INTER_NEAREST_EXACT
    return whole


def _step(name: str, arguments: Mapping[str, Any] | None) -> A.BasicTransform:
    where = f"augment.transforms.{name}"
    known = _usable_transforms()
    if name not in known:
        near = close_matches(name, known, 3)
        hint = f"nearest: {', '.join(near)}" if near else "see albumentations.ai/docs for the names"
        raise UserError(f"{where}: there is no such albumentations transform that takes plain settings; {hint}.")
    arguments = arguments or {}
    _check_arguments(where, arguments, _parameters(known[name]))
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
        raise UserError(f"{where}: expected a mapping of arguments, as in {{p: 0.5}}, not {arguments!r}.")
    for name in arguments:
        if name not in valid:
            raise UserError(f"{where}: no argument {name!r}; valid are {', '.join(valid)}.")


def _construct(where: str, kind: type[A.BasicTransform], arguments: Mapping[str, Any]) -> A.BasicTransform:
    # Without strict, albumentations answers some wrong values with a warning and its defaults; classes that
    # leave the checks to their parent do not take the word.
    strict = {"strict": True} if "InitSchema" in vars(kind) else {}
    try:
        return kind(**arguments, **strict)
    except (TypeError, ValueError) as error:
        cause = error.__cause__
        reason = "; ".join(map(_fault, cause.errors())) if isinstance(cause, ValidationError) else str(error)
        raise UserError(f"{where}: {reason}") from error


def _fault(details: ErrorDetails) -> str:
    """Word a finding of pydantic; for a missing argument, its input is all the others, so it is left out."""
    name = ".".join(map(str, details["loc"]))
    if not name or details["type"] == "missing":
        return f"{name} {details['msg']}".strip()
    return f"{name}={details['input']!r}: {details['msg']}"


def _check_step(name: str, step: A.BasicTransform, size: tuple[int, int]) -> None:
    """Try a transform on a made-up sample: many break the rules only when called (Normalize, Transpose)."""
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    mask = (photo[..., 0] > 127).astype(np.uint8)
    # A quarter turn exchanges the sides, but not at every draw.
    for seed in range(1 if size[0] == size[1] else 8):
        step.set_random_seed(seed)
        try:
            out = step(image=photo, mask=mask, force_apply=True)
        except Exception as error:  # whatever it was, the transform cannot be used on such a pair
            text = f"fails on a photo of {size[0]} x {size[1]} pixels with a mask: {error}"
            raise UserError(f"augment.transforms.{name}: {text}") from error
        _check_output(name, out["image"], out["mask"], photo.shape)


def _check_output(name: str, image: NDArray[Any], mask: NDArray[Any], shape: tuple[int, ...]) -> None:
    if image.dtype != np.uint8 or image.shape != shape:
        raise UserError(
            f"augment.transforms.{name}: makes a photo of {image.dtype} {image.shape}, expected uint8 "
            f"{shape}; size and normalisation are set elsewhere (data.image_size, the backbone)."
        )
    if mask.shape != shape[:2] or not np.isin(mask, (0, 1)).all():
        raise UserError(f"augment.transforms.{name}: makes a mask that is not 0 and 1 at the photo's size.")
