"""The command `check`: every kind of broken data, planted by hand, and what is said of sound data."""

import hashlib
import io
import json
import os
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from segtune.__main__ import main
from segtune.commands import check as module
from segtune.commands.check import check
from segtune.config.command_settings import CheckSettings
from segtune.config.data_settings import AugmentSettings
from segtune.config.parse import parse
from segtune.data.labels import Foreground
from segtune.data.sources.base import Pair
from segtune.data.splits import build_splits
from segtune.errors import FailedError, UserError
from segtune.models.layer_info import LayerInfo
from tests.data.tiff_files import write_tiff

CONF = Path(__file__).parents[2] / "conf"
HEIGHT, WIDTH = 48, 64


class Data:
    """A sound data set of twelve pairs: `p00` to `p07` to train, two to validate, two to test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rng = np.random.default_rng(0)
        self.names = [f"p{number:02}" for number in range(12)]
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        for name in self.names:
            self.add(name)
        self.lists()

    def lists(self) -> None:
        for split, names in (("train", self.names[:8]), ("val", self.names[8:10]), ("test", self.names[10:])):
            self.list(split).write_text("\n".join(names), encoding="utf-8")

    def list(self, split: str) -> Path:
        return self.root / f"{split}.txt"

    def photo(self, name: str, suffix: str = "png") -> Path:
        return self.root / "images" / f"{name}.{suffix}"

    def mask(self, name: str, suffix: str = "png") -> Path:
        return self.root / "masks" / f"{name}.{suffix}"

    def add(self, name: str) -> None:
        coarse = self.rng.integers(0, 256, (6, 8, 3), np.uint8)
        photo = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(photo).save(self.photo(name))
        centre = tuple(int(each) for each in self.rng.integers((20, 18), (44, 30)))
        mask = cv2.ellipse(np.zeros((HEIGHT, WIDTH), np.uint8), centre, (14, 11), 0, 0, 360, 255, -1)
        Image.fromarray(mask).save(self.mask(name))

    def pixels(self, name: str = "p00") -> np.ndarray:
        return np.array(Image.open(self.photo(name)))

    def labels(self, name: str = "p00") -> np.ndarray:
        return np.array(Image.open(self.mask(name)))

    def replace(self, path: Path, content: Any, **options: Any) -> None:
        """Put other pixels, or bytes, in the place of a photo or mask; of another format if the suffix says so."""
        for old in path.parent.glob(f"{path.stem}.*"):
            old.unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            (content if isinstance(content, Image.Image) else Image.fromarray(content)).save(path, **options)

    def change_masks(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        for name in self.names:
            self.replace(self.mask(name), change(self.labels(name)))


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path / "data")


@pytest.fixture(scope="module")
def composed() -> CheckSettings:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("check", overrides=["data=folder", "data.root=.", "data.image_size=64", "train.workers=2"])
    return parse(CheckSettings, dict(OmegaConf.to_container(config, resolve=True)))  # type: ignore[arg-type]


@pytest.fixture
def settings(data: Data, composed: CheckSettings, monkeypatch: pytest.MonkeyPatch) -> CheckSettings:
    layer = LayerInfo("deep", "", "", 8, 16, 4, 4, (1, 1), False, 1, 1, False)
    monkeypatch.setattr(module, "_deepest", lambda _: layer)
    return replace(composed, data=replace(composed.data, root=str(data.root)))


def tree(root: Path) -> str:
    """Digest all that is in a folder: names, kinds, times and bytes."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        digest.update(repr((str(path), facts.st_mode, facts.st_mtime_ns, facts.st_size)).encode())
        if path.is_symlink():
            digest.update(os.readlink(path).encode())
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def checked(settings: CheckSettings, folder: Path) -> tuple[int, list[str]]:
    """Run the command; give the exit code and all problems, of which errors are in its message too."""
    try:
        check(settings, folder)
        code, message = 0, ""
    except FailedError as error:
        code, message = 1, str(error)
    found = json.loads((folder / "check.json").read_text(encoding="utf-8"))["problems"]
    lines = [f"{each['level']}: {each['where']}: {each['text']}" for each in found]
    errors = [line for line in lines if line.startswith("error")]
    assert bool(errors) == bool(code)
    assert all(line in message for line in errors[:20])
    return code, lines


@dataclass(frozen=True)
class Fault:
    """What is planted, and what must be said: each text in one line of its own. Training is to refuse errors too."""

    plant: Callable[[Data], None]
    says: tuple[str, ...]
    trains: bool = False


FAULTS: dict[str, Fault] = {}


def fault(*says: str, trains: bool = False) -> Callable[[Callable[[Data], None]], Callable[[Data], None]]:
    def keep(plant: Callable[[Data], None]) -> Callable[[Data], None]:
        FAULTS[plant.__name__] = Fault(plant, says, trains)
        return plant

    return keep


@fault("error: images/p00.jpg: unreadable: cannot be read: ")
def truncated_jpeg(data: Data) -> None:
    content = io.BytesIO()
    Image.fromarray(data.pixels()).save(content, "JPEG", quality=95)
    data.replace(data.photo("p00", "jpg"), content.getvalue()[:-800])


@fault("error: images/p00.png: unreadable: cannot be")
def truncated_png(data: Data) -> None:
    data.photo("p00").write_bytes(data.photo("p00").read_bytes()[:-400])


@fault("error: masks/p00.png: unreadable: cannot be")
def truncated_mask(data: Data) -> None:
    data.mask("p00").write_bytes(data.mask("p00").read_bytes()[:-40])


@fault("error: images/p00.png: unreadable: the file is empty")
def empty_file(data: Data) -> None:
    data.photo("p00").write_bytes(b"")


@fault("error: images/p00.jpg: unreadable: an archive, which is not read; unpack it")
def zip_named_jpg(data: Data) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.write(data.photo("p01"), "p01.png")
    data.replace(data.photo("p00", "jpg"), content.getvalue())


@fault("error: masks/p00.png: unreadable: a text that begins with '0 0 1 1', not an image")
def text_named_png(data: Data) -> None:
    data.mask("p00").write_text("0 0 1 1")


@fault("error: images/p00.jpg: unreadable: a web page in place of the image, as failed downloads leave it; download")
def web_page_named_jpg(data: Data) -> None:
    data.replace(data.photo("p00", "jpg"), b"<!DOCTYPE html>\n<html><body>404</body></html>")


@fault("error: masks/p00.png: unreadable: a pointer of Git LFS in place of the file; fetch the files: `git lfs pull`")
def pointer_named_png(data: Data) -> None:
    data.mask("p00").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")


@fault("error: images/p00.jpg: unreadable: a camera's raw photo, which is not read; develop it, as with `darktable-cli")
def raw_photo_named_jpg(data: Data) -> None:
    data.replace(data.photo("p00", "jpg"), b"II*\0\x10\0\0\0CR\2\0" + bytes(99))


@fault("error: masks/p00.npy: unreadable: an array of Python objects, which are pickled and never loaded, because that")
def array_of_objects(data: Data) -> None:
    data.replace(data.mask("p00", "npy"), b"")
    np.save(data.mask("p00", "npy"), data.labels("p01").astype(object))


@fault("error: masks/p00.npy: unreadable: a mask of fractions (0 to 0.9), such as probabilities, holds no labels; save")
def probabilities(data: Data) -> None:
    labels = data.labels() / 255
    data.replace(data.mask("p00", "npy"), b"")
    np.save(data.mask("p00", "npy"), labels * 0.9)


@fault(
    "error: masks/p00.png: unreadable: the mask's alpha channel varies: if it is the mask, as in a cut-out, set data."
)
def cut_out_as_mask(data: Data) -> None:
    """The whole photo is still in it, but it is no copy of it."""
    data.replace(data.mask("p00"), np.dstack([data.pixels(), data.labels()]))


@fault("warning: images/p00.png: several images in one file: only the first of 2 is used")
def animated_gif_named_png(data: Data) -> None:
    frames = [Image.fromarray(data.pixels(name)) for name in ("p00", "p01")]
    frames[0].save(data.photo("p00"), format="GIF", save_all=True, append_images=frames[1:])


@fault(
    "warning: images/: ignored: 1 that are not images (p00.psd)",
    "error: masks/p00.png: mask without photo: images/p00.psd is a Photoshop file, which is not read; flatten it: ",
)
def photoshop_file(data: Data) -> None:
    data.replace(data.photo("p00", "psd"), b"8BPS\0\1")


@fault("error: images/p00.png: too small: got 1 x 1 pixels; expected at least 8 on each side")
def one_pixel(data: Data) -> None:
    data.replace(data.photo("p00"), data.pixels()[:1, :1])
    data.replace(data.mask("p00"), data.labels()[:1, :1])


@fault("error: images/p00.tiff: unreadable: floating-point samples have no defined range")
def nan_photo(data: Data) -> None:
    data.replace(data.photo("p00", "tiff"), np.full((HEIGHT, WIDTH), np.nan, np.float32))


@fault("error: masks/p00.tiff: unreadable: a mask of fractions (0 to 0.5), such as probabilities, holds no labels")
def float_mask(data: Data) -> None:
    data.replace(data.mask("p00", "tiff"), data.labels().astype(np.float32) / 510)


@fault("error: images/p00.tiff: unreadable: 32-bit integer samples have no defined range")
def photo_of_32_bits(data: Data) -> None:
    data.replace(data.photo("p00", "tiff"), data.pixels()[..., 0].astype(np.int32))


@fault("error: masks: ambiguous mask values: data.foreground=auto needs exactly one non-zero value, got 2")
def mask_with_three_values(data: Data) -> None:
    labels = data.labels()
    labels[0, :9] = 128
    data.replace(data.mask("p00"), labels)


@fault("warning: images/p00.png: perhaps swapped", "error: masks/p00.png: unreadable: a colour mask with")
def photo_and_mask_swapped(data: Data) -> None:
    pixels, labels = data.pixels(), data.labels()
    data.replace(data.photo("p00"), labels)
    data.replace(data.mask("p00"), pixels)


@fault("error: masks: ambiguous mask values", "This looks like grey edges")
def grey_photo_for_a_mask(data: Data) -> None:
    data.replace(data.mask("p00"), data.pixels()[..., 0])


@fault("error: images/p00.jpg: the photo is its mask: it has the content of masks/p00.png")
def photo_is_its_mask(data: Data) -> None:
    data.replace(data.photo("p00", "jpg"), data.labels(), quality=95)


@fault("error: images/p00.png: the photo is its mask")
def photo_is_its_inverted_mask(data: Data) -> None:
    data.replace(data.photo("p00"), 255 - data.labels())


@fault("warning: images/p00.png: looks like a mask: all pixels have one of two values")
def photo_of_two_values(data: Data) -> None:
    data.replace(data.photo("p00"), np.flipud(data.labels("p03") // 255 * 200))


@fault("warning: images/p00.png: nearly one colour: the standard deviation of its grey values is 0.")
def photo_of_one_colour(data: Data) -> None:
    data.replace(data.photo("p00"), data.rng.integers(99, 102, (HEIGHT, WIDTH, 3), np.uint8))


@fault("error: p00: sizes differ: photo 48 x 64, mask 46 x 64 (height x width); a mask must have the size of its photo")
def mask_of_another_size(data: Data) -> None:
    data.replace(data.mask("p00"), data.labels()[:-2])


@fault("error: p00: sizes differ: photo 64 x 48, mask 48 x 64 (height x width); they are each other's transpose")
def transposed_by_exif(data: Data) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data.replace(data.photo("p00", "jpg"), data.pixels(), exif=exif)


@fault("error: images/p00.png: photo without mask: no masks/p00.*", "error: train.txt, line 1: no such pair: 'p00'")
def photo_without_mask(data: Data) -> None:
    data.mask("p00").unlink()


@fault("error: masks/p00.png: mask without photo: no images/p00.*", "error: train.txt, line 1: no such pair: 'p00'")
def mask_without_photo(data: Data) -> None:
    data.photo("p00").unlink()


@fault("error: images/p00.png: two files of one name: images/p00.bmp exists too")
def two_files_of_one_stem(data: Data) -> None:
    Image.fromarray(data.pixels()).save(data.photo("p00", "bmp"))


@fault("error: images/p00.png: unreadable: a link that leads back to itself, not a file")
def symlink_loop(data: Data) -> None:
    data.photo("p00").unlink()
    data.photo("p00").symlink_to(data.photo("p00"))


@fault("error: images/p00.png: unreadable: a named pipe, not a file", "error: masks/p01.png: unreadable: a device, not")
def pipes_and_devices(data: Data) -> None:
    data.photo("p00").unlink()
    os.mkfifo(data.photo("p00"))
    data.mask("p01").unlink()
    data.mask("p01").symlink_to("/dev/zero")


@fault("error: train.txt: not a list: it is a named pipe; expected a text file of names")
def list_that_is_a_pipe(data: Data) -> None:
    (data.root / "train.txt").unlink()
    os.mkfifo(data.root / "train.txt")


@fault("error: masks/p00.png: unreadable: a link to nothing, not a file")
def dangling_symlink(data: Data) -> None:
    data.mask("p00").unlink()
    data.mask("p00").symlink_to(data.root / "gone.png")


@fault("no pairs: No photo in ", "images/ contains nothing")
def empty_folder(data: Data) -> None:
    for path in (data.root / "images").iterdir():
        path.unlink()


@fault("no pairs: No folder masks/ in ", "if these are photos and their masks, set data.images=images data.masks=mine")
def folder_of_another_name(data: Data) -> None:
    (data.root / "masks").rename(data.root / "mine")


@fault("warning: images/: ignored: 1 that are not images (p00.png/)", "error: masks/p00.png: mask without photo")
def folder_named_like_a_photo(data: Data) -> None:
    data.photo("p00").unlink()
    data.photo("p00").mkdir()


@fault("error: train: no training mask has any foreground: all 8 are empty; check data.foreground and data.invert")
def all_masks_empty(data: Data) -> None:
    data.change_masks(np.zeros_like)


@fault("warning: masks: no foreground: 1 of 12 masks (8.3%): train p00")
def one_mask_empty(data: Data) -> None:
    data.replace(data.mask("p00"), np.zeros((HEIGHT, WIDTH), np.uint8))


@fault("error: train: no training mask has any background: all 8 are full; check data.foreground and data.invert")
def all_masks_full(data: Data) -> None:
    data.change_masks(lambda mask: np.full_like(mask, 255))


@fault("warning: masks: perhaps all inverted: in half of the masks at least 100% of the image's border")
def all_masks_inverted(data: Data) -> None:
    data.change_masks(lambda mask: 255 - mask)


@fault("warning: masks/p00.png: perhaps inverted: the image's whole border is foreground, unlike that of most masks")
def one_mask_inverted(data: Data) -> None:
    data.replace(data.mask("p00"), 255 - data.labels())


@fault(
    "error: p00: the same image in two splits: scores would be optimistically biased; keep one of train p00, val p08"
)
def same_picture_in_two_splits(data: Data) -> None:
    data.replace(data.photo("p08", "bmp"), data.pixels())


@fault("warning: p00: the same image twice in one split: train p00, train p01")
def same_picture_twice(data: Data) -> None:
    data.replace(data.photo("p01"), data.pixels())


@fault("error: p00: near-duplicates in two splits: train p00 and val p08 (", trains=True)
def encoded_again(data: Data) -> None:
    data.replace(data.photo("p08", "jpg"), data.pixels(), quality=60)


@fault("error: p01: near-duplicates in two splits: train p01 and test p10 (", trains=True)
def resized(data: Data) -> None:
    larger = cv2.resize(data.pixels("p01"), None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
    data.replace(data.photo("p10"), larger)
    mask = cv2.resize(data.labels("p01"), None, fx=1.5, fy=1.5, interpolation=cv2.INTER_NEAREST)
    data.replace(data.mask("p10"), mask)


@fault("p01: near-duplicates in two splits: train p01 and test p10 (0 of 64 bits differ, one mirrored)", trains=True)
def mirrored(data: Data) -> None:
    data.replace(data.photo("p10"), np.ascontiguousarray(data.pixels("p01")[:, ::-1]))


@fault("error: val.txt, line 3: no such pair: 'gone' has no photo with a mask")
def list_names_a_missing_pair(data: Data) -> None:
    data.list("val").write_text("p08\np09\ngone\n")


@fault("error: val.txt: empty list: it names no pair", "pairs in no list, not used: p08, p09")
def empty_list(data: Data) -> None:
    data.list("val").write_text("# nothing yet\n")


@fault("no split: ", "has train.txt, test.txt but not val.txt")
def missing_list(data: Data) -> None:
    data.list("val").unlink()


@fault("error: val.txt, line 3: in two splits: 'p00' is also in train.txt, line 1")
def name_in_two_lists(data: Data) -> None:
    data.list("val").write_text("p08\np09\np00\n")


@fault("warning: val.txt, line 3: listed twice: 'p08' is also in val.txt, line 1")
def name_listed_twice(data: Data) -> None:
    data.list("val").write_text("p08\np09\np08\n")


@fault("error: val.txt: not UTF-8: line 2 holds the byte 0xe9; save the list as UTF-8")
def list_not_utf8(data: Data) -> None:
    data.list("val").write_bytes("p08\npé9\n".encode("latin-1"))


@fault("error: val.txt: not UTF-8: line 1 holds the byte 0xff; save the list as UTF-8")
def list_of_powershell(data: Data) -> None:
    data.list("val").write_bytes("p08\r\np09\r\n".encode("utf-16"))


@fault("error: images/p00.png: unreadable: 60000 x 60000 pixels are 3600 megapixels, more than 500")
def decompression_bomb(data: Data) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    data.photo("p00").write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@fault(
    "error: images: nearly black: the values of 12 photos of 16 bits go up to 4095, and 65535 is white; set data.max"
)
def photos_of_12_bits_in_16(data: Data) -> None:
    for name in data.names:
        deep = data.pixels(name)[..., ::-1].astype(np.uint16) * 16 + 15
        deep[0, 0] = 4095
        cv2.imwrite(str(data.photo(name)), deep)


@fault("warning: images: turned by EXIF: 1 photos (1 turned by 180°), but not their masks: train p00.")
def photo_turned_upside_down_by_exif(data: Data) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data.replace(data.photo("p00", "jpg"), data.pixels(), exif=exif)


@fault("warning: masks/p00.tif: several images in one file: only the first of 2 is used")
def mask_of_two_pages(data: Data) -> None:
    labels = Image.fromarray(data.labels())
    data.replace(data.mask("p00", "tif"), data.labels(), save_all=True, append_images=[labels])


@fault("error: images/p00.tif: unreadable: it holds 5 bands of unsigned 16 bits (RGB); expected grey, RGB or RGB with")
def photo_of_five_bands(data: Data) -> None:
    bands = np.dstack([data.pixels(), data.pixels()[..., :2]]).astype(np.uint16) * 257
    data.photo("p00").unlink()
    write_tiff(data.photo("p00", "tif"), bands)


@fault("warning: images/p00.png: several images in one file: only the first of 2 is used")
def animated_png(data: Data) -> None:
    more = Image.fromarray(255 - data.pixels())
    data.replace(data.photo("p00"), data.pixels(), save_all=True, append_images=[more])


@fault("warning: images/p00.tiff: several images in one file: only the first of 3 is used")
def tiff_of_pages(data: Data) -> None:
    more = [Image.fromarray(data.pixels(name)) for name in ("p01", "p02")]
    data.replace(data.photo("p00", "tiff"), data.pixels(), save_all=True, append_images=more)


@fault("error: masks: ambiguous mask values", "take the bright half with data.foreground=")
def jpeg_mask_with_grey_edges(data: Data) -> None:
    data.replace(data.mask("p00", "jpg"), cv2.GaussianBlur(data.labels(), (5, 5), 0))


@fault("error: masks/p00.png: unreadable: the mask's alpha channel varies")
def alpha_in_a_mask(data: Data) -> None:
    labels = data.labels()
    data.replace(data.mask("p00"), np.dstack([labels, labels, labels, 255 - labels]))


@fault(
    "error: masks: ambiguous mask colours: data.foreground=auto needs black and exactly one other colour, got 4 others",
    "Rare values are in train p00.",
)
def mask_of_colours(data: Data) -> None:
    labels = data.labels()
    data.replace(data.mask("p00"), np.dstack([labels, labels.T.reshape(labels.shape), labels * 0]))


@fault("warning: masks: foreground lost by resizing: 1 masks are empty at the network's input size: train p00")
def object_too_small_for_the_network(data: Data) -> None:
    wide = np.random.default_rng(1).integers(0, 256, (64 * 3, 64 * 3, 3), np.uint8)
    dot = np.zeros((64 * 3, 64 * 3), np.uint8)
    dot[3, 3] = 255  # of every nine pixels the middle one is taken
    data.replace(data.photo("p00"), wide)
    data.replace(data.mask("p00"), dot)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_nothing_is_changed(
    name: str, data: Data, settings: CheckSettings, tmp_path: Path
) -> None:
    planted = FAULTS[name]
    planted.plant(data)
    before = tree(data.root)
    code, lines = checked(settings, tmp_path / "out")
    for text in planted.says:
        assert [line for line in lines if text in line], lines
    bad = any(line.startswith("error") for line in lines)
    assert code == bad
    if bad and not planted.trains:
        with pytest.raises(UserError):
            build_splits(settings.data, settings.seed, 2)
    else:
        build_splits(settings.data, settings.seed, 2)
    assert tree(data.root) == before
    said = [line for line in lines if any(text in line for text in planted.says)]
    rest = [line for line in lines if line not in said]
    assert not [line for line in rest if "no such pair" not in line], "one fault, one finding"


def test_there_are_enough_kinds_of_faults() -> None:
    assert len(FAULTS) > 40


def other_formats(data: Data) -> None:
    """Photos and masks in formats that are rarer, but hold the same."""
    for name, suffix in {"p00": "avif", "p01": "jp2", "p02": "gif", "p03": "jfif", "p08": "j2k", "p10": "jpe"}.items():
        data.replace(data.photo(name, suffix), data.pixels(name), **({"quality": 95} if suffix == "avif" else {}))
    photo = data.pixels("p04")
    data.replace(data.photo("p04", "npy"), b"")
    np.save(data.photo("p04", "npy"), photo)
    for name, suffix in {"p00": "gif", "p01": "jp2", "p02": "npy", "p11": "npy"}.items():
        labels = data.labels(name)
        data.replace(data.mask(name, suffix), b"" if suffix == "npy" else labels)
        if suffix == "npy":
            np.save(data.mask(name, suffix), labels.astype(np.int64 if name == "p02" else np.float64))


SOUND: dict[str, Callable[[Data], Any]] = {
    "nothing": lambda data: None,
    "split by seed": lambda data: [data.list(split).unlink() for split in ("train", "val", "test")],  # type: ignore[func-returns-value]
    "CMYK": lambda data: data.replace(
        data.photo("p00", "jpg"), Image.fromarray(data.pixels()).convert("CMYK"), quality=95
    ),
    "16 bits": lambda data: data.replace(data.photo("p00"), data.pixels()[..., 0].astype(np.uint16) * 257),
    "grey": lambda data: data.replace(data.photo("p00"), data.pixels()[..., 1]),
    "masks of 1 bit": lambda data: data.change_masks(lambda mask: mask > 0),
    "other formats": other_formats,
    "red on a transparent ground": lambda data: data.change_masks(
        lambda mask: np.dstack([mask, 0 * mask, 0 * mask, mask])
    ),
    "a BOM": lambda data: data.list("val").write_text("p08\np09", encoding="utf-8-sig"),
}


@pytest.mark.parametrize("kind", SOUND)
def test_sound_data_has_no_problem(kind: str, data: Data, settings: CheckSettings, tmp_path: Path) -> None:
    SOUND[kind](data)
    assert checked(settings, tmp_path / "out") == (0, [])


def test_other_formats_hold_the_same_masks_and_nearly_the_same_photos(data: Data, settings: CheckSettings) -> None:
    before = [(pair.name, pair.read_photo(), pair.read_mask()) for pair in found_pairs(settings)]
    other_formats(data)
    rule = Foreground()
    for pair, (name, photo, mask) in zip(found_pairs(settings), before, strict=True):
        assert pair.name == name
        assert np.array_equal(rule(pair.read_mask()), rule(mask))
        exact = pair.photo.suffix in (".png", ".jp2", ".j2k", ".npy")
        assert np.abs(pair.read_photo().astype(int) - photo).mean() <= (0 if exact else 12)  # GIF has 256 colours


def found_pairs(settings: CheckSettings) -> list[Pair]:
    return [pair for pairs in build_splits(settings.data, settings.seed, 2).values() for pair in pairs]


def test_cut_outs_are_masks_by_their_alpha(data: Data, settings: CheckSettings, tmp_path: Path) -> None:
    labels = {name: data.labels(name) for name in data.names}
    for name in data.names:
        data.replace(data.mask(name), np.dstack([data.pixels(name), labels[name]]))
    code, lines = checked(settings, tmp_path / "out")
    assert (code, len(lines)) == (1, 12)
    assert all("set data.mask_channel=alpha;" in line for line in lines)
    named = replace(settings, data=replace(settings.data, mask_channel="alpha"))
    assert checked(named, tmp_path / "named") == (0, [])
    for pair in found_pairs(named):
        assert np.array_equal(pair.read_mask().array, labels[pair.name])


def test_names_with_spaces_and_accents_of_two_systems(data: Data, settings: CheckSettings, tmp_path: Path) -> None:
    name = "Zoë 日本 (1)"
    data.photo("p00").rename(data.photo(unicodedata.normalize("NFC", name)))
    data.mask("p00").rename(data.mask(unicodedata.normalize("NFD", name)))
    data.names[0] = unicodedata.normalize("NFD", name)
    data.lists()
    assert checked(settings, tmp_path / "out") == (0, [])


def test_a_file_without_permission(
    data: Data, settings: CheckSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Image.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Image.Image:  # root may read everything
        if Path(path).parent.name == "images" and Path(path).stem == "p00":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Image, "open", refuse)
    assert checked(settings, tmp_path / "out") == (
        1,
        ["error: images/p00.png: unreadable: cannot be read: Permission denied"],
    )


def test_a_folder_and_a_list_without_permission(
    data: Data, settings: CheckSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        read = Path.read_text
        patch.setattr(
            Path, "read_text", lambda path, **options: refuse(path) if path.stem == "val" else read(path, **options)
        )
        _, lines = checked(settings, tmp_path / "out")
    assert lines == ["error: val.txt: unreadable: Permission denied"]
    monkeypatch.setattr(os, "scandir", refuse)
    _, lines = checked(settings, tmp_path / "out2")
    assert lines == [
        f"error: {data.root}: no pairs: The folder {data.root / 'images'} cannot be read: Permission denied."
    ]


def test_all_problems_are_listed_though_there_is_no_split(data: Data, settings: CheckSettings, tmp_path: Path) -> None:
    FAULTS["missing_list"].plant(data)
    FAULTS["empty_file"].plant(data)
    FAULTS["mask_of_another_size"].plant(data)
    _, lines = checked(settings, tmp_path / "out")
    assert [line.split(": ")[1] for line in lines] == [str(data.root), "images/p00.png"]
    data.add("p00")
    FAULTS["mask_of_another_size"].plant(data)
    _, lines = checked(settings, tmp_path / "out")
    assert [line.split(": ")[1] for line in lines] == [str(data.root), "p00"]


def test_mistakes_in_the_settings_are_not_the_datas(data: Data, settings: CheckSettings, tmp_path: Path) -> None:
    missing = replace(settings, data=replace(settings.data, root=str(tmp_path / "gone")))
    with pytest.raises(UserError, match="gone is not a folder"):
        check(missing, tmp_path / "out")
    for folder in (data.root, data.root / "images", data.root / "masks" / "new"):
        with pytest.raises(UserError, match="is inside the data set"):
            check(settings, folder)
    assert not (tmp_path / "out").exists()


def test_near_duplicates_can_be_passed_over(data: Data, settings: CheckSettings, tmp_path: Path) -> None:
    FAULTS["encoded_again"].plant(data)
    assert checked(replace(settings, near=None), tmp_path / "out") == (0, [])


def test_the_facts(data: Data, settings: CheckSettings, tmp_path: Path) -> None:
    data.replace(data.photo("p07"), np.zeros((96, 64, 3), np.uint8) + data.rng.integers(0, 256, (1, 64, 3), np.uint8))
    quarter = np.zeros((96, 64), np.uint8)
    quarter[:48, :32] = 255
    data.replace(data.mask("p07"), quarter)
    data.replace(data.photo("p06", "jpg"), data.pixels("p05"), quality=90)
    found = check(settings, tmp_path / "out")
    assert found["photos"] == {"different_sizes": 2, "smallest": [48, 64], "median": [48, 64], "largest": [96, 64]}
    assert found["mask_values"] == {"0": 12, "255": 12}
    assert {split: row["pairs"] for split, row in found["splits"].items()} == {"train": 8, "val": 2, "test": 2}
    train = [(data.labels(name) > 0).mean() for name in data.names[:8]]
    assert found["splits"]["train"]["foreground_mean"] == pytest.approx(np.mean(train), abs=1e-6)
    assert found["splits"]["train"]["foreground_median"] == pytest.approx(np.median(train), abs=1e-6)
    assert found["splits"]["train"]["foreground_histogram"] == [0, 7, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found["near_within_split"] == {"train": 1}
    (pair,) = found["near_within_split_pairs"]
    assert {pair["first"], pair["second"]} == {"train/p05", "train/p06"}
    assert found["near"] == []
    assert found["objects"]["cell"] == 16
    assert found["objects"]["objects"] == 12
    assert found["objects"]["small_objects"] == 0


def test_objects_are_measured_at_the_size_at_which_the_network_sees_them(settings: CheckSettings) -> None:
    def sizes(**data: Any) -> list[tuple[int, int] | None]:
        given = replace(settings, data=replace(settings.data, image_size=64, **data))
        crops = replace(given, augment=AugmentSettings({"object_fraction": 0.5}))
        return [module._input_size(each, split) for each in (given, crops) for split in ("train", "val")]

    assert sizes(eval_size=[96, 128]) == [(64, 64), (96, 128), None, (96, 128)]
    assert sizes(eval_tile=256) == [(64, 64), None, None, None]


def test_the_contact_sheet_shows_suspects_and_all_splits(data: Data, settings: CheckSettings, tmp_path: Path) -> None:
    FAULTS["one_mask_empty"].plant(data)
    check(replace(settings, sheet=4), tmp_path / "out")
    sheet = np.array(Image.open(tmp_path / "out" / "contact_sheet.png"))
    assert sheet.shape == (8 + 240, 8 + 4 * 208, 3)
    red = (sheet == (210, 40, 30)).all(-1)
    assert red[5].sum() > 200  # the frame of p00, and of no other
    assert not red[:, 216:].any()
    assert (sheet == (255, 0, 200)).all(-1)[:, 216:].any()
    check(replace(settings, sheet=0), tmp_path / "none")
    assert not (tmp_path / "none" / "contact_sheet.png").exists()


def test_the_command_line(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["check", "data=folder", f"data.root={data.root}", "run_dir=out", "data.image_size=64"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "│ train │     8 │ " in out
    assert "smallest 48 x 64, median 48 x 64, largest 48 x 64; 1 different sizes" in out
    assert "smaller than 16 x 16 pixels" in out
    assert out.endswith("Data check passed: no errors.\n")
    FAULTS["encoded_again"].plant(data)
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "near-duplicates in two splits" in out
    assert err.startswith(f"segtune check: data check failed: 1 error in {data.root}:\nerror: p00: near-")
    assert main([*command[:2], "data.root=gone"]) == 2
