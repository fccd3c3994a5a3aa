"""Videos and cameras, frame by frame, through OpenCV."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.errors import UserError

_OF_A_CAMERA = 25.0  # frames per second, where a source gives none


class Video:
    """A video or a camera: iterate for its frames, RGB (H, W, 3), turned as they are meant to be seen.

    `announced` is how many frames there should be, None where that is unknown; `rate` is frames per second.
    """

    def __init__(self, source: int | Path, most: int | None = None) -> None:
        """Open a video, of which at most so many frames are read.

        Raises:
            UserError: It cannot be opened.
        """
        self.source, self.most = source, most
        self.capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self.capture.isOpened():
            raise UserError(
                f"camera:{source} cannot be opened: expected one that is connected, and that you may use."
                if isinstance(source, int)
                else f"{source}: cannot be opened as a video; it is damaged, or OpenCV has no decoder for it."
            )
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _OF_A_CAMERA
        count = 0 if isinstance(source, int) else max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.announced = min(count, most or count) or most

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Read on."""
        number = 0
        while number != self.most:
            done, frame = self.capture.read()
            if not done:
                return
            number += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)

    def close(self) -> None:
        """Let go of the camera or file."""
        self.capture.release()


@contextmanager
def clip(path: Path, rate: float) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Write an MP4 (MPEG-4 part 2, which the usual OpenCV writes), hidden until it is complete.

    However the block ends, the frames up to then are kept. The format has even sides: an odd one loses its last row or
    column.

    Yields:
        A function that adds a frame, RGB (H, W, 3).

    Raises:
        UserError: It cannot be written.
    """
    hidden = path.with_name(f".{path.stem}.partial.mp4")  # OpenCV goes by the ending
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
                    "Give overlays=false; the masks are written as pictures."
                )
        writer.write(cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR))

    try:
        yield add
    finally:
        if writer is not None:
            writer.release()
            hidden.replace(path)
