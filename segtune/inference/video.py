"""Reading videos and cameras frame by frame, and writing videos, with OpenCV."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.errors import UserError

_DEFAULT_FPS = 25.0  # where a source reports no frame rate


class Video:
    """A video or a camera: an iterable of its frames, RGB (H, W, 3), rotated as the file's metadata say.

    `announced` is the expected number of frames, None where it is unknown; `rate` is in frames per second.
    """

    def __init__(self, source: int | Path, most: int | None = None) -> None:
        """Open a video or camera, of which at most `most` frames are read.

        Raises:
            UserError: It cannot be opened.
        """
        self.source, self.most = source, most
        self.capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self.capture.isOpened():
            raise UserError(
                f"camera:{source} cannot be opened. Check that it is connected and that you have access to it."
                if isinstance(source, int)
                else f"{source}: cannot be opened as a video; it is damaged, or OpenCV has no decoder for it."
            )
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _DEFAULT_FPS
        count = 0 if isinstance(source, int) else max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.announced = min(count, most or count) or most

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the next frame until the end or the limit."""
        number = 0
        while number != self.most:
            done, frame = self.capture.read()
            if not done:
                return
            number += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)

    def close(self) -> None:
        """Release the camera or file."""
        self.capture.release()


@contextmanager
def clip(path: Path, rate: float) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Write an MP4 (MPEG-4 part 2, which usual builds of OpenCV can write), under a hidden name until it is complete.

    However the block ends, the frames written so far are kept. The format needs even sides: of an odd one the last row
    or column is dropped.

    Yields:
        A function that adds a frame, RGB (H, W, 3).

    Raises:
        UserError: The file cannot be written.
    """
    hidden = path.with_name(f".{path.stem}.partial.mp4")  # OpenCV chooses the format by the extension
    writer: cv2.VideoWriter | None = None

    def add(frame: NDArray[np.uint8]) -> None:
        nonlocal writer
        height, width = (length // 2 * 2 for length in frame.shape[:2])
        if writer is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = cv2.VideoWriter(str(hidden), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
            if not writer.isOpened():
                writer = None
                hidden.unlink(missing_ok=True)
                raise UserError(
                    f"{path} cannot be written as {width} x {height} pixels at {rate:g} frames per second. "
                    "Set overlays=false; the masks are written as images."
                )
        writer.write(cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR))

    try:
        yield add
    finally:
        if writer is not None:
            writer.release()
            hidden.replace(path)
