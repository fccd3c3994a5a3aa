"""Hundreds of wrong and odd inputs: no traceback, no hang, and nothing wrong by construction passes in silence.

Each test goes through all its inputs and then names every one that failed. They run in this process, but for a few.
"""

import copy
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segtune.__main__ import main
from segtune.cli.help import config_folder
from segtune.training import epoch
from tests.cli.conftest import SMALL, discs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]
LIMIT = 60  # seconds for one input
TINY = (*SMALL, "train.device=cpu", "train.precision=fp32", "train.samples=0")


class HangError(Exception):
    """An input took too long."""


@dataclass
class Trial:
    """Runs commands and collects what went wrong."""

    capsys: pytest.CaptureFixture[str]
    count: int = 0

    def __post_init__(self) -> None:
        self.faults: list[str] = []

    def __call__(self, what: str, *words: str, wrong: bool, names: str = "") -> int | None:
        """Run a command; `wrong` inputs must be refused, and the message must contain `names`."""
        self.count += 1
        signal.signal(signal.SIGALRM, _hang)
        signal.alarm(LIMIT)
        code: int | None = None
        try:
            code = main(list(words))
        except HangError:
            self.faults.append(f"{what}: no answer within {LIMIT} s")
        except BaseException:
            self.faults.append(f"{what}: {traceback.format_exc(limit=-3)}")
        finally:
            signal.alarm(0)
        out, err = self.capsys.readouterr()
        if "Traceback" in out + err:
            self.faults.append(f"{what}: a traceback in the output: {(out + err)[-600:]}")
        elif code is not None:
            if code and not err.strip():
                self.faults.append(f"{what}: exit code {code} without a message")
            if wrong and code == 0:
                self.faults.append(f"{what}: accepted in silence; it said: {(out + err)[-300:]}")
            if wrong and code and names not in (out + err).replace("\n", ""):
                self.faults.append(f"{what}: the message does not name {names}: {err[-500:]}")
        return code


def _hang(*_: object) -> None:
    raise HangError


@pytest.fixture
def trial(capsys: pytest.CaptureFixture[str]) -> Iterator[Trial]:
    """Run commands, and fail at the end with everything that went wrong."""
    before = signal.getsignal(signal.SIGALRM)
    trial = Trial(capsys)
    yield trial
    signal.signal(signal.SIGALRM, before)
    assert trial.count
    assert not trial.faults, f"{len(trial.faults)} of {trial.count}:\n" + "\n---\n".join(trial.faults)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = discs(tmp_path_factory.mktemp("fuzz") / "photos", 6)
    generator = np.random.default_rng(0)
    for path in (root / "images").iterdir():  # unlike one another, or they would be near-duplicates
        blocks = cv2.resize(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8), (64, 64), interpolation=0)
        cv2.imwrite(str(path), cv2.imread(str(path)) // 2 + blocks // 2)
    names = sorted(path.stem for path in (root / "images").iterdir())
    for split, part in {"train": names[:3], "val": names[3:5], "test": names[5:]}.items():
        (root / f"{split}.txt").write_text("\n".join(part) + "\n")
    return root


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory, quick: None) -> Path:
    """A run that has ended; its checkpoints are what is damaged."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *TINY, f"data.root={photos}", f"run_dir={run}"]) == 0
    return run


# Settings


def numbers_of(command: str, chosen: list[str]) -> list[str]:
    """Return the keys of a command's settings that take a number."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(config_folder()), version_base=None):
        settings = OmegaConf.to_container(compose(command, chosen), resolve=False)
    unset = ("data.limit", "data.eval_size", "data.eval_tile", "data.eval_overlap", "backbone.output_stride")
    unset += ("image_size", "tile", "overlap", "input_size")
    found: list[str] = []

    def walk(place: Any, path: str) -> None:
        if isinstance(place, dict):
            for key, value in place.items():
                walk(value, f"{path}.{key}" if path else str(key))
        elif (isinstance(place, int | float) and not isinstance(place, bool)) or (place is None and path in unset):
            found.append(path)

    walk(settings, "")
    return found


TAKES_LISTS = ("image_size", "eval_size", "input_size", "backbone")
VALUES = ("0", "-1", "1e9", "nan", "word", "[1,2]")


def is_wrong(command: str, key: str, value: str) -> bool:
    """Return whether no reading of a value makes sense; augmentation means something to training alone."""
    if key.startswith("augment."):
        return command == "train" and value in ("nan", "word") and not key.startswith("augment.crop")
    if value in ("nan", "word"):
        return True
    return value == "-1" or (value == "[1,2]" and not key.endswith(TAKES_LISTS))


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "check", "plan", "probe", "taps"])
def test_every_number_of_every_command(
    command: str, trial: Trial, photos: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings that begin end with their first step."""
    take_step = epoch.take_step

    def once(*arguments: Any) -> Any:
        result = take_step(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(epoch, "take_step", once)
    data = ("data=folder", f"data.root={photos}")
    best = f"checkpoint={finished / 'checkpoints' / 'best.pt'}"
    words = {
        "train": [each for each in TINY if not each.startswith("data.root")] + [f"data.root={photos}"],
        "evaluate": [best, *data, "train.device=cpu"],
        "predict": [best, f"input={photos / 'images' / 'd0.jpg'}", "train.device=cpu"],
        "check": [*data],
        "plan": [each for each in TINY if not each.startswith("data")],
        "probe": [*data, "backbone=resnet50", "backbone.weights=none", "data.image_size=64", "train.device=cpu"],
        "taps": ["backbone=resnet50", "data.image_size=64"],
    }[command]
    keys = numbers_of(command, [word for word in words if word.startswith("freeze=")])
    assert keys
    for number, key in enumerate(keys):
        for value in VALUES:
            place = tmp_path / f"{number}_{VALUES.index(value)}"
            where = f"output={place}" if command == "predict" else f"run_dir={place}"
            more = [] if command in ("plan", "taps") else [where]
            trial(
                f"{command} {key}={value}",
                *(command, *words, f"{key}={value}", *more),
                wrong=is_wrong(command, key, value),
                names=key.rpartition(".")[2],
            )
            shutil.rmtree(place, ignore_errors=True)


# Pictures and masks

GARBAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"\xff"),
    "noise": lambda path: path.write_bytes(random.Random(0).randbytes(3000)),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 3]),
    "html": lambda path: path.write_text("<html><body>404</body></html>"),
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
    "header alone": lambda path: path.write_bytes(path.read_bytes()[:24]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a dangling link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "an enormous claim": lambda path: _png_header(path, 2**31 - 1, 2**31 - 1),
    "no pixels": lambda path: _png_header(path, 0, 0),
}


def _png_header(path: Path, width: int, height: int) -> None:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    data = b"IDAT" + zlib.compress(b"\x00")
    path.write_bytes(png + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data)))


def _pillow(mode: str, suffix: str, **options: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        image = Image.open(path).convert("RGB" if mode not in ("I;16", "F", "I") else "L")
        if mode in ("I;16", "F", "I"):
            image = Image.fromarray(np.asarray(image).astype({"I;16": np.uint16, "F": np.float32, "I": np.int32}[mode]))
        elif mode != "RGB":
            image = image.convert(mode)
        path.unlink()
        image.save(path.with_suffix(suffix), **options)

    return write


#: Formats that people have; segtune may read or refuse them, but must say something sensible.
ODD: dict[str, Callable[[Path], object]] = {
    "grey": _pillow("L", ".png"),
    "palette": _pillow("P", ".png"),
    "1 bit": _pillow("1", ".png"),
    "alpha": _pillow("RGBA", ".png"),
    "grey and alpha": _pillow("LA", ".png"),
    "cmyk jpeg": _pillow("CMYK", ".jpg"),
    "16 bits png": _pillow("I;16", ".png"),
    "16 bits tiff": _pillow("I;16", ".tif"),
    "float tiff": _pillow("F", ".tiff"),
    "32 bits tiff": _pillow("I", ".tif"),
    "webp": _pillow("RGB", ".webp"),
    "gif": _pillow("RGB", ".gif"),
    "avif": _pillow("RGB", ".avif"),
    "jpeg 2000": _pillow("RGB", ".jp2"),
    "numpy": lambda path: (np.save(path.with_suffix(".npy"), np.asarray(Image.open(path))), path.unlink()),
    "bmp": _pillow("RGB", ".bmp"),
    "cmyk tiff": _pillow("CMYK", ".tif"),
    "lab tiff": _pillow("LAB", ".tif"),
    "two pages": _pillow("RGB", ".tif", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
    "damaged exif": _pillow("RGB", ".jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"),
    "damaged exif in webp": _pillow("RGB", ".webp", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "another suffix": lambda path: path.rename(path.with_suffix(".png" if path.suffix == ".jpg" else ".jpg")),
}


@pytest.mark.parametrize("role", ["images", "masks"])
@pytest.mark.parametrize("kind", ["garbage", "odd"])
def test_pictures(trial: Trial, photos: Path, finished: Path, tmp_path: Path, role: str, kind: str) -> None:
    for number, (what, damage) in enumerate((GARBAGE if kind == "garbage" else ODD).items()):
        root = tmp_path / f"{role}{number}"
        shutil.copytree(photos, root)
        path = sorted((root / role).iterdir())[1]
        damage(path)
        wrong = kind == "garbage"
        data = ("data=folder", f"data.root={root}")
        names = path.stem if wrong else ""
        trial(f"check, {role}: {what}", "check", *data, f"run_dir={root}_check", wrong=wrong, names=names)
        train = [each for each in TINY if not each.startswith("data")]
        more = ("data.image_size=64", f"run_dir={root}_run")
        trial(f"train, {role}: {what}", "train", *train, *data, *more, wrong=wrong, names=names)
        if role == "images":
            best = f"checkpoint={finished / 'checkpoints' / 'best.pt'}"
            words = (best, f"input={root / 'images'}", f"output={root}_masks", "train.device=cpu")
            wrong = wrong and what != "a folder"  # it holds no picture
            code = trial(f"predict: {what}", "predict", *words, wrong=wrong, names=names)
            masks = len(list(Path(f"{root}_masks", "masks").glob("*"))) if code is not None else 5
            if masks < 5:
                trial.faults.append(f"predict: {what}: the other pictures have no masks: {masks}")


@pytest.mark.parametrize("what", ["photos without masks", "empty folders", "all masks empty", "swapped", "names"])
def test_folders(trial: Trial, photos: Path, tmp_path: Path, what: str) -> None:
    root = tmp_path / "data"
    shutil.copytree(photos, root)
    for split in ("train", "val", "test"):
        (root / f"{split}.txt").unlink()
    wrong = what not in ("all masks empty", "names")
    if what == "photos without masks":
        shutil.rmtree(root / "masks")
    elif what == "empty folders":
        for path in [*(root / "images").iterdir(), *(root / "masks").iterdir()]:
            path.unlink()
    elif what == "all masks empty":
        for path in (root / "masks").iterdir():
            cv2.imwrite(str(path), np.zeros((64, 64), np.uint8))
    elif what == "swapped":
        (root / "images").rename(root / "old")
        (root / "masks").rename(root / "images")
        (root / "old").rename(root / "masks")
    else:
        for number, name in enumerate(("ä ö", "=1+1", "a'b", "a\nb", "-x", "%s{0}", "a,b", "<b>")[:6]):
            for role, suffix in (("images", ".jpg"), ("masks", ".png")):
                (root / role / f"d{number}{suffix}").rename(root / role / f"{name}{suffix}")
    data = ("data=folder", f"data.root={root}")
    trial(f"check: {what}", "check", *data, f"run_dir={root}_check", wrong=wrong)
    train = [each for each in TINY if not each.startswith("data")]
    trial(f"train: {what}", "train", *train, *data, "data.image_size=64", f"run_dir={root}_run", wrong=wrong)


# Lists

LISTS: dict[str, tuple[Callable[[Path], object], bool]] = {
    "empty": (lambda path: path.write_text(""), True),
    "blank lines": (lambda path: path.write_text("\n \n\t\n"), True),
    "noise": (lambda path: path.write_bytes(random.Random(1).randbytes(500)), True),
    "utf-16": (lambda path: path.write_bytes("d0\nd1\nd2\n".encode("utf-16")), False),
    "byte order mark": (lambda path: path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()), False),
    "windows lines": (lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")), False),
    "unknown names": (lambda path: path.write_text("d0\nnobody\n"), True),
    "paths upwards": (lambda path: path.write_text("../../etc/passwd\n"), True),
    "twice the same": (lambda path: path.write_text("d0\nd0\nd1\n"), False),
    "a picture of val": (lambda path: path.write_text("d0\nd1\nd3\n"), True),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), True),
    "a dangling link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), True),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), True),
    "a device": (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), True),
    "a null byte": (lambda path: path.write_bytes(b"d0\nd\x001\n"), True),
    "a very long line": (lambda path: path.write_text("d" * 10**6), True),
}


def test_lists(trial: Trial, photos: Path, tmp_path: Path) -> None:
    train = [each for each in TINY if not each.startswith("data")]
    for number, (what, (damage, wrong)) in enumerate(LISTS.items()):
        root = tmp_path / str(number)
        shutil.copytree(photos, root)
        damage(root / "train.txt")
        data = ("data=folder", f"data.root={root}", "data.image_size=64")
        trial(f"train.txt: {what}", "train", *train, *data, f"run_dir={root}_run", wrong=wrong)
        trial(f"check, train.txt: {what}", "check", *data[:2], f"run_dir={root}_check", wrong=wrong)


# Checkpoints

REPLACEMENTS: tuple[Any, ...] = (None, 7, -1.5, "word", [], {}, [1, "a"], torch.zeros(2), torch.zeros(0), True)


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every entry, those of long mappings by a sample."""
    if isinstance(content, dict):
        keys = list(content)
        for key in keys if len(keys) < 30 else [*keys[:2], keys[len(keys) // 2], keys[-1]]:
            yield (*path, key)
            yield from places(content[key], (*path, key))
    elif isinstance(content, list) and content:
        yield (*path, 0)
        yield from places(content[0], (*path, 0))


def damaged(content: Any, path: tuple[Any, ...], value: Any, *, delete: bool) -> Any:
    twin = copy.deepcopy(content)
    place = twin
    for key in path[:-1]:
        place = place[key]
    if delete:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return twin


def test_checkpoints(trial: Trial, photos: Path, finished: Path, tmp_path: Path) -> None:
    """Each entry, at every depth, is missing or replaced by something else; tensors are sparse, lack or are extra."""
    draw = random.Random(2)
    original = torch.load(finished / "checkpoints" / "last.pt", weights_only=True)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    last = run / "checkpoints" / "last.pt"
    longer = ("freeze.phases.all.epochs=2",)

    def commands(number: int) -> tuple[str, tuple[str, ...]]:
        place = tmp_path / f"out{number}"
        return (
            ("evaluate", (f"checkpoint={last}", "data=folder", f"data.root={photos}", f"run_dir={place}")),
            ("predict", (f"checkpoint={last}", f"input={photos / 'images'}", f"output={place}")),
            ("export", (f"checkpoint={last}", "format=torch", f"output={place}.pt2")),
            ("train", (f"resume={run}", *longer)),
        )[number % 4]

    every = list(places(original))
    tensors = [path for path in every if path[0] == "model" and len(path) == 2]
    cases: list[tuple[str, Any, bool]] = []
    for path in draw.sample(every, min(len(every), 90)):
        value = draw.choice(REPLACEMENTS)
        delete = draw.random() < 0.4
        named = f"{path} {'deleted' if delete else f'= {value!r}'}"
        cases.append((named, damaged(original, path, value, delete=delete), path in tensors))
    first = next(("model", name) for name, tensor in original["model"].items() if tensor.ndim == 4 and len(tensor) > 1)
    tensor = original["model"][first[1]]
    for what, value in {
        "sparse": tensor.reshape(tensor.shape[0], -1).to_sparse(),
        "another shape": tensor[:1],
        "half": tensor.half(),
        "complex": tensor.to(torch.complex64),
        "integers": tensor.to(torch.int8),
        "not a number": torch.full_like(tensor, float("nan")),
        "infinite": torch.full_like(tensor, float("inf")),
    }.items():
        cases.append((f"a tensor that is {what}", damaged(original, first, value, delete=False), what != "half"))
    cases.append(("an extra tensor", damaged(original, ("model", "extra"), tensor, delete=False), True))
    cases.append(("only tensors", original["model"], True))
    cases.append(("a list", [1, 2], True))
    cases.append(("a tensor", torch.zeros(3), True))
    for number, (what, content, wrong) in enumerate(cases):
        for turn in (number, number + 1 + number // 4) if number < 40 else (number,):
            shutil.rmtree(run)
            shutil.copytree(finished, run)
            torch.save(content, last)
            command, words = commands(turn)
            trial(f"{command}: {what}", command, *words, wrong=wrong)
    for number, (what, damage) in enumerate(GARBAGE.items()):
        shutil.rmtree(run)
        shutil.copytree(finished, run)
        damage(last) if "claim" not in what and "pixels" not in what else last.write_bytes(b"PK\x03\x04")
        command, words = commands(number)
        trial(f"{command}: checkpoint is {what}", command, *words, wrong=True)


# config.yaml


def test_saved_settings(trial: Trial, finished: Path, tmp_path: Path) -> None:
    """A hand-edited config.yaml: entries missing, of other types, added; text that is no YAML."""
    draw = random.Random(3)
    original = yaml.safe_load((finished / "config.yaml").read_text(encoding="utf-8"))
    every = list(places(original))
    texts = {"empty": "", "a list": "- 1\n", "no yaml": "a: [1\n", "a tag": "!!python/object/apply:os.system ['true']"}
    texts["noise"] = random.Random(4).randbytes(300).decode("latin-1")
    for path in draw.sample(every, min(len(every), 50)):
        value = draw.choice([each for each in REPLACEMENTS if not isinstance(each, torch.Tensor)])
        delete = draw.random() < 0.3
        text = yaml.safe_dump(damaged(original, path, value, delete=delete))
        texts[f"{path} {'deleted' if delete else f'= {value!r}'}"] = text
    wrong = {"empty", "a list", "no yaml", "a tag", "noise"}
    for number, (what, text) in enumerate(texts.items()):
        run = tmp_path / str(number)
        shutil.copytree(finished, run)
        (run / "config.yaml").write_text(text, encoding="utf-8")
        trial(f"config.yaml: {what}", "train", f"resume={run}", "freeze.phases.all.epochs=2", wrong=what in wrong)


# The command line

LINES = (
    ("train", "data.root=nowhere/at/all"),
    ("train", "data=folder", "data.root="),
    ("train", "=1"),
    ("train", "a.b.c=1"),
    ("train", "backbone=nothing"),
    ("train", "--data.root", "photos"),
    ("train", "freeze.phases.head="),
    ("train", "taps.low=[1,2]"),
    ("train", "data={a"),
    ("train", "train.batch_size=$(ls)"),
    ("evaluate",),
    ("evaluate", "checkpoint=/nonexistent/best.pt"),
    ("predict", "checkpoint=x.pt", "input="),
    ("predict", "input=photos"),
    ("export", "checkpoint="),
    ("report", "folder=/nonexistent"),
    ("check", "data=folder", "data.root=/dev/null"),
    ("probe", "backbone=word"),
    ("plan", "freeze=word"),
    ("nothing",),
)


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_command_lines(words: tuple[str, ...], tmp_path: Path) -> None:
    """In a process of its own, as a user would."""
    command = [sys.executable, "-m", "segtune", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("segtune")
    assert not list(tmp_path.iterdir())
