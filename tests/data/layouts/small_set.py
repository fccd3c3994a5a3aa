"""One small data set, which `cases.py` writes as people and tools keep data sets."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, eq=False)
class Sample:
    """A photo, as a JPEG file, and its mask (H, W), true for the object; and what else is known of it."""

    name: str
    number: int
    split: str
    person: str
    day: str
    photo: bytes
    mask: NDArray[np.bool_]

    def png(self, value: int = 255) -> bytes:
        """Return the mask as a PNG file in which the object has a value."""
        return encoded(Image.fromarray(self.mask * np.uint8(value)), "PNG")

    def filled(self, template: str) -> str:
        """Return a path in which `{name}` and so on stand for what is known of the sample."""
        words = {
            "NAME": self.name.upper(),
            "rank": str(self.number - {"train": 0, "val": 6, "test": 8}[self.split]),
            "valid": {"val": "valid"}.get(self.split, self.split),
            "long": {"train": "training", "val": "validation", "test": "testing"}[self.split],
            "short": {"train": "train", "val": "test", "test": "test"}[self.split],
        }
        return template.format(**words, **{key: value for key, value in vars(self).items()})


@cache
def small_set() -> Sequence[Sample]:
    """Return nine samples of three persons, six of them to train on."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(1, 10):
        height, width = 16 + number, 24
        photo = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        mask = np.zeros((height, width), np.bool_)
        mask[2 : 5 + number, number : number + 8] = True
        split = "train" if number < 7 else "val" if number < 9 else "test"
        person, day = f"p{(number - 1) // 3}", f"day{number % 3}"
        samples.append(Sample(f"img_{number:02}", number, split, person, day, encoded(photo, "JPEG"), mask))
    return samples


def encoded(image: Image.Image, kind: str) -> bytes:
    """Return an image as a file of a kind."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def put(root: Path, path: str, content: bytes | str = b"") -> None:
    """Write a file, and the folders that it is in."""
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content.encode() if isinstance(content, str) else content)
