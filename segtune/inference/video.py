"""Reading videos and cameras frame by frame, and writing videos, with OpenCV."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.errors import FailedError, UserError
from segtune.runtime.write_errors import naming_write_errors, why

_DEFAULT_FPS = 25.0  # where a source reports no frame rate

#: Formats that state how many frames they hold, and those where the number follows from length and frame rate. In
#: others it is a guess.
_COUNTED = frozenset({".3gp", ".avi", ".gif", ".m4v", ".mov", ".mp4"})
_TIMED = frozenset({".flv", ".mkv", ".webm"})
_MOST_FAILURES = 10_000  # of successive reads; a damaged file may announce any number of frames


class Video:
    """A video or a camera: an iterable of its frames, RGB (H, W, 3), rotated as the file's metadata say.

    `announced` is the expected number of frames, None where it is unknown; `rate` is in frames per second; `read` is
    the number of frames read so far.
    """

    def __init__(self, source: int | Path, most: int | None = None) -> None:
        """Open a video or camera, of which at most the first `most` frames are read.

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
        self.count = 0 if isinstance(source, int) else max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.announced = min(self.count, most or self.count) or most
        self.read = 0
        self._format = "" if isinstance(source, int) else source.suffix.lower()
        self._last, self._gaps = 0, 0  # the number of the last frame read, and of the frames that are missing before it
        self._time, self._steady = 0.0, self._format in _TIMED  # the time of the last frame read, in frames

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the next frame until the end or the limit."""
        return (frame for _, frame in self.numbered())

    def numbered(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield each frame that can be read, and its number in the video, from 1.

        A frame that is damaged has a number too. Where the format tells no more than the times of the frames, a gap
        between two, in a video that has had none, stands for as many frames as fit into it.
        """
        failures = 0
        while self.most is None or self._last + failures < self.most:
            done, frame = self.capture.read()
            if not done:
                failures += 1
                if self._last + failures >= self.count or failures >= _MOST_FAILURES:
                    return
                continue
            missing = max(failures, self._missing_by_time())
            self._gaps += missing
            self._last += missing + 1
            self.read, failures = self.read + 1, 0
            if self.most is None or self._last <= self.most:
                yield self._last, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)

    def _missing_by_time(self) -> int:
        before, self._time = self._time, self.capture.get(cv2.CAP_PROP_POS_MSEC) * self.rate / 1000
        step = self._time - before
        # A video whose frames are not evenly spaced tells nothing by its times.
        self._steady = self._steady and (self.read == 0 or (step > 0.8 and abs(step - round(step)) < 0.2))
        return round(step) - 1 if self._steady and self.read else 0

    def lost(self) -> int:
        """Return how many of its frames the video did not give, after all have been read; 0 where that is a guess."""
        expected = min(self.count, self.most or self.count)
        at_end = max(0, expected - self._last)
        certain = self._format in _COUNTED or (self._format in _TIMED and at_end > self.rate / 2)
        return self._gaps + (at_end if certain else 0)

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
        FailedError: Frames are missing in it, as on a full disk.
    """
    hidden = path.with_name(f".{path.stem}.partial.mp4")  # OpenCV chooses the format by the extension
    writer: cv2.VideoWriter | None = None
    added = 0

    def add(frame: NDArray[np.uint8]) -> None:
        nonlocal writer, added
        height, width = (length // 2 * 2 for length in frame.shape[:2])
        if writer is None:
            with naming_write_errors(str(path)):
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
        added += 1

    try:
        yield add
    finally:
        if writer is not None:
            writer.release()
            _rename(hidden, path)
    if added and (held := _frames_in(path)) < added:  # OpenCV does not say that it could not write
        raise FailedError(f"{path} holds {held} of its {added} frames: the disk is full, or the frames differ in size.")


def _rename(hidden: Path, path: Path) -> None:
    try:
        hidden.replace(path)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        raise FailedError(f"Cannot write {path}: {why(error)}") from error


def _frames_in(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    held = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return held
