"""The command `predict`: write masks for images, folders, videos and cameras."""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from segtune.config.command_settings import PredictSettings
from segtune.data.images import ImageError, load_photo
from segtune.data.overlays import RGBImage
from segtune.data.value_range import remarks
from segtune.errors import FailedError, Interrupted, UserError, some
from segtune.inference.annotations.registry import FORMATS
from segtune.inference.inputs import Source, find_images, find_video, left_out
from segtune.inference.predictor import Prediction, Predictor, load_as
from segtune.inference.results import ENDINGS, Results, overlay, targets
from segtune.inference.tally import Tally, count, reason
from segtune.inference.video import Video, clip
from segtune.runtime.console import bar, say, set_up_logging
from segtune.runtime.paths import expanded


def predict(settings: PredictSettings) -> None:
    """Predict masks, and write the outputs that the settings ask for.

    Raises:
        UserError: The settings, the checkpoint, the input or the output cannot be used, or results exist already.
        FailedError: Some images or frames could not be read, predicted or written; the others are done.
        Interrupted: The user stopped it; finished results are written.
    """
    set_up_logging()
    formats = settings.formats
    images = {"masks": "masks" in formats, "probabilities": settings.probabilities, "overlays": settings.overlays}
    kinds, formats = [kind for kind in ENDINGS if images[kind]], [each for each in formats if each in FORMATS]
    if not kinds and not formats:
        raise UserError(f"All outputs are off. Set at least one of {', '.join(f'{kind}=true' for kind in ENDINGS)}.")
    output = expanded(settings.output, "output")
    video = find_video(settings.input)
    if video is None and settings.frames:
        raise UserError(
            f"frames={settings.frames} is for a video or a camera, but input={_given(settings)} is neither."
        )
    if video is None:
        _images(settings, output, kinds, formats)
    elif formats:
        raise UserError(f"format={formats[0]} is for images, but input={_given(settings)} is a video or a camera.")
    else:
        _video(settings, video, output, kinds)


def _given(settings: PredictSettings) -> str:
    given = settings.input
    return given if isinstance(given, str) else given[0] if len(given) == 1 else f"[{','.join(given)}]"


def _images(settings: PredictSettings, output: Path, kinds: Sequence[str], formats: Sequence[str]) -> None:
    others = Counter[str]()
    sources = find_images(settings.input, own=[output / kind for kind in (*ENDINGS, *FORMATS)], others=others)
    if not settings.overwrite:
        _refuse(targets(output, kinds, formats, sources))
    predictor = load_as(settings)
    _create(output, [*kinds, *formats])
    say(f"{count(len(sources), 'image')}; {_how(predictor)}")
    if others:
        say(left_out(others))
    annotations = [FORMATS[name](output / name, predictor.category) for name in formats]
    results = Results(output, kinds, Tally("image"), settings.overwrite, annotations, settings.polygons)
    job, tally, began, turned = _Job(predictor, results), results.tally, time.perf_counter(), list[str]()
    try:
        with bar("predicting", len(sources)) as progress:
            for number, (source, image, orientation) in enumerate(_read(sources, predictor.max_value), start=1):
                if isinstance(image, Exception):
                    text = str(image) if isinstance(image, ImageError) else f"{source.path}: {reason(image)}"
                    tally.fail("read", source.path.name, text)
                else:
                    job.do(image, source, source.path.name, str(source.path))
                    turned += [source.path.name] if orientation != 1 else []
                progress(number, "")
    except KeyboardInterrupt as error:
        failed = "".join(f"\n{problem}" for problem in results.finish())
        done = f"{len(tally.shares)} of {count(len(sources), 'image')}"
        raise Interrupted(f"Stopped after {done}; finished results are in {output}.{failed}") from error
    problems = results.finish()
    if tally.shares:
        say(_summary(tally, output, time.perf_counter() - began))
    if formats and turned:
        say(_about_turned(turned))
    tally.check(len(sources), problems)


def _about_turned(names: Sequence[str]) -> str:
    """Return what to know of annotations of photos that their EXIF orientation turns."""
    are = "is turned by its" if len(names) == 1 else "are turned by their"
    return (
        f"{count(len(names), 'photo')} {are} EXIF orientation ({some(names)}). Annotations are of the photo as "
        "displayed, as labelme, CVAT and Ultralytics have it; a tool that ignores the orientation shows them turned."
    )


@dataclass(frozen=True)
class _Job:
    """What all images or frames have in common."""

    predictor: Predictor
    results: Results

    def do(self, image: RGBImage, source: Source, name: str, where: str) -> Prediction | None:
        """Predict an image, write its results, and note what failed; None if there is no prediction.

        Args:
            image: RGB, (H, W, 3).
            source: Its file, and the name of its results.
            name: Its short name, for the list of those that failed.
            where: Its whole name, for messages.
        """
        tally = self.results.tally
        try:
            prediction = self.predictor.predict(image)
        except Exception as error:  # whatever is wrong with this one, the others are predicted
            tally.fail("predicted", name, f"{where}: {reason(error)}")
            return None
        if problems := self.results.write(source, image, prediction):
            tally.fail("written", name, f"{where}: {'; '.join(problems)}")
        else:
            tally.shares.append(float(prediction.mask.mean()))
        return prediction


def _read(sources: Sequence[Source], max_value: int | None) -> Iterator[tuple[Source, RGBImage | Exception, int]]:
    """Yield images, each read while the previous one is predicted, and print what is remarkable in a file.

    In the place of an image that cannot be read stands the error. The number is the orientation of the file.
    """

    def read(source: Source) -> tuple[RGBImage | Exception, int, list[str]]:
        try:
            photo = load_photo(source.path)
            return photo.pixels(max_value), photo.orientation, remarks(photo, max_value)
        except Exception as error:
            return error, 1, []

    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(read, sources[0])
        for source, after in zip(sources, [*sources[1:], None], strict=True):
            image, orientation, said = following.result()
            if after:
                following = reader.submit(read, after)
            for remark in said:
                say(f"{source.path}: {remark}")
            yield source, image, orientation


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
        job = _Job(load_as(settings), Results(output, single, tally, settings.overwrite))
        _create(output, kinds)
        for path in old:  # frames of a longer video would remain beside the new ones
            path.unlink()
        length = count(video.announced, "frame") if video.announced else "an unknown number of frames"
        say(f"{length}; {_how(job.predictor)}")
        overlays = clip(film, video.rate) if "overlays" in kinds else nullcontext()
        began = time.perf_counter()
        with bar("predicting", video.announced) as progress, overlays as add:
            for number, frame in video.numbered():
                result = Source(film, f"{name}/{number:06d}")
                prediction = job.do(frame, result, f"{number:06d}", f"frame {number}")
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
        raise FailedError(f"{_given(settings)}: no frame could be read.")
    if tally.shares:
        say(_summary(tally, output, time.perf_counter() - began))
    if not stopped and (lost := video.lost()):
        also.append(
            f"{_given(settings)} is damaged: {lost} of its {video.read + lost} frames could not be read. "
            "The results of the others have the numbers that the frames have in it, as far as it tells."
        )
    elif not stopped and video.announced and video.read < video.announced:
        say(f"{_given(settings)} announces {video.announced} frames, but ends after {video.read}.")
    tally.check(video.read, also)


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
