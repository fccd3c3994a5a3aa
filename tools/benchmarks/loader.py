"""The data loader alone: large photos against small ones, and its time and memory against the number of images."""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.measuring import Figures, Goal, Job, Part

_RATE = "images_per_second"


def part(options: argparse.Namespace) -> Part:
    """Return the loader of large and of small photos, and of few and many, with judge 6."""
    large, small = (Job(f"loader, {kind} photos", rate, (options, kind)) for kind in ("large", "small"))
    first_pass = Job("loader, large photos for the first time, one process", first, (options,))
    levels = Job("loader, reduced photos decoded smaller or whole", differences, (options,))
    counts = sorted(options.counts)
    many = [Job(f"loader, {count} images", rate, (options, "many", count)) for count in counts]
    few, last = many[0].name, many[-1].name
    goals = [Goal("large photos, once warm / small ones", (large.name, _RATE), (small.name, _RATE), 0.8, True)]
    for figure, what in (("seconds_per_image", "time of an image"), ("memory_gb", "memory")):
        goals.append(Goal(f"{what}, {counts[-1]} images / {counts[0]}", (last, figure), (few, figure), 1.1, False))
    return Part([large, small, first_pass, levels, *many], goals, [Job("draw the photos", draw, (options,))])


def draw(options: argparse.Namespace) -> Figures:
    """Draw the folders of photos: `large` JPEGs and the same ones `small`, and `many`, each repeated by links."""
    import cv2
    import numpy as np

    from segtune.data.sources.portraits import draw_scene

    draws = np.random.default_rng(0)
    height, width = options.large
    for number in range(11):
        image, mask = draw_scene(number)
        whole = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noise = draws.integers(-8, 9, whole.shape, np.int16)
        large = np.clip(whole + noise, 0, 255).astype(np.uint8)
        masks = {"large": cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), "small": mask}
        for kind, photo in (("large", large), ("small", image)):
            _write(options.folder / kind, number, photo, masks[kind])
    _repeat(options.folder / "large", options.images)
    _repeat(options.folder / "small", options.images)
    for count in options.counts:
        for number in range(11):
            _write(options.folder / f"many{count}", number, *draw_scene(number))
        _repeat(options.folder / f"many{count}", count)
    return {}


def _write(root: Path, number: int, photo: Any, mask: Any) -> None:
    import cv2

    for kind, name, image in (("images", f"{number}.jpg", photo), ("masks", f"{number}.png", mask)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        shown = image[..., ::-1] if kind == "images" else image
        cv2.imwrite(str(root / kind / name), shown, [cv2.IMWRITE_JPEG_QUALITY, 92])


def _repeat(root: Path, count: int) -> None:
    """Link the first ten photos of a folder until there are `count` for training; the eleventh is for validation."""
    names = [f"{number}" if number < 10 else f"link{number}" for number in range(count)]
    for number, name in enumerate(names[10:], 10):
        for kind, end in (("images", "jpg"), ("masks", "png")):
            (root / kind / f"{name}.{end}").symlink_to(f"{number % 10}.{end}")
    (root / "train.txt").write_text("\n".join(names) + "\n", "utf-8")
    (root / "val.txt").write_text("10\n", "utf-8")


def rate(options: argparse.Namespace, kind: str, count: int | None = None) -> Figures:
    """Return the images/s of the loader of a folder with `augment=light`, once warm, and its seconds for an image.

    The first pass, in which large photos are reduced and kept, does not count, nor does starting the workers.
    """
    from segtune.data.dataset import build_dataset
    from segtune.data.loader import EpochBatches, make_loader
    from segtune.runtime.cores import worker_count
    from segtune.training.photo_cache import reduced_photos

    settings, pairs = _data(options, options.folder / (f"many{count}" if count else kind), options.size)
    photos, _ = reduced_photos(settings, pairs)
    dataset = build_dataset(pairs, settings.data, settings.augment, photos=photos)
    batches = EpochBatches(len(dataset), options.batch, 0)
    loader = make_loader(dataset, batches, worker_count("auto") // 2 or 1, False)
    batches.end = min(batches.whole, -(-max(options.images, 64) // options.batch))
    _pass(loader)
    batches.end = batches.whole
    passes = max(1, options.passed // len(pairs))
    began = time.perf_counter()
    images = 0
    for batches.epoch in range(1, 1 + passes):
        images += _pass(loader)
    seconds = time.perf_counter() - began
    figures = {_RATE: images / seconds, "seconds_per_image": seconds / images, "memory_gb": _memory()}
    return figures | {"reduced": float(photos is not None)}


def first(options: argparse.Namespace) -> Figures:
    """Return the images/s at which one process reads large photos that are not kept yet, reduces and keeps them.

    And the seconds to decode and reduce such a photo, without its mask: at the scale that is enough, and whole. All are
    medians of ten photos, on one thread.
    """
    import cv2

    from segtune.data.dataset import build_dataset
    from segtune.data.reduced import ReducedPhotos
    from segtune.training.feature_store import FolderStore

    cv2.setNumThreads(1)
    settings, pairs = _data(options, options.folder / "large", options.size)
    pairs = list({pair.checksums: pair for pair in pairs}.values())  # the others are links to these
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        photos = ReducedPhotos(settings.data.size, settings.augment.crop, FolderStore(Path(folder), {}))
        by_photo = [lambda pair: _reduced(pair, photos, photos.enough), lambda pair: _reduced(pair, photos, None)]
        by_photo[1](pairs[0])  # what runs once only does not count
        dataset = build_dataset(pairs, settings.data, settings.augment, photos=photos)
        smaller, whole = (_seconds(function, pairs) for function in by_photo)
        seconds = _seconds(lambda number: dataset[0, number], range(len(pairs)))
    return {_RATE: 1 / seconds, "decoded_smaller_seconds": smaller, "decoded_whole_seconds": whole}


def differences(options: argparse.Namespace) -> Figures:
    """Return by how many levels of 255 reduced photos differ if they are decoded smaller, and how many photos are.

    Photos are those of training, for an input of 32 pixels: one of 384 x 512 is as large for it as 12 megapixels are
    for 256. `mean_of_one` and `largest` are the worst of all photos.
    """
    import numpy as np

    from segtune.data.reduced import ReducedPhotos

    began = time.perf_counter()
    settings, pairs = _data(options, options.folder / "train", 32)
    photos = ReducedPhotos(settings.data.size, settings.augment.crop)
    apart = []
    for pair in pairs:
        if pair.load_photo(photos.enough).scale > 1:
            smaller, whole = (_reduced(pair, photos, enough).astype(int) for enough in (photos.enough, None))
            apart.append((np.abs(smaller - whole).mean(), np.abs(smaller - whole).max()))
    means, most = zip(*apart or [(0.0, 0.0)], strict=True)
    figures = {"mean": np.mean(means), "mean_of_one": max(means), "largest": max(most), "photos": len(apart)}
    return {"seconds": time.perf_counter() - began, **{name: float(value) for name, value in figures.items()}}


def _reduced(pair: Any, photos: Any, enough: Any) -> Any:
    """Return a photo at the size to which it is reduced."""
    import cv2

    loaded = pair.load_photo(enough)
    height, width = photos.target(*loaded.size) or loaded.size
    return cv2.resize(loaded.pixels(None), (width, height), interpolation=cv2.INTER_AREA)


def _seconds(function: Callable[[Any], object], values: Iterable[Any]) -> float:
    """Return the median of the seconds that a function takes."""
    taken = []
    for value in values:
        began = time.perf_counter()
        function(value)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _data(options: argparse.Namespace, root: Path, size: int) -> tuple[Any, Any]:
    """Return settings with `augment=light` and an input size, and the pairs for training of a folder."""
    import yaml

    from segtune.cli.help import config_folder
    from segtune.config.parse import parse
    from segtune.config.schema import Settings
    from segtune.data.splits import build_splits

    augment = yaml.safe_load((config_folder() / "augment" / "light.yaml").read_text("utf-8"))
    words: dict[str, Any] = {
        "backbone": {"name": "xception"},
        "taps": {},
        "decoder": {"name": "deeplabv3plus"},
        "checkpoint": {},
    }
    words |= {"loss": {"name": "dice_bce"}, "optimizer": {"name": "adamw"}, "train": {"batch_size": options.batch}}
    words |= {"freeze": {"phases": {"all": {"epochs": 1, "lr": 1e-3}}}, "augment": augment}
    words |= {"cache": {"mode": "off", "photos": "auto", "folder": str(options.folder / "features")}}
    words |= {"data": {"name": "folder", "root": str(root), "image_size": size}}
    settings = parse(Settings, words)
    return settings, build_splits(settings.data, 0, "auto")["train"]


def _memory() -> float:
    """Return the memory of this process and its workers in GB, what they share counted once; NaN if not on Linux."""
    found = 0
    for process in ("self", *(child.pid for child in multiprocessing.active_children())):
        rollup = Path(f"/proc/{process}/smaps_rollup")
        if not rollup.exists():
            return float("nan")
        found += int(re.search(r"^Pss:\s*(\d+) kB", rollup.read_text("ascii"), re.M)[1])  # type: ignore[index]
    return found * 1024 / 1e9


def _pass(loader: Any) -> int:
    return sum(len(batch["image"]) for batch in loader)
