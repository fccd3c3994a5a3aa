"""The TensorBoard files of a run."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from segtune.data.overlays import RGBImage, jpeg

log = logging.getLogger(__name__)

Axis = Literal["epoch", "step"]
_NONE: Mapping[str, Any] = MappingProxyType({})


class TensorBoard:
    """What a run shows in TensorBoard: by epoch in `tensorboard/`, by optimizer step in `tensorboard/steps/`.

    Two folders, because what a resume takes back counts for all of a folder. If their files cannot be written, a
    warning says so once, and nothing more is written: the curves of the epochs are in `metrics.csv` too.
    """

    def __init__(self, folder: Path, epochs: int, steps: int) -> None:
        """Begin new files in a run's folder, which take back what earlier ones hold beyond some `epochs` and `steps`.

        `is_new` tells whether there were none.
        """
        place = folder / "tensorboard"
        self.is_new = not any(place.glob("*tfevents*"))
        self.writers: dict[Axis, SummaryWriter] = {}
        with self._disabled_on_error():
            self.writers["epoch"] = SummaryWriter(str(place), purge_step=epochs + 1)
            self.writers["step"] = SummaryWriter(str(place / "steps"), purge_step=steps + 1)

    def write(
        self,
        axis: Axis,
        at: int,
        scalars: Mapping[str, float] = _NONE,
        images: Mapping[str, RGBImage] = _NONE,
        texts: Mapping[str, str] = _NONE,
    ) -> None:
        """Write values by tag, at an epoch or a step; they are in the file when this returns, whatever comes then."""
        with self._disabled_on_error():
            if writer := self.writers.get(axis):
                for tag, value in scalars.items():
                    writer.add_scalar(tag, value, at)
                for tag, image in images.items():
                    writer._get_file_writer().add_summary(_image(tag, image), at)  # type: ignore[no-untyped-call]
                for tag, text in texts.items():
                    writer.add_text(tag, text, at)
                writer.flush()

    def close(self) -> None:
        """Close the files."""
        with self._disabled_on_error():
            for writer in self.writers.values():
                writer.close()

    @contextmanager
    def _disabled_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("The TensorBoard file cannot be written (%s); metrics.csv is still written.", error)
            self.writers = {}


def _image(tag: str, image: RGBImage) -> Summary:
    """Return an image as JPEG, which takes a fraction of the PNG that SummaryWriter would write."""
    height, width, _ = image.shape
    encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=jpeg(image, quality=90))
    return Summary(value=[Summary.Value(tag=tag, image=encoded)])
