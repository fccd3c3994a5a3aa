"""The command `predict`: write masks for images, folders, videos and cameras."""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.config.command_settings import PredictSettings
from segtune.data.images import ImageError, load_photo
from segtune.data.overlays import Mask, RGBImage, jpeg, tinted
from segtune.data.value_range import remarks
from segtune.errors import FailedError, Interrupted, UserError
from segtune.inference.inputs import Source, find_images, find_video, left_out
from segtune.inference.predictor import Prediction, Predictor, load_as
from segtune.inference.tally import Tally, count, reason
from segtune.inference.video import Video, clip
from segtune.runtime.console import bar, say, set_up_logging
from segtune.runtime.paths import expanded

#: The kinds of output, each in a folder of its own, with their file endings.
ENDINGS = {"masks": ".png", "probabilities": ".png", "overlays": ".jpg"}

#: The longest side that JPEG, as OpenCV writes it, can have.
_LONGEST_JPEG = 65_500
_TINT, _OUTLINE = (64, 200, 90), (30, 255, 90)


def predict(settings: PredictSettings) -> None:
    """Predict masks, and write the outputs that the settings ask for.

    Raises:
        UserError: The settings, the checkpoint, the input or the output cannot be used, or results exist already.
        FailedError: Some images or frames could not be read, predicted or written; the others are done.
        Interrupted: The user stopped it; finished results are written.
    """
    set_up_logging()
    kinds = [kind for kind in ENDINGS if getattr(settings, kind)]
    if not kinds:
        raise UserError(f"All outputs are off. Set at least one of {', '.join(f'{kind}=true' for kind in ENDINGS)}.")
    output = expanded(settings.output, "output")
    video = find_video(settings.input)
    if video is None and settings.frames:
        raise UserError(f"frames={settings.frames} is for a video or a camera, but input={settings.input} is neither.")
    if video is None:
        _images(settings, output, kinds)
    else:
        _video(settings, video, output, kinds)


def _images(settings: PredictSettings, output: Path, kinds: Sequence[str]) -> None:
    others = Counter[str]()
    sources = find_images(settings.input, own=[output / kind for kind in ENDINGS], others=others)
    if not settings.overwrite:
        _refuse([_target(output, kind, source.name) for source in sources for kind in kinds])
    predictor = load_as(settings)
    _create(output, kinds)
    say(f"{count(len(sources), 'image')}; {_how(predictor)}")
    if others:
        say(left_out(others))
    job, began = _Job(predictor, output, kinds, Tally("image"), settings.overwrite), time.perf_counter()
    try:
        with bar("predicting", len(sources)) as progress:
            for number, (source, image) in enumerate(_read(sources, predictor.max_value), start=1):
                if isinstance(image, Exception):
                    text = str(image) if isinstance(image, ImageError) else f"{source.path}: {reason(image)}"
                    job.tally.fail("read", source.path.name, text)
                else:
                    job.do(image, source.name, source.path.name, str(source.path))
                progress(number, "")
    except KeyboardInterrupt as error:
        done = f"{len(job.tally.shares)} of {count(len(sources), 'image')}"
        raise Interrupted(f"Stopped after {done}; finished results are in {output}.") from error
    if job.tally.shares:
        say(_summary(job.tally, output, time.perf_counter() - began))
    job.tally.check(len(sources))


@dataclass(frozen=True)
class _Job:
    """What all images or frames have in common."""

    predictor: Predictor
    output: Path
    kinds: Sequence[str]
    tally: Tally
    overwrite: bool

    def do(self, image: RGBImage, target: str, name: str, where: str) -> Prediction | None:
        """Predict an image, write its results, and note what failed; None if there is no prediction.

        Args:
            image: RGB, (H, W, 3).
            target: The name of its results, without extension.
            name: Its short name, for the list of those that failed.
            where: Its whole name, for messages.
        """
        try:
            prediction = self.predictor.predict(image)
        except Exception as error:  # whatever is wrong with this one, the others are predicted
            self.tally.fail("predicted", name, f"{where}: {reason(error)}")
            return None
        problems = []
        for kind in self.kinds:
            try:
                content = encoded(kind, image, prediction)
                self.tally.write(_target(self.output, kind, target), content, overwrite=self.overwrite)
            except Exception as error:
                problems.append(f"{kind}: {reason(error).splitlines()[0]}")
        if problems:
            self.tally.fail("written", name, f"{where}: {'; '.join(problems)}")
        else:
            self.tally.shares.append(float(prediction.mask.mean()))
        return prediction


def _read(sources: Sequence[Source], max_value: int | None) -> Iterator[tuple[Source, RGBImage | Exception]]:
    """Yield images, each read while the previous one is predicted, and print what is remarkable in a file.

    In the place of an image that cannot be read stands the error.
    """

    def read(source: Source) -> tuple[RGBImage | Exception, list[str]]:
        try:
            photo = load_photo(source.path)
            return photo.pixels(max_value), remarks(photo, max_value)
        except Exception as error:
            return error, []

    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(read, sources[0])
        for source, after in zip(sources, [*sources[1:], None], strict=True):
            image, said = following.result()
            if after:
                following = reader.submit(read, after)
            for remark in said:
                say(f"{source.path}: {remark}")
            yield source, image


def _video(settings: PredictSettings, source: int | Path, output: Path, kinds: Sequence[str]) -> None:
    name = f"camera{source}" if isinstance(source, int) else source.stem
    film = output / "overlays" / f"{name}.mp4"
    single = [kind for kind in kinds if kind != "overlays"]
    folders = [output / kind / name for kind in single]
    old = [path for folder in folders for path in sorted(folder.glob("*.png")) if re.fullmatch(r"\d{6,}", path.stem)]
    if not settings.overwrite:
        _refuse([*old, *([film] if "overlays" in kinds else [])])
    video = Video(source, settings.frames)
    tally, began, stopped, also = Tally("frame"), time.perf_counter(), False, list[str]()
    try:
        job = _Job(load_as(settings), output, single, tally, settings.overwrite)
        _create(output, kinds)
        for path in old:  # frames of a longer video would remain beside the new ones
            path.unlink()
        length = count(video.announced, "frame") if video.announced else "an unknown number of frames"
        say(f"{length}; {_how(job.predictor)}")
        overlays = clip(film, video.rate) if "overlays" in kinds else nullcontext()
        began = time.perf_counter()
        with bar("predicting", video.announced) as progress, overlays as add:
            for number, frame in video.numbered():
                prediction = job.do(frame, f"{name}/{number:06d}", f"{number:06d}", f"frame {number}")
                if add is not None and prediction is not None:
                    add(overlay(frame, prediction.mask))
                progress(number, "")
    except KeyboardInterrupt:
        stopped = True
    except FailedError as error:  # the overlay is incomplete
        also.append(str(error))
    finally:
        video.close()
    if stopped and not (isinstance(source, int) and tally.shares):  # stopping is how a camera ends
        raise Interrupted(f"Stopped after {count(len(tally.shares), 'frame')}; finished results are in {output}.")
    if not video.read:
        raise FailedError(f"{settings.input}: no frame could be read.")
    if tally.shares:
        say(_summary(tally, output, time.perf_counter() - began))
    if not stopped and (lost := video.lost()):
        also.append(
            f"{settings.input} is damaged: {lost} of its {video.read + lost} frames could not be read. "
            "The results of the others have the numbers that the frames have in it, as far as it tells."
        )
    elif not stopped and video.announced and video.read < video.announced:
        say(f"{settings.input} announces {video.announced} frames, but ends after {video.read}.")
    tally.check(video.read, also)


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


def _target(output: Path, kind: str, name: str) -> Path:
    return output / kind / f"{name}{ENDINGS[kind]}"


def _create(output: Path, kinds: Sequence[str]) -> None:
    """Create the folders for results: if that fails, it is for no single image to say.

    Raises:
        UserError: One cannot be created.
    """
    try:
        for kind in kinds:
            (output / kind).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={output} cannot be used: {error.filename}: {error.strerror}.") from error


def _refuse(targets: Sequence[Path]) -> None:
    """Raise a UserError if results exist already."""
    there = [str(path) for path in targets if path.exists() and not path.is_dir()]
    if there:
        raise UserError(
            f"{len(there)} results exist already, such as {there[0]}; nothing was written. "
            "Set another folder (output=…), or overwrite=true to replace them."
        )


def _how(predictor: Predictor) -> str:
    height, width = predictor.size
    how = f"in tiles of {predictor.tile} pixels" if predictor.tile else f"resized to {height} x {width} pixels"
    return f"{how}, threshold {predictor.threshold:g}, on {predictor.compute}"


def _summary(tally: Tally, output: Path, seconds: float) -> str:
    number, what = len(tally.shares), tally.what
    return (
        f"{count(number, what)} in {output}: {100 * sum(tally.shares) / number:.1f} % foreground on average, "
        f"{number / seconds:.3g} {what}s per second."
    )
