"""The command `predict`: write masks for images, folders, videos and cameras."""

import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segtune.config.command_settings import PredictSettings
from segtune.data.images import ImageError, load_photo
from segtune.data.overlays import Mask, RGBImage, jpeg, tinted
from segtune.data.value_range import remarks
from segtune.errors import FailedError, Interrupted, UserError, some
from segtune.inference.inputs import Source, find_images, find_video
from segtune.inference.predictor import Prediction, Predictor, load_as
from segtune.inference.video import Video, clip
from segtune.runtime.console import bar, say, set_up_logging
from segtune.runtime.files import write_atomically

#: The kinds of output, each in a folder of its own, with their file endings.
ENDINGS = {"masks": ".png", "probabilities": ".png", "overlays": ".jpg"}

_TINT, _OUTLINE = (64, 200, 90), (30, 255, 90)


def predict(settings: PredictSettings) -> None:
    """Predict masks, and write the outputs that the settings ask for.

    Raises:
        UserError: The settings, the checkpoint or the input cannot be used, or results exist already.
        FailedError: Some images could not be read; the others are done.
        Interrupted: The user stopped it; finished results are written.
    """
    set_up_logging()
    kinds = [kind for kind in ENDINGS if getattr(settings, kind)]
    if not kinds:
        raise UserError(f"All outputs are off. Set at least one of {', '.join(f'{kind}=true' for kind in ENDINGS)}.")
    output = Path(settings.output).expanduser()
    video = find_video(settings.input)
    if video is None and settings.frames:
        raise UserError(f"frames={settings.frames} is for a video or a camera, but input={settings.input} is neither.")
    if video is None:
        _images(settings, output, kinds)
    else:
        _video(settings, video, output, kinds)


def _images(settings: PredictSettings, output: Path, kinds: Sequence[str]) -> None:
    sources = find_images(settings.input, own=[output / kind for kind in ENDINGS])
    if not settings.overwrite:
        _refuse([_target(output, kind, source.name) for source in sources for kind in kinds])
    predictor = load_as(settings)
    say(f"{_count(len(sources), 'image')}; {_how(predictor)}")
    unread, shares, began = list[str](), list[float](), time.perf_counter()
    try:
        with bar("predicting", len(sources)) as progress:
            for number, (source, image) in enumerate(_read(sources, predictor.max_value), start=1):
                if isinstance(image, ImageError):
                    say(f"skipped: {image}")
                    unread.append(source.path.name)
                else:
                    prediction = predictor.predict(image)
                    for kind in kinds:
                        write_atomically(_target(output, kind, source.name), encoded(kind, image, prediction))
                    shares.append(float(prediction.mask.mean()))
                progress(number, "")
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"Stopped after {len(shares)} of {_count(len(sources), 'image')}; finished results are in {output}."
        ) from error
    if shares:
        say(_summary(shares, "image", output, time.perf_counter() - began))
    if unread:
        raise FailedError(f"{len(unread)} of {_count(len(sources), 'image')} could not be read: {some(unread)}.")


def _read(sources: Sequence[Source], max_value: int | None) -> Iterator[tuple[Source, RGBImage | ImageError]]:
    """Yield images, each read while the previous one is predicted, and print what is remarkable in a file."""

    def read(source: Source) -> tuple[RGBImage | ImageError, list[str]]:
        try:
            photo = load_photo(source.path)
        except ImageError as error:
            return error, []
        return photo.pixels(max_value), remarks(photo, max_value)

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
    folders = [output / kind / name for kind in kinds if kind != "overlays"]
    old = [path for folder in folders for path in sorted(folder.glob("*.png")) if re.fullmatch(r"\d{6,}", path.stem)]
    if not settings.overwrite:
        _refuse([*old, *([film] if "overlays" in kinds else [])])
    video = Video(source, settings.frames)
    shares, began = list[float](), time.perf_counter()
    stopped = False
    try:
        predictor = load_as(settings)
        for path in old:  # frames of a longer video would remain beside the new ones
            path.unlink()
        length = _count(video.announced, "frame") if video.announced else "an unknown number of frames"
        say(f"{length}; {_how(predictor)}")
        overlays = clip(film, video.rate) if "overlays" in kinds else nullcontext()
        began = time.perf_counter()
        with bar("predicting", video.announced) as progress, overlays as add:
            for number, frame in enumerate(video, start=1):
                prediction = predictor.predict(frame)
                for kind in kinds:
                    if kind != "overlays":
                        target = _target(output, kind, f"{name}/{number:06d}")
                        write_atomically(target, encoded(kind, frame, prediction))
                if add is not None:
                    add(overlay(frame, prediction.mask))
                shares.append(float(prediction.mask.mean()))
                progress(number, "")
    except KeyboardInterrupt:
        stopped = True
    finally:
        video.close()
    if stopped and not (isinstance(source, int) and shares):  # stopping is how a camera ends
        raise Interrupted(f"Stopped after {_count(len(shares), 'frame')}; finished results are in {output}.")
    if not shares:
        raise FailedError(f"{settings.input}: no frame could be read.")
    say(_summary(shares, "frame", output, time.perf_counter() - began))
    if video.announced and len(shares) < video.announced and not stopped:
        say(f"{settings.input} announces {video.announced} frames, but ends after {len(shares)}.")


def encoded(kind: str, image: RGBImage, prediction: Prediction) -> bytes:
    """Return the bytes of a mask of 0 and 255, probabilities of 16 bits (65535 is 1), or an overlay."""
    content: NDArray[np.unsignedinteger]
    match kind:
        case "masks":
            content = prediction.mask.astype(np.uint8) * np.uint8(255)
        case "probabilities":
            scaled = prediction.probability * np.float32(65535)
            content = np.rint(scaled, out=scaled).astype(np.uint16)
        case _:
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


def _refuse(targets: Sequence[Path]) -> None:
    """Raise a UserError if results exist already."""
    there = [str(path) for path in targets if path.exists()]
    if there:
        raise UserError(
            f"{len(there)} results exist already, such as {there[0]}; nothing was written. "
            "Set another folder (output=…), or overwrite=true to replace them."
        )


def _how(predictor: Predictor) -> str:
    height, width = predictor.size
    how = f"in tiles of {predictor.tile} pixels" if predictor.tile else f"resized to {height} x {width} pixels"
    return f"{how}, threshold {predictor.threshold:g}, on {predictor.compute}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _summary(shares: Sequence[float], what: str, output: Path, seconds: float) -> str:
    return (
        f"{_count(len(shares), what)} in {output}: {100 * sum(shares) / len(shares):.1f} % foreground on average, "
        f"{len(shares) / seconds:.3g} {what}s per second."
    )
