"""Colours and textures of the built-in scenes: RGB in 0..1, float32; lengths are fractions of the image's side."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]  # float32; OpenCV's type hints promise no more than numbers

# The ten swatches of the Monk Skin Tone Scale (skintone.google), light to dark.
MONK = "f6ede4 f3e7db f7ead0 eadaba d7bd96 a07e56 825c43 604134 3a312a 292420"
HAIR = "141211 1e1815 3b281c 54402d 6a4e38 916e4b d6b886 a0522d 96908c e1dcd4"


def _swatches(codes: str) -> Array:
    return np.array([list(bytes.fromhex(code)) for code in codes.split()], np.float32) / np.float32(255)


def _convert(colours: ArrayLike, code: int) -> Array:
    """Return colours `(..., 3)` converted to another colour space."""
    colours = np.asarray(colours, np.float32)
    return cv2.cvtColor(colours.reshape(1, -1, 3), code).reshape(colours.shape)


SHADE_OF_SKIN = np.array([0.8, 1.05, 1.15], np.float32)
HAIR_RGB = _swatches(HAIR)
_MONK_LAB = _convert(_swatches(MONK), cv2.COLOR_RGB2Lab)
_MONK_LAB = _MONK_LAB[np.argsort(-_MONK_LAB[:, 0])]


def skin_tone(rng: np.random.Generator, spread: float = 1.0) -> Array:
    """Return a random skin colour `(3,)` from the whole Monk scale, uniform in CIELAB lightness.

    Args:
        rng: The random generator.
        spread: How widely colours scatter around the scale; 1 is as among people.
    """
    lightness = rng.uniform(_MONK_LAB[-1, 0], _MONK_LAB[0, 0])
    lab = np.array([np.interp(-lightness, -_MONK_LAB[:, 0], channel) for channel in _MONK_LAB.T])
    # The scale's lightest and darkest swatches are nearly grey; skin in photographs keeps some red and yellow.
    lab = np.maximum(lab, (0, 9, 14)) + rng.normal(0, spread, 3) * (1, 1.5, 2.5)
    return np.clip(_convert(lab, cv2.COLOR_Lab2RGB), 0.02, 1)


def any_colour(rng: np.random.Generator, earthy: float = 0.6) -> Array:
    """Return a random colour `(3,)` for objects: with probability `earthy` one that skin could have, else any."""
    if rng.random() < earthy:
        return skin_tone(rng, 1.5)
    hsv = rng.uniform((0, 0.1, 0.15), (360, 0.8, 0.95))
    return _convert(hsv, cv2.COLOR_HSV2RGB)


def noise(rng: np.random.Generator, side: int, across: int, down: int) -> Array:
    """Return smooth noise `(side, side)` of unit scale, with `across` x `down` cells."""
    cells = rng.standard_normal((down, across), np.float32)
    return cv2.resize(cells, (side, side), interpolation=cv2.INTER_LINEAR)


def axes(side: int, angle: float) -> tuple[Array, Array]:
    """Return coordinates `(side, side)` of about 0..1 along and across axes rotated by `angle` radians."""
    x = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    y, c, s = x[:, None], math.cos(angle), math.sin(angle)
    return c * x + (s * y + 0.5), (c * y + 0.5) - s * x


def mix(first: ArrayLike, second: ArrayLike, fraction: Array) -> Array:
    """Return colours `(3,)` mixed by `fraction` `(side, side)`, as `(3, side, side)`: 0 is `first`, 1 is `second`."""
    first, second = np.asarray(first, np.float32), np.asarray(second, np.float32)
    mixed: Array = np.multiply.outer(second - first, np.clip(fraction, 0, 1))
    mixed += first[:, None, None]
    return mixed


def cloth(rng: np.random.Generator, side: int, earthy: float = 0.1) -> Array:
    """Return fabric `(3, side, side)`: plain, striped, checked or blotched, with a weave and soft folds."""
    first, second = any_colour(rng, earthy), any_colour(rng, earthy)
    folds = 1 + 0.05 * noise(rng, side, 12, 5) + 0.07 * noise(rng, side, 110, 110)
    waves, angle = rng.uniform(40, 160), rng.uniform(0, np.pi)
    kind = rng.choice(["plain", "stripes", "checks", "blotches"], p=[0.45, 0.25, 0.2, 0.1])
    if kind == "plain":
        return np.multiply.outer(first, folds)
    u, v = axes(side, angle)
    pattern = noise(rng, side, 24, 24) if kind == "blotches" else np.sin(waves * u)
    if kind == "checks":
        pattern *= np.sin(waves * v)
    return mix(first, second, 4 * pattern) * folds
