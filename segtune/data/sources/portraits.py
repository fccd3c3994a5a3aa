"""The built-in data: drawn scenes of people with skin masks, without a download.

Skin of all tones is shown before wood, sand, brick, walls and clothes in the colours of skin, under coloured light, so
that it can be segmented by shape but not by a colour threshold.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.data.sources.portrait_colours import Array, any_colour, axes, cloth, mix, noise
from segtune.data.sources.portrait_scene import Canvas, Person, ellipse, limb, smooth
from segtune.errors import UserError
from segtune.runtime.write_errors import why

VERSION = "1"  # increases whenever the images change
SPLITS = {"train": 400, "val": 48, "test": 48}
SIDE = 256


def draw_scene(seed: int, size: int = 256) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one scene; the same arguments give the same bits.

    Args:
        seed: The number of the scene, 0 or more.
        size: Side of the square image in pixels; apart from noise, the scene is the same at every size.

    Returns:
        The image `(size, size, 3)` in RGB and the mask `(size, size)` with 255 on skin, else 0.
    """
    rng, side = np.random.default_rng(np.random.SeedSequence(seed)), round(1.5 * size)
    canvas = Canvas(_backdrop(rng, side), rng)
    people = rng.choice(3, p=[0.02, 0.84, 0.14])
    for _ in range(rng.integers(0, 2) if people else rng.integers(3, 7)):
        _prop(canvas, rng, rng.uniform(0.35, 1))
    # People farther away, who are smaller, first.
    scales = np.sort(rng.uniform(0.19, (0.28, 0.28, 0.23)[people], people)) * side
    slots = rng.permutation((np.arange(people) + 0.5) / max(people, 1))
    for scale, slot in zip(scales, slots, strict=True):
        x, y = slot + rng.uniform(-0.25, 0.25) / people, rng.uniform(0.22, 0.5)
        Person(canvas, rng, (x * side, y * side), scale).draw()
    if rng.random() < 0.2:
        _prop(canvas, rng, 0.95)
    fraction = cv2.resize(canvas.skin.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return _photograph(canvas.rgb, rng, size), np.where(fraction >= 0.5, 255, 0).astype(np.uint8)


def _backdrop(rng: np.random.Generator, side: int) -> Array:
    """Return the background `(3, side, side)`: wood, bricks, sand, a wall, a curtain or something blurred."""
    u, v = axes(side, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1))
    first, other = any_colour(rng, 0.1), any_colour(rng, 0.1)
    second = np.clip(first * rng.uniform(0.6, 1.3) + rng.normal(0, 0.02, 3), 0, 1)
    blotches, rows = noise(rng, side, 5, 5), rng.uniform(4, 12)
    match rng.choice(["wood", "bricks", "sand", "wall", "curtain", "blur"], p=[0.22, 0.18, 0.15, 0.2, 0.1, 0.15]):
        case "wood":
            board = np.floor(v * rows)
            rings = np.sin(60 * v + 9 * np.sin(3 * board) + 4 * noise(rng, side, 4, 16) + 3 * u)
            gap = v * rows - board < 0.04
            return mix(first, second, 0.5 + 0.4 * rings + 0.3 * np.sin(37 * board)) * np.where(
                gap, np.float32(0.5), np.float32(1)
            )
        case "bricks":
            row = np.floor(v * rows)
            place = u * rows / 2.2 + row % 2 / 2
            joint = (v * rows - row < 0.12) | (place - np.floor(place) < 0.06)
            # A sine at large steps gives each brick its own tint.
            tint = 1 + 0.13 * np.sin(12.9 * row + 78.2 * np.floor(place)) + 0.04 * noise(rng, side, 90, 90)
            return np.where(joint, other[:, None, None], np.multiply.outer(first, tint))
        case "sand":
            return mix(first, second, 0.5 + 0.3 * np.sin(50 * v + 3 * blotches) + 0.35 * noise(rng, side, 220, 220))
        case "wall":
            return mix(first, second, v) * (1 + 0.04 * blotches)
        case "curtain":
            return mix(first, 0.6 * first, 0.5 + 0.5 * np.sin(rows * 6 * u + 0.7 * blotches))
        case _:
            patches = np.stack([noise(rng, side, 6, 6) for _ in range(3)])
            return np.clip(first[:, None, None] * (1 + 0.2 * blotches) + 0.1 * patches, 0.02, 1)


def _prop(canvas: Canvas, rng: np.random.Generator, y: float) -> None:
    """Draw an object in a colour that skin could have: ball, vase, cushion or post, at the height `y`."""
    x, s = rng.uniform(0, 1), rng.uniform(0.06, 0.17)
    bend = rng.uniform(0.1, 0.8)
    half = [(0.35, -1.3), (0.3, -0.9), (bend + 0.2, -0.1), (bend, 0.8), (0.4, 1.3)]
    shapes = {
        "ball": ellipse(0, 0, 1, 1),
        "vase": smooth([*half, *((-a, b) for a, b in half[::-1])]),
        "cushion": smooth([(-1.2, -0.9), (1.2, -0.9), (1.2, 0.9), (-1.2, 0.9)]),
        "post": limb((0, -1), (rng.normal(0, 1), 8), 0.3, 0.3),
    }
    outline = shapes[rng.choice(list(shapes))] * s + (x, y)
    paint = any_colour(rng, 0.4) if rng.random() < 0.7 else cloth(rng, canvas.side, 0.4)
    canvas.fill(outline * canvas.side, paint, relief=0.4)


def _photograph(rgb: Array, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Return the scene `(size, size, 3)` in coloured light, seen by a soft lens and a noisy sensor."""
    rgb = np.stack([cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA) for plane in rgb])
    along, _ = axes(size, rng.uniform(0, 2 * np.pi))
    strong = rng.choice([1, 3], p=[0.94, 0.06])
    # Light varies far more from warm to cool than from green to magenta.
    warm, green = rng.normal(0, 0.04 * strong, (2, 1)), rng.normal(0, 0.015 * strong, (2, 1))
    here, there = np.exp(warm * (1, 0, -1) + green * (-0.5, 1, -0.5)) * rng.uniform(0.85, 1.15, (2, 1))
    rgb = rgb * mix(here, there, along)
    if rng.random() < 0.2:  # the shadow of something outside the image
        edge = (along - rng.uniform(0.3, 0.7)) / rng.uniform(0.01, 0.08)
        rgb *= 1 - 0.45 / (1 + np.exp(-np.clip(edge, -30, 30)))
    rgb = cv2.GaussianBlur(np.ascontiguousarray(rgb.transpose(1, 2, 0)), (0, 0), size / 256 * rng.uniform(0.3, 1.2))
    grain = rng.uniform(0.006, 0.028) * rng.standard_normal(rgb.shape, np.float32)
    return np.round(255 * np.clip(rgb + grain, 0, 1)).astype(np.uint8)


def make_portraits(root: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Draw the data set into `root`, once: `images/`, `masks/`, `train.txt`, `val.txt`, `test.txt`, `VERSION`.

    It is drawn beside `root` and moved there when complete, so an interrupted run leaves nothing behind, and of several
    concurrent processes the first wins. Complete data is left untouched.

    Args:
        root: The folder to create.
        progress: Called with the number of images drawn and in all.

    Raises:
        UserError: `root` contains anything else or cannot be written.
    """
    root = root.absolute()
    if _complete(root):
        return
    if os.path.lexists(root) and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f"{root} contains something other than the complete built-in portraits, version {VERSION}; "
            "expected no folder or an empty one. Move it away, or set data.root to another folder."
        )
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as workshop:
            draft = Path(workshop) / root.name
            _draw_all(draft, progress)
            if root.is_dir() and not _complete(root):
                root.rmdir()  # it is empty, but Windows cannot rename over it
            if not _complete(root):
                draft.rename(root)
    except OSError as error:
        if not _complete(root):
            raise UserError(
                f"Cannot write the built-in portraits to {root}: {why(error)} Set data.root to a writable folder."
            ) from error


def _splits() -> dict[str, list[str]]:
    seeds = iter(range(sum(SPLITS.values())))
    return {split: [_stem(next(seeds)) for _ in range(count)] for split, count in SPLITS.items()}


def _stem(seed: int) -> str:
    return f"portrait_{seed:04d}"


def _complete(root: Path) -> bool:
    marker = root / "VERSION"
    if not marker.is_file() or marker.read_text().strip() != VERSION:
        return False
    stems = [stem for group in _splits().values() for stem in group]
    images = [root / part / f"{stem}.png" for part in ("images", "masks") for stem in stems]
    return all(path.is_file() for path in [*images, *(root / f"{split}.txt" for split in SPLITS)])


def _draw_all(folder: Path, progress: Callable[[int, int], None] | None) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for split, stems in _splits().items():
        (folder / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    total = sum(SPLITS.values())

    def draw(seed: int) -> None:
        rgb, mask = draw_scene(seed, SIDE)
        for part, image in (("images", rgb[..., ::-1]), ("masks", mask)):
            (folder / part / f"{_stem(seed)}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())

    # NumPy and OpenCV release the global interpreter lock, so threads suffice.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        try:
            for done, _ in enumerate(pool.map(draw, range(total)), 1):
                if progress:
                    progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the rest
            raise
    (folder / "VERSION").write_text(f"{VERSION}\n")
