"""The files that `predict` writes: images of masks, probabilities and overlays, and annotations for other tools."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.config.output_settings import PolygonSettings
from segtune.data.overlays import Mask, RGBImage, jpeg, tinted
from segtune.errors import UserError
from segtune.inference.annotations.base import AnnotatedImage, Annotations
from segtune.inference.annotations.registry import FORMATS
from segtune.inference.inputs import Source
from segtune.inference.objects import find_objects
from segtune.inference.predictor import Prediction
from segtune.inference.tally import Tally, reason

#: The kinds of images, each in a folder of its own, with their file endings.
ENDINGS = {"masks": ".png", "probabilities": ".png", "overlays": ".jpg"}

#: The longest side that JPEG, as OpenCV writes it, can have.
_LONGEST_JPEG = 65_500
_TINT, _OUTLINE = (64, 200, 90), (30, 255, 90)


@dataclass(frozen=True)
class Results:
    """The results of all images or frames: images of some `kinds`, and `annotations`.

    `tally` knows what was written.
    """

    output: Path
    kinds: Sequence[str]
    tally: Tally
    overwrite: bool
    annotations: Sequence[Annotations] = ()
    polygons: PolygonSettings | None = None

    def write(self, source: Source, image: RGBImage, prediction: Prediction) -> list[str]:
        """Write the results of an image, RGB (H, W, 3), and return what failed."""
        problems = []
        for kind in self.kinds:
            try:
                self._write(target(self.output, kind, source.name), encoded(kind, image, prediction))
            except Exception as error:  # whatever is wrong with this one, the others are written
                problems.append(f"{kind}: {reason(error).splitlines()[0]}")
        return problems + (self._annotate(source, prediction) if self.annotations else [])

    def _annotate(self, source: Source, prediction: Prediction) -> list[str]:
        height, width = prediction.mask.shape
        objects = find_objects(*prediction, self.polygons or PolygonSettings(), self.annotations[0].category)
        image, problems = AnnotatedImage(source, height, width, objects), list[str]()
        for each in self.annotations:
            try:
                content = each.add(image)
                if name := each.file_of(source):
                    self._write(each.folder / name, content.encode())
                each.link(source)
            except Exception as error:
                problems.append(f"{each.folder.name}: {reason(error).splitlines()[0]}")
        return problems

    def finish(self) -> list[str]:
        """Write the files that hold all images, if there are any, and return what failed."""
        problems, any_done = list[str](), self.tally.shares or self.tally.failed.get("written")
        for each in self.annotations:
            if each.shared and any_done:
                try:
                    self._write(each.folder / each.shared, each.content().encode())
                except UserError as error:
                    problems.append(str(error))
        return problems

    def _write(self, path: Path, content: bytes) -> None:
        self.tally.write(path, content, overwrite=self.overwrite)


def target(output: Path, kind: str, name: str) -> Path:
    """Return the file of an image's result of a kind."""
    return output / kind / f"{name}{ENDINGS[kind]}"


def targets(output: Path, kinds: Sequence[str], formats: Sequence[str], sources: Sequence[Source]) -> list[Path]:
    """Return all files that images of some `kinds` and annotations in some `formats` need."""
    files = [target(output, kind, source.name) for source in sources for kind in kinds]
    for name in formats:
        files += [output / name / FORMATS[name].shared] if FORMATS[name].shared else []
        files += [output / name / file for source in sources if (file := FORMATS[name].file_of(source))]
    return files


def encoded(kind: str, image: RGBImage, prediction: Prediction) -> bytes:
    """Return the bytes of a mask of 0 and 255, probabilities of 16 bits (65535 is 1), or an overlay.

    Raises:
        UserError: The format cannot hold an image of this size.
    """
    content: NDArray[np.unsignedinteger]
    match kind:
        case "masks":
            content = prediction.mask.astype(np.uint8) * np.uint8(255)
        case "probabilities":
            scaled = prediction.probability * np.float32(65535)
            content = np.rint(scaled, out=scaled).astype(np.uint16)
        case _:
            height, width = image.shape[:2]
            if max(height, width) > _LONGEST_JPEG:
                raise UserError(f"got {height} x {width} pixels, but JPEG holds at most {_LONGEST_JPEG} a side")
            return jpeg(overlay(image, prediction.mask), quality=95)
    done, data = cv2.imencode(ENDINGS[kind], content)
    if not done:
        raise UserError(f"OpenCV cannot encode an image of shape {content.shape} as {ENDINGS[kind]}.")
    return data.tobytes()


def overlay(image: RGBImage, mask: Mask) -> RGBImage:
    """Return a copy of an RGB image (H, W, 3) with its mask (H, W) tinted and outlined, wider in larger images."""
    return tinted(image, mask, _TINT, _OUTLINE, 0.4, max(1, round(max(mask.shape) / 600)))
