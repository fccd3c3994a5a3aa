"""A contact sheet: thumbnails with their masks, to see at a glance whether the data is right."""

from collections.abc import Collection, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtune.data.checks.scan import SampleStats
from segtune.data.labels import Foreground
from segtune.data.overlays import RGBImage, striped, tinted
from segtune.metrics import VOID
from segtune.runtime.sampling import evenly_spaced

_SIDE, _LINE, _GAP, _COLUMNS = 200, 16, 8, 8
_INK, _WARNED, _OBJECT = (40, 40, 40), (210, 40, 30), (255, 0, 200)


def choose(seen: Sequence[SampleStats], suspects: Collection[str], most: int) -> list[SampleStats]:
    """Return images for the sheet: at most half of it suspects, by name, the rest equally from all splits."""
    marked = [one for one in seen if one.pair.name in suspects]
    chosen = evenly_spaced(marked, most // 2)
    others: dict[str, list[SampleStats]] = {}
    for one in seen:
        if one.pair.name not in suspects:
            others.setdefault(one.split, []).append(one)
    sampled: dict[str, list[SampleStats]] = {}
    left = most - len(chosen)
    for number, split in enumerate(sorted(others, key=lambda split: len(others[split]))):
        sampled[split] = evenly_spaced(others[split], left // (len(others) - number))
        left -= len(sampled[split])
    return chosen + [one for split in others for one in sampled[split]]


def contact_sheet(
    chosen: Sequence[SampleStats], suspects: Collection[str], foreground: Foreground, max_value: int | None = None
) -> RGBImage:
    """Return a sheet of images in rows of eight, with name and split below each; suspects are in red.

    `max_value` is white in photos of 16 bits, None for 65535.

    Raises:
        ImageError: A file can no longer be read.
    """
    columns = min(len(chosen), _COLUMNS)
    width, height = _SIDE + _GAP, _SIDE + 2 * _LINE + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, -(-len(chosen) // columns) * height + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for number, one in enumerate(chosen):
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        small = _small(one, foreground, max_value)
        middle = (left + (_SIDE - small.shape[1]) // 2, top + _SIDE - small.shape[0])
        sheet.paste(Image.fromarray(small), middle)
        ink = _WARNED if one.pair.name in suspects else _INK
        if ink == _WARNED:
            draw.rectangle((left - 3, top - 3, left + _SIDE + 2, top + _SIDE + 2), outline=_WARNED, width=3)
        name = _fitting(one.pair.name, font)
        draw.text((left, top + _SIDE + 2), name, fill=ink, font=font)
        draw.text((left, top + _SIDE + 2 + _LINE), _fitting(_facts(one), font), fill=ink, font=font)
    return np.asarray(sheet)


def _facts(one: SampleStats) -> str:
    """Return the line below a name."""
    parts = [one.split, f"{one.fraction:.1%} foreground"] + ([f"{one.void:.1%} void"] if one.void else [])
    if one.turned_apart:
        photo, mask = (orientation > 1 for orientation in one.orientations)
        parts.append("both turned" if photo and mask else "photo turned" if photo else "mask turned")
    return ", ".join(parts)


def _small(one: SampleStats, foreground: Foreground, max_value: int | None) -> RGBImage:
    """Return a thumbnail of a pair's image, with the mask tinted and outlined, and void striped."""
    photo, mask = one.pair.read_photo(max_value), foreground(one.pair.read_mask())
    scale = _SIDE / max(photo.shape[:2])
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    labels = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT))
    return striped(tinted(np.asarray(small, np.uint8), labels == 1, _OBJECT, _OBJECT, 0.35), labels == VOID)


def _fitting(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a name, shortened in its middle until it fits below an image."""
    short, keep = name, len(name)
    while font.getlength(short) > _SIDE and keep > 4:
        keep -= 1
        short = f"{name[: keep // 2]}…{name[len(name) - (keep - keep // 2) :]}"
    return short
