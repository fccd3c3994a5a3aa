"""Frames come in order, with their colours; what was written before an error stays."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from segtune.errors import FailedError, UserError
from segtune.inference.video import Video, clip

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (120, 120, 120)]


def frames(size: tuple[int, int] = (40, 60)) -> list[np.ndarray]:
    return [np.full((*size, 3), colour, np.uint8) for colour in COLOURS]


def write(path: Path, size: tuple[int, int] = (40, 60), rate: float = 12.5) -> None:
    """Write the frames as lossless as OpenCV can everywhere: motion JPEG."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, size[::-1])
    for frame in frames(size):
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


def colours(path: Path) -> list[np.ndarray]:
    return [frame.mean((0, 1)) for frame in Video(path)]


def test_frames_are_rgb_and_in_order(tmp_path: Path) -> None:
    write(tmp_path / "film.avi")
    video = Video(tmp_path / "film.avi")
    assert (video.announced, video.rate) == (4, 12.5)
    found = list(video)
    video.close()
    assert [frame.shape for frame in found] == [(40, 60, 3)] * 4
    assert all(frame.dtype == np.uint8 for frame in found)
    np.testing.assert_allclose([frame.mean((0, 1)) for frame in found], COLOURS, atol=12)


def test_at_most_so_many_frames_are_read(tmp_path: Path) -> None:
    write(tmp_path / "film.avi")
    for most, count in ((1, 1), (3, 3), (9, 4)):
        video = Video(tmp_path / "film.avi", most)
        assert video.announced == count
        assert len(list(video)) == count


class Camera:
    """Stands in for OpenCV's camera: it knows neither its frame rate nor a number of frames."""

    def __init__(self, opened: bool) -> None:
        self.isOpened = lambda: opened
        self.released = False

    def get(self, _: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((4, 4, 3), np.uint8)

    def release(self) -> None:
        self.released = True


def test_a_camera_has_no_end_and_a_usual_frame_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: Camera(opened=source == 0))
    video = Video(0)
    assert (video.announced, video.rate) == (None, 25.0)
    assert Video(0, 7).announced == len(list(Video(0, 7))) == 7
    video.close()
    assert video.capture.released
    with pytest.raises(UserError, match=r"^camera:1 cannot be opened\. Check that it is connected"):
        Video(1)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(UserError, match=r"text\.mp4: cannot be opened as a video; it is damaged, or OpenCV has no dec"):
        Video(tmp_path / "text.mp4")


def test_a_clip_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "clip.mp4"
    with clip(path, 12.5) as add:
        for frame in frames():
            add(frame)
        assert [each.name for each in path.parent.iterdir()] == [".clip.partial.mp4"]
    assert [each.name for each in path.parent.iterdir()] == ["clip.mp4"]
    np.testing.assert_allclose(colours(path), COLOURS, atol=12)
    assert Video(path).rate == 12.5


def test_a_clip_drops_the_last_row_and_column_of_odd_frames(tmp_path: Path) -> None:
    with clip(tmp_path / "clip.mp4", 25) as add:
        add(frames((41, 61))[0])
    assert next(iter(Video(tmp_path / "clip.mp4"))).shape == (40, 60, 3)


def test_a_clip_keeps_the_frames_before_an_error(tmp_path: Path) -> None:
    def stop() -> None:
        with clip(tmp_path / "clip.mp4", 25) as add:
            add(frames()[0])
            add(frames()[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    np.testing.assert_allclose(colours(tmp_path / "clip.mp4"), COLOURS[:2], atol=12)


def test_a_clip_without_frames_is_no_file(tmp_path: Path) -> None:
    with clip(tmp_path / "new" / "clip.mp4", 25):
        pass
    assert not list(tmp_path.iterdir())


class Closed:
    """A writer that has no encoder."""

    def __init__(self, *_: object) -> None:
        pass

    fourcc = staticmethod(cv2.VideoWriter.fourcc)

    def isOpened(self) -> bool:
        return False


def test_a_clip_that_cannot_be_written_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    with pytest.raises(UserError) as error, clip(tmp_path / "clip.mp4", 25) as add:
        add(frames()[0])
    assert str(error.value) == (
        f"{tmp_path / 'clip.mp4'} cannot be written as 60 x 40 pixels at 25 frames per second. "
        "Set overlays=false; the masks are written as images."
    )
    assert not list(tmp_path.iterdir())


class Damaged:
    """Stands in for OpenCV's reader: the time of each frame in frames, None where it cannot be read; then no more."""

    def __init__(self, times: list[float | None], count: int, rate: float = 25.0) -> None:
        self.times, self.facts = iter(times), {cv2.CAP_PROP_FRAME_COUNT: count, cv2.CAP_PROP_FPS: rate}
        self.time = 0.0

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return self.time * 40 if what == cv2.CAP_PROP_POS_MSEC else self.facts[what]

    def read(self) -> tuple[bool, np.ndarray | None]:
        time = next(self.times, None)
        self.time = self.time if time is None else time
        return time is not None, None if time is None else np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "times", "count", "most", "numbers", "lost"),
    [
        ("a.mp4", [0, 1, 2, 3], 4, None, [1, 2, 3, 4], 0),
        ("a.mp4", [0, None, None, 3], 4, None, [1, 4], 2),  # frames that cannot be decoded
        ("a.mp4", [0, 1, 2], 9, None, [1, 2, 3], 6),  # cut off
        ("a.mp4", [0, None, 2, 3], 9, 3, [1, 3], 1),  # at most three
        ("a.mp4", [0, 1, 2], 9, 3, [1, 2, 3], 0),
        ("a.mp4", [0, 1.4, 5, 6.1], 4, None, [1, 2, 3, 4], 0),  # of varying frame rate
        ("a.mkv", [0, 1, 2.02, 5, 6], 7, None, [1, 2, 3, 6, 7], 2),  # of which only the times tell
        ("a.webm", [0, 1.4, 2.8, 7, 8], 9, None, [1, 2, 3, 4, 5], 0),  # of varying frame rate: nothing is certain
        ("a.webm", [0, 1, 2], 3, None, [1, 2, 3], 0),
        ("a.webm", [0, 1, 2], 10, None, [1, 2, 3], 0),  # the sound may be longer than the pictures
        ("a.webm", [0, 1, 2], 30, None, [1, 2, 3], 27),
        ("a.mpg", [0, 1, 2], 9, None, [1, 2, 3], 0),  # the number is a guess
        ("a.mpg", [0, None, 2], 9, None, [1, 3], 1),
        ("a.mp4", [0, 1], 10**9, 10**8, [1, 2], 10**8 - 2),  # any number may be announced
        ("a.mkv", [0, 1, 2], -(10**17), None, [1, 2, 3], 0),
    ],
)
def test_frames_keep_their_numbers_and_lost_ones_are_counted(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    times: list[float | None],
    count: int,
    most: int | None,
    numbers: list[int],
    lost: int,
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Damaged(times, count))
    video = Video(Path(name), most)
    assert [number for number, _ in video.numbered()] == numbers
    assert (video.read, video.lost()) == (len(numbers), lost)


def test_a_clip_that_has_lost_frames_is_said_to(tmp_path: Path) -> None:
    """OpenCV does not tell that a frame of another size, or on a full disk, was not written."""

    def add_two_sizes() -> None:
        with clip(tmp_path / "clip.mp4", 25) as add:
            add(frames()[0])
            add(frames((20, 30))[1])

    with pytest.raises(FailedError) as error:
        add_two_sizes()
    assert str(error.value) == (
        f"{tmp_path / 'clip.mp4'} holds 1 of its 2 frames: the disk is full, or the frames differ in size."
    )


def test_a_clip_whose_name_is_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").mkdir()

    def add_one() -> None:
        with clip(tmp_path / "clip.mp4", 25) as add:
            add(frames()[0])

    with pytest.raises(FailedError, match=r"^Cannot write .*clip\.mp4: there is a folder of this name \(Is"):
        add_one()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
