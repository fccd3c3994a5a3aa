"""The command predict, with a real checkpoint: what it finds, writes, refuses and leaves."""

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw

from segtune.__main__ import main
from segtune.commands import predict
from segtune.config.command_settings import PredictSettings
from segtune.errors import FailedError
from segtune.inference import predictor
from segtune.runtime.device import Device
from tests.data.tiff_files import write_tiff

pytestmark = pytest.mark.trains
CPU = Device(torch.device("cpu"), torch.float32)
TRAINING = (
    "data=folder",
    "data.root=photos",
    "data.image_size=64",
    "backbone=resnet50",
    "backbone.weights=none",
    "taps.low=layer1.0.act2",
    "taps.high=layer1.2.act2",
    "decoder.channels=8",
    "freeze=none",
    "freeze.phases.all.epochs=1",
    "train.workers=0",
    "run_dir=run",
)


@pytest.fixture(scope="module")
def home(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the checkpoint `run/checkpoints/best.pt` of a short training."""
    home = tmp_path_factory.mktemp("home")
    for name in ("images", "masks"):
        (home / "photos" / name).mkdir(parents=True)
    photos, masks = home / "photos" / "images", home / "photos" / "masks"
    for i in range(8):
        mask = np.zeros((64, 64), np.uint8)
        cv2.circle(mask, (20 + 3 * i, 32), 12 + i, 255, -1)
        cv2.imwrite(str(masks / f"d{i}.png"), mask)
        cv2.imwrite(str(photos / f"d{i}.png"), np.dstack([mask, mask // 3 + 9 * i, 200 - mask // 2]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["train", *TRAINING]) == 0
        yield home


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def red(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of a network: the probability is the red of a pixel, so a picture tells what its mask must be."""

    def network(images: torch.Tensor) -> torch.Tensor:
        return torch.logit(images[:, :1].float() / 255, eps=1e-6)

    def load_as(settings: PredictSettings) -> predictor.Predictor:
        category = settings.category or "object"
        return predictor.Predictor(
            network, (32, 32), 0.5, CPU, tile=settings.tile, clean=settings.clean, category=category
        )

    monkeypatch.setattr(predict, "load_as", load_as)


def call(capsys: pytest.CaptureFixture[str], *arguments: str, home: Path | None = None) -> tuple[int, str, str]:
    """Run in this process: exit code, and what was said and complained about."""
    checkpoint = home / "run" / "checkpoints" / "best.pt" if home else Path("none.pt")
    if not home:
        checkpoint.touch()  # it is looked for, and not read: see the fixture `red`
    code = main(["predict", f"checkpoint={checkpoint}", *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out.strip(), err.strip()


def half_red(height: int = 40, width: int = 60) -> np.ndarray:
    """The left third red, the rest blue."""
    picture = np.full((height, width, 3), (0, 0, 200), np.uint8)
    picture[:, : width // 3] = (255, 0, 0)
    return picture


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_with_a_trained_model(place: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "in" / "tief").mkdir(parents=True)
    for name in ("eins.png", "tief/zwei.jpg", ".hidden.png", "notes.txt"):
        (place / "in" / name).write_bytes((home / "photos" / "images" / "d3.png").read_bytes())
    code, out, err = call(capsys, "input=in", "probabilities=true", home=home)
    assert (code, err) == (0, "")
    names = ["eins", "tief/zwei"]
    expected = [f"{kind}/{name}.{end}" for kind, end in KINDS for name in names]
    assert files(place / "predictions") == expected
    mask = np.array(Image.open(place / "predictions" / "masks" / "eins.png"))
    probability = np.array(Image.open(place / "predictions" / "probabilities" / "eins.png"))
    assert mask.shape == probability.shape == (64, 64)
    assert set(np.unique(mask)) <= {0, 255}
    assert probability.dtype == np.uint16
    assert ((probability > 32768) == (mask > 0)).mean() > 0.999
    assert out.splitlines()[0].startswith("2 images; resized to 64 x 64 pixels, threshold 0.5, on ")
    share = f"{100 * (mask > 0).mean():.1f} % foreground on average"
    assert out.splitlines()[-1].startswith(f"2 images in predictions: {share}, ")


def test_what_is_remarkable_in_a_file_is_said(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network says what is red: half of white, of 12 bits in 16, in the left third."""

    def network(images: torch.Tensor) -> torch.Tensor:
        return torch.logit(images[:, :1].float() / 255, eps=1e-6)

    def load_as(settings: PredictSettings) -> predictor.Predictor:
        return predictor.Predictor(network, (40, 60), 0.5, CPU, max_value=settings.max_value)

    monkeypatch.setattr(predict, "load_as", load_as)
    (place / "in").mkdir()
    deep = half_red().astype(np.uint16) * 12
    write_tiff(place / "in" / "planes.tif", deep, planar=True)
    write_tiff(place / "in" / "pages.tif", deep, deep, deep)
    cv2.imwrite(str(place / "in" / "bright.png"), deep[..., ::-1] * 4)
    write_tiff(place / "in" / "five.tif", np.zeros((40, 60, 5), np.uint16))
    code, out, err = call(capsys, "input=in", "max_value=4095", "overlays=false")
    assert (code, err) == (1, "segtune predict: 1 of 4 images could not be read: five.tif.")
    assert out.splitlines()[1:-1] == [
        f"{Path('in/bright.png')}: 33.33% of its values, up to 12240, are above max_value=4095 and become white",
        f"skipped: {Path('in/five.tif')}: it holds 5 bands of unsigned 16 bits (RGB); expected grey, RGB or RGB with "
        "alpha, in unsigned 8 or 16 bits; save a mask as 8-bit grey, and of a photo three bands as RGB, scaled to that "
        "range",
        f"{Path('in/pages.tif')}: several images in one file: only the first of 3 is used",
    ]
    for name in ("planes", "pages", "bright"):
        mask = np.array(Image.open(place / "predictions" / "masks" / f"{name}.png"))
        assert np.array_equal(mask > 0, half_red()[..., 0] > 0)
    code, out, _ = call(capsys, "input=in/planes.tif", "output=dark", "overlays=false")
    assert code == 0
    assert out.splitlines()[1] == (
        f"{Path('in/planes.tif')}: nearly black: its 16-bit values go up to 3060, and 65535 is white; if other photos "
        "do too, set max_value=4095"
    )
    assert not np.array(Image.open(place / "dark" / "masks" / "planes.png")).any()


KINDS = [("masks", "png"), ("overlays", "jpg"), ("probabilities", "png")]


@pytest.mark.parametrize("tile", ["null", "128"])
def test_masks_of_all_kinds_of_files(place: Path, red: None, capsys: pytest.CaptureFixture[str], tile: str) -> None:
    """Every file is a picture whose left third is red as one sees it, and 40 x 60 pixels large."""
    (place / "in").mkdir()
    picture = half_red()
    image = Image.fromarray(picture)
    image.save(place / "in" / "plain.png")
    image.save(place / "in" / "Grüße (1) 中.png")
    image.convert("CMYK").save(place / "in" / "cmyk.tif")
    image.save(place / "in" / "BIG.BMP")
    cv2.imwrite(str(place / "in" / "deep.png"), picture[..., ::-1].astype(np.uint16) * 257)
    grey = Image.fromarray(np.where(picture[..., 0] > 0, 255, 0).astype(np.uint8))
    grey.save(place / "in" / "grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: to be turned by 90 degrees clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(place / "in" / "turned.jpg", exif=exif, quality=95)
    assert Image.open(place / "in" / "turned.jpg").size == (40, 60)
    code, _, err = call(capsys, "input=in", f"tile={tile}", "probabilities=true")
    assert (code, err) == (0, "")
    assert len(files(place / "predictions")) == 3 * 7
    for path in (place / "predictions" / "masks").iterdir():
        mask = np.array(Image.open(path))
        assert mask.shape == (40, 60), path
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        wrong = (mask > 0) != (picture[..., 0] > 0)
        assert wrong.mean() < 0.06, path  # 32 pixels of the network's for 60
        assert not wrong[:, [0, 10, 30, 50]].any()
    overlay = Image.open(place / "predictions" / "overlays" / "turned.jpg")
    assert overlay.size == (60, 40)
    assert not overlay.getexif()
    assert np.array(overlay)[20, 5, 1] > 50  # red is tinted
    assert np.abs(np.array(overlay)[20, 50].astype(int) - (0, 0, 200)).max() < 30  # blue is left alone
    probability = np.array(Image.open(place / "predictions" / "probabilities" / "plain.png"))
    assert probability[20, 5] == 65535
    assert probability[20, 50] == 0


def test_overlays_leave_the_photo_as_it_is() -> None:
    photo = half_red()
    before, mask = photo.copy(), photo[..., 0] > 0
    shown = predict.overlay(photo, mask)
    assert (photo == before).all()
    assert (shown[~mask] == photo[~mask]).all()
    assert (shown[:, 3:15] != photo[:, 3:15]).any(axis=2).all()


def test_unreadable_files_are_named_and_the_others_done(
    place: Path, red: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "in").mkdir()
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(content, "JPEG")
    (place / "in" / "cut.jpg").write_bytes(content.getvalue()[:900])
    (place / "in" / "empty.png").touch()
    (place / "in" / "text.png").write_text("no image")
    Image.fromarray(half_red()).save(place / "in" / "good.png")
    code, out, err = call(capsys, "input=in")
    assert code == 1
    assert err == "segtune predict: 3 of 4 images could not be read: cut.jpg, empty.png, text.png."
    assert "skipped: in/cut.jpg: cannot be read: " in out
    assert "skipped: in/empty.png: the file is empty" in out
    assert "skipped: in/text.png: a text that begins with 'no image', not an image" in out
    assert files(place / "predictions") == ["masks/good.png", "overlays/good.jpg"]


def save(path: Path, picture: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(half_red() if picture is None else picture).save(path)


def test_one_image_that_cannot_be_predicted_or_written_does_not_end_the_others(
    place: Path, red: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "clash", "late", "poison", "z"):
        save(place / "in" / f"{name}.png")
    save(place / "in" / "long.png", np.full((1, 65_501, 3), 255, np.uint8))
    save(place / "in" / "crash.png", np.zeros((3, 3, 3), np.uint8))
    (place / "predictions" / "masks" / "clash.png").mkdir(parents=True)
    original, calls = predictor.Predictor.predict, []

    def predicted(self: predictor.Predictor, image: np.ndarray) -> predictor.Prediction:
        calls.append(image.shape)
        if image.shape == (3, 3, 3):
            raise RuntimeError("cuDNN error")
        if len(calls) == 6:  # poison.png
            raise FailedError("The model returns NaN or infinity in fp16.")
        return original(self, image)

    monkeypatch.setattr(predictor.Predictor, "predict", predicted)
    code, out, err = call(capsys, "input=in")
    assert code == 1
    assert err == (
        "segtune predict: 2 of 7 images could not be predicted: crash.png, poison.png.\n"
        "2 of 7 images could not be written: clash.png, long.png."
    )
    lines = out.splitlines()
    assert "not written: in/clash.png: masks: Cannot write predictions/masks/clash.png: " in out
    assert "not written: in/long.png: overlays: got 1 x 65501 pixels, but JPEG holds at most 65500 a side" in lines
    assert "skipped: in/crash.png: RuntimeError: cuDNN error" in lines
    assert "skipped: in/poison.png: The model returns NaN or infinity in fp16." in lines
    assert "3 images in predictions: " in lines[-1]
    masks = [f"masks/{name}.png" for name in ("a", "late", "long", "z")]
    overlays = [f"overlays/{name}.jpg" for name in ("a", "clash", "late", "z")]
    assert files(place / "predictions") == [*masks, *overlays]


def test_a_model_that_returns_nan_writes_no_black_masks(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, tile in ((np.nan, None), (np.inf, None), (-np.inf, 128)):

        def network(images: torch.Tensor, value: float = value) -> torch.Tensor:
            return torch.full_like(images[:, :1], value, dtype=torch.float32)

        broken = predictor.Predictor(network, (32, 32), 0.5, CPU, tile=tile)
        monkeypatch.setattr(predict, "load_as", lambda _, broken=broken: broken)
        save(place / "in" / "a.png")
        code, out, err = call(capsys, "input=in")
        assert (code, err) == (1, "segtune predict: 1 of 1 image could not be predicted: a.png.")
        what = "NaN" if np.isnan(value) else "infinity"
        assert out.endswith(f"skipped: in/a.png: The model returns {what} in float32: its weights are broken.")
        assert not files(place / "predictions")


def test_files_left_out_are_counted_by_kind(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    save(place / "in" / "a.png")
    for name in ("b.XYZ", "sub/c.txt", "d.txt", "README", ".hidden.txt", "Thumbs.db"):
        (place / "in" / name).parent.mkdir(exist_ok=True)
        (place / "in" / name).touch()
    code, out, err = call(capsys, "input=in")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == "4 files left out: 2 .txt, 1 .xyz, 1 without extension."
    code, out, _ = call(capsys, "input=in/*.*", "overwrite=true")
    assert out.splitlines()[1] == "2 files left out: 1 .txt, 1 .xyz."
    (place / "in" / "a.png").unlink()
    assert call(capsys, "input=in")[2].endswith("are skipped. 4 files left out: 2 .txt, 1 .xyz, 1 without extension.")


def test_a_result_beside_a_folder_of_its_name(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "a.png/b.jpg", "c.jpg", "c.png"):
        save(place / "in" / name)
    code, _, err = call(capsys, "input=in", "overlays=false")
    assert (code, err) == (0, "")
    assert files(place / "predictions" / "masks") == ["a.jpg.png", "a.png/b.png", "c.jpg.png", "c.png.png"]


def test_an_output_that_is_no_folder_and_one_that_is_deleted(
    place: Path, red: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        save(place / "in" / f"{name}.png")
    (place / "file").touch()
    code, _, err = call(capsys, "input=in", "output=file")
    assert (code, err) == (2, "segtune predict: output=file cannot be used: file/masks: Not a directory.")
    original = predictor.Predictor.predict

    def slow(self: predictor.Predictor, image: np.ndarray) -> predictor.Prediction:
        if (place / "predictions" / "masks" / "a.png").exists():
            shutil.rmtree(place / "predictions")
        return original(self, image)

    monkeypatch.setattr(predictor.Predictor, "predict", slow)
    code, _, err = call(capsys, "input=in")
    assert code == 1
    assert err == (
        "segtune predict: 2 results no longer there, deleted or moved in between: predictions/masks/a.png, "
        "predictions/overlays/a.jpg."
    )


def test_what_is_no_regular_file_is_not_read(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Reading a pipe that nobody writes to would wait for ever."""
    save(place / "in" / "a.png")
    os.mkfifo(place / "in" / "pipe.png")
    (place / "in" / "dangling.png").symlink_to(place / "nothing")
    code, out, err = call(capsys, "input=in")
    assert code == 1
    assert err == "segtune predict: 2 of 3 images could not be read: dangling.png, pipe.png."
    assert "skipped: in/pipe.png: a named pipe, not a file" in out.splitlines()
    assert "skipped: in/dangling.png: a link to nothing, not a file" in out.splitlines()


def test_results_are_not_overwritten_unasked(place: Path, capsys: pytest.CaptureFixture[str], red: None) -> None:
    (place / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(half_red()).save(place / "in" / name)
    assert call(capsys, "input=in/a.png")[0] == 0
    (place / "predictions" / "masks" / "a.png").write_bytes(b"precious")
    code, _, err = call(capsys, "input=in")
    assert code == 2
    assert err == (
        "segtune predict: 2 results exist already, such as predictions/masks/a.png; nothing was written. "
        "Set another folder (output=…), or overwrite=true to replace them."
    )
    assert files(place / "predictions") == ["masks/a.png", "overlays/a.jpg"]
    assert (place / "predictions" / "masks" / "a.png").read_bytes() == b"precious"
    assert call(capsys, "input=in", "frames=2")[2] == (
        "segtune predict: frames=2 is for a video or a camera, but input=in is neither."
    )
    assert call(capsys, "input=in", "overwrite=true")[0] == 0
    assert np.array(Image.open(place / "predictions" / "masks" / "a.png")).shape == (40, 60)


def test_own_results_are_no_input(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(half_red()).save(place / "a.png")
    for output in ("out", "."):
        for pattern in (".", "**/*.*"):
            for _ in range(2):  # the second time the results of the first are there
                code, out, err = call(capsys, f"input={pattern}", f"output={output}", "overwrite=true")
                assert code == 0, err
                assert "\n1 image in " in out
        shutil.rmtree("out", ignore_errors=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("input=nowhere",),
            "input=nowhere: no such file or folder. "
            "Expected a photo, a folder, a pattern such as 'photos/*.jpg', a video, or camera:0.",
        ),
        (
            ("input=empty",),
            "input=empty: no images found in this folder and its subfolders. Expected files that end in "
            ".avif .bmp .gif .heic .heif .hif .j2k .jfif .jp2 .jpe .jpeg .jpg .npy .png .tif .tiff .webp; hidden "
            "files, and results in the output folder, are skipped.",
        ),
        (
            ("input=empty/*.jpg",),
            "input=empty/*.jpg: no images found that match. Expected files that end in "
            ".avif .bmp .gif .heic .heif .hif .j2k .jfif .jp2 .jpe .jpeg .jpg .npy .png .tif .tiff .webp; hidden "
            "files, and results in the output folder, are skipped.",
        ),
        (("input=camera:front",), "input=camera:front: expected a camera by its number, such as camera:0."),
        (
            ("input=a.png", "masks=false", "overlays=false"),
            "All outputs are off. Set at least one of masks=true, probabilities=true, overlays=true.",
        ),
        (
            ("input=a.png",),
            "Cannot read the checkpoint none.pt: it is empty. Download or copy it again.",
        ),
        (
            ("input=a.png", "tile=256", "image_size=128"),
            "tile=256 predicts an image at its own size, image_size=128 at a fixed one: set only one of them.",
        ),
        (("input=a.png", "tile=9"), "One setting is wrong:\n  tile: got 9; expected: greater than or equal to 128."),
        (("format=voc", "input=a.png"), "One setting is wrong:\n  format: got 'voc'; expected: 'masks', 'coco', "),
        (
            ("input=broken.mp4", "format=[masks,coco]"),
            "format=coco is for images, but input=broken.mp4 is a video or a camera.",
        ),
        (
            ("input=[a.png,broken.mp4]",),
            "input: broken.mp4 is a video or a camera, which is predicted alone: input=broken.mp4",
        ),
        (("input=[a.png,nowhere]",), "input=nowhere: no such file or folder. Expected a photo, a folder, "),
        (("input=broken.mp4",), "broken.mp4: cannot be opened as a video; it is damaged, or OpenCV has no decoder "),
        ((), "input is required. Set input=…"),
    ],
)
def test_what_cannot_be_used(place: Path, capsys: pytest.CaptureFixture[str], arguments, expected: str) -> None:
    (place / "empty").mkdir()
    Image.fromarray(half_red()).save(place / "a.png")
    (place / "broken.mp4").write_bytes(b"no video")
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert err.startswith(f"segtune predict: {expected}")
    assert not (place / "predictions").exists()


def make_video(path: Path, count: int = 6, size: tuple[int, int] = (60, 40), rate: float = 12.5) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, size)
    for _ in range(count):
        writer.write(np.ascontiguousarray(half_red(size[1], size[0])[..., ::-1]))
    writer.release()


def test_a_video(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(place / "film.avi")
    code, out, err = call(capsys, "input=film.avi", "probabilities=true")
    assert (code, err) == (0, "")
    assert "6 frames in predictions: 3" in out
    numbers = [f"{number:06d}.png" for number in range(1, 7)]
    assert files(place / "predictions") == [
        *(f"masks/film/{number}" for number in numbers),
        "overlays/film.mp4",
        *(f"probabilities/film/{number}" for number in numbers),
    ]
    mask = np.array(Image.open(place / "predictions" / "masks" / "film" / "000006.png"))
    assert mask[:, [2, 10]].all()
    assert not mask[:, [30, 50]].any()
    overlay = cv2.VideoCapture(str(place / "predictions" / "overlays" / "film.mp4"))
    assert overlay.get(cv2.CAP_PROP_FPS) == 12.5
    shown = []
    while (frame := overlay.read())[0]:
        shown.append(frame[1])
    assert [frame.shape for frame in shown] == [(40, 60, 3)] * 6
    assert shown[5][20, 5, 1] > 50  # red is tinted
    code, _, err = call(capsys, "input=film.avi", "frames=2")
    assert code == 2
    assert err.startswith("segtune predict: 7 results exist already, such as predictions/masks/film/000001.png; ")
    code, out, _ = call(capsys, "input=film.avi", "frames=2", "overwrite=true")
    assert code == 0
    assert out.startswith("2 frames; ")
    assert files(place / "predictions" / "masks") == ["film/000001.png", "film/000002.png"]  # no old ones behind them


def test_a_damaged_video_keeps_the_numbers_of_its_frames(
    place: Path, red: None, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(place / "film.avi", 8)
    content = bytearray((place / "film.avi").read_bytes())
    starts = [found.start() for found in re.finditer(b"00dc", bytes(content))][1:9]  # after the index
    for number in (3, 4, 7):  # the content of a frame, not its heading
        content[starts[number - 1] + 8 : starts[number]] = bytes(starts[number] - starts[number - 1] - 8)
    (place / "film.avi").write_bytes(content)
    code, out, err = call(capsys, "input=film.avi")
    assert code == 1
    assert err == (
        "segtune predict: film.avi is damaged: 3 of its 8 frames could not be read. "
        "The results of the others have the numbers that the frames have in it, as far as it tells."
    )
    assert "5 frames in predictions: " in out
    assert files(place / "predictions" / "masks") == [f"film/00000{number}.png" for number in (1, 2, 5, 6, 8)]


def test_a_video_that_was_cut_off(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(place / "film.avi", 8)
    content = (place / "film.avi").read_bytes()
    sixth = [found.start() for found in re.finditer(b"00dc", content)][6]
    (place / "film.avi").write_bytes(content[:sixth])
    code, _, err = call(capsys, "input=film.avi", "overlays=false")
    assert code == 1
    assert err.startswith("segtune predict: film.avi is damaged: 3 of its 8 frames could not be read. ")
    assert files(place / "predictions" / "masks") == [f"film/00000{number}.png" for number in range(1, 6)]
    code, _, err = call(capsys, "input=film.avi", "overlays=false", "overwrite=true", "frames=5")
    assert (code, err) == (0, "")


def test_a_frame_that_cannot_be_predicted_does_not_end_the_others(
    place: Path, red: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(place / "film.avi")
    seen, original = [], predictor.Predictor.predict

    def predicted(self: predictor.Predictor, image: np.ndarray) -> predictor.Prediction:
        seen.append(image)
        if len(seen) == 2:
            raise FailedError("The model returns NaN.")
        return original(self, image)

    monkeypatch.setattr(predictor.Predictor, "predict", predicted)
    code, out, err = call(capsys, "input=film.avi")
    assert (code, err) == (1, "segtune predict: 1 of 6 frames could not be predicted: 000002.")
    assert "skipped: frame 2: The model returns NaN." in out.splitlines()
    assert files(place / "predictions" / "masks") == [f"film/00000{number}.png" for number in (1, 3, 4, 5, 6)]


def test_odd_frames(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Masks have every pixel; an MP4 of this codec cannot have odd sides."""
    make_video(place / "odd.avi", count=2, size=(61, 41))
    assert call(capsys, "input=odd.avi")[0] == 0
    taken = cv2.VideoCapture(str(place / "odd.avi")).read()[1].shape[:2]
    assert np.array(Image.open(place / "predictions" / "masks" / "odd" / "000001.png")).shape == taken
    assert cv2.VideoCapture(str(place / "predictions" / "overlays" / "odd.mp4")).read()[1].shape == (40, 60, 3)


@pytest.mark.parametrize("source", ["film.avi", "camera:0", "in"])
def test_ctrl_c_keeps_what_was_written(
    place: Path, red: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    """For a camera it is the way to end. A file stands in for the camera."""
    make_video(place / "film.avi")
    (place / "in").mkdir()
    for number in range(6):
        Image.fromarray(half_red()).save(place / "in" / f"{number}.png")
    open_file = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: open_file(str(place / "film.avi")))
    seen, original = [], predictor.Predictor.predict

    def interrupted(self: predictor.Predictor, image: np.ndarray) -> predictor.Prediction:
        seen.append(image)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return original(self, image)

    monkeypatch.setattr(predictor.Predictor, "predict", interrupted)
    code, out, err = call(capsys, f"input={source}")
    if source == "camera:0":
        assert (code, err) == (0, "")
        assert out.startswith("an unknown number of frames; ")
        assert "3 frames in predictions: " in out
    else:
        assert code == 130
        what = "3 of 6 images" if source == "in" else "3 frames"
        assert err == f"Stopped after {what}; finished results are in predictions."
    assert len(list((place / "predictions" / "masks").rglob("*.png"))) == 3
    if source != "in":
        monkeypatch.undo()
        name = "camera0" if source == "camera:0" else "film"
        film = cv2.VideoCapture(str(place / "predictions" / "overlays" / f"{name}.mp4"))
        assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert not [name for name in files(place / "predictions") if "partial" in name]


SQUARES = {"skin": (slice(4, 28), slice(6, 34)), "speck": (slice(30, 36), slice(50, 56))}


def squares(hole: bool = False) -> np.ndarray:
    """Red squares on blue, (40, 60): one of 24 x 28 pixels, perhaps with a hole, one of 6 x 6."""
    picture = np.full((40, 60, 3), (0, 0, 200), np.uint8)
    for place in SQUARES.values():
        picture[place] = (255, 0, 0)
    if hole:
        picture[12:18, 14:22] = (0, 0, 200)
    return picture


def masks_of(labelme: Path) -> np.ndarray:
    """Return the mask of a file, as labelme draws it."""
    data = json.loads(labelme.read_text(encoding="utf-8"))
    assert Image.open(labelme.parent / data["imagePath"])
    canvas = Image.new("L", (data["imageWidth"], data["imageHeight"]))
    for shape in data["shapes"]:
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in shape["points"]], fill=1, outline=1)
    return np.asarray(canvas) > 0


def test_predictions_as_annotations_of_every_tool(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    save(place / "in" / "a.png", squares(hole=True))
    save(place / "in" / "tief" / "b.png", np.full((20, 30, 3), (0, 0, 200), np.uint8))
    formats = "format=[masks,coco,labelme,yolo,cvat]"
    code, _, err = call(capsys, "input=in", formats, "overlays=false", "category=skin", "tile=128")
    assert (code, err) == (0, "")
    images = ["images/a.png", "images/tief/b.png"]
    assert files(place / "predictions") == sorted(
        [
            *("masks/a.png", "masks/tief/b.png", "labelme/a.json", "labelme/tief/b.json"),
            *("labelme/a.png", "labelme/tief/b.png"),
            *("yolo/data.yaml", "yolo/labels/a.txt", "yolo/labels/tief/b.txt"),
            *("coco/annotations.json", "cvat/annotations.xml"),
            *(f"{tool}/{image}" for tool in ("coco", "yolo", "cvat") for image in images),
        ]
    )
    mask = np.array(Image.open(place / "predictions" / "masks" / "a.png")) > 0
    assert mask.sum() == 24 * 28 + 36 - 48
    assert np.array_equal(masks_of(place / "predictions" / "labelme" / "a.json"), mask)
    coco = json.loads((place / "predictions" / "coco" / "annotations.json").read_text(encoding="utf-8"))
    assert [each["file_name"] for each in coco["images"]] == ["a.png", "tief/b.png"]
    assert sorted(each["area"] for each in coco["annotations"]) == [36, 24 * 28 - 48]
    assert all(0.99 < each["score"] <= 1 for each in coco["annotations"])
    for tool in ("coco", "yolo", "cvat"):
        link = place / "predictions" / tool / "images" / "a.png"
        assert link.read_bytes() == (place / "in" / "a.png").read_bytes()
    assert (place / "predictions" / "yolo" / "labels" / "tief" / "b.txt").read_text() == ""
    named = {
        "coco": coco["categories"][0]["name"],
        "labelme": json.loads((place / "predictions/labelme/a.json").read_text())["shapes"][0]["label"],
        "yolo": yaml.safe_load((place / "predictions/yolo/data.yaml").read_text())["names"][0],
        "cvat": ET.parse(place / "predictions/cvat/annotations.xml").findtext("meta/task/labels/label/name"),
    }
    assert set(named.values()) == {"skin"}


def test_a_format_alone_writes_no_images_of_masks(place: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The object is called as in training, which here does not say."""
    shutil.copytree(home / "photos" / "images", place / "in")
    code, _, err = call(capsys, "input=in/d3.png", "format=labelme", "overlays=false", home=home)
    assert (code, err) == (0, "")
    assert files(place / "predictions") == ["labelme/d3.json", "labelme/d3.png"]
    data = json.loads((place / "predictions" / "labelme" / "d3.json").read_text(encoding="utf-8"))
    assert {shape["label"] for shape in data["shapes"]} <= {"object"}


def test_corrected_masks_are_written_everywhere(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    save(place / "a.png", squares(hole=True))
    expected = {
        "clean.min_area=37": 24 * 28 - 48,
        "clean.min_area=0.01": 24 * 28 - 48 + 36,  # 24 of 2,400 pixels
        "clean.largest=true": 24 * 28 - 48,
        "clean.fill_holes=true": 24 * 28 + 36,
        "clean.fill_holes=48": 24 * 28 + 36 - 48,
    }
    for setting, pixels in expected.items():
        more = ("input=a.png", "format=[masks,labelme]", "overlays=false", "tile=128", "overwrite=true")
        assert call(capsys, *more, setting)[0] == 0
        mask = np.array(Image.open(place / "predictions" / "masks" / "a.png")) > 0
        assert mask.sum() == pixels, setting
        assert np.array_equal(masks_of(place / "predictions" / "labelme" / "a.json"), mask)


def test_annotations_are_of_the_photo_as_displayed(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (place / "in").mkdir()
    turned = Image.fromarray(squares()).transpose(Image.Transpose.ROTATE_90)
    turned.save(place / "in" / "turned.png", exif=exif)
    save(place / "in" / "upright.png", squares())
    code, out, _ = call(capsys, "input=in", "format=[labelme,coco]", "overlays=false", "tile=128")
    assert code == 0
    assert out.splitlines()[-1] == (
        "1 photo is turned by its EXIF orientation (turned.png). Annotations are of the photo as displayed, as "
        "labelme, CVAT and Ultralytics have it; a tool that ignores the orientation shows them turned."
    )
    folder = place / "predictions" / "labelme"
    assert np.array_equal(masks_of(folder / "turned.json"), squares()[..., 0] > 0)
    coco = json.loads((place / "predictions" / "coco" / "annotations.json").read_text(encoding="utf-8"))
    assert {(each["height"], each["width"]) for each in coco["images"]} == {(40, 60)}


def test_one_file_of_all_images_holds_those_that_are_done(
    place: Path, red: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c", "d"):
        save(place / "in" / f"{name}.png", squares())
    (place / "in" / "b.png").write_text("no image")
    file, original, seen = place / "predictions" / "coco" / "annotations.json", predictor.Predictor.predict, []

    def interrupted(self: predictor.Predictor, image: np.ndarray) -> predictor.Prediction:
        seen.append(image)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(self, image)

    def names() -> list[str]:
        return [each["file_name"] for each in json.loads(file.read_text(encoding="utf-8"))["images"]]

    with monkeypatch.context() as patch:
        patch.setattr(predictor.Predictor, "predict", interrupted)
        code, _, err = call(capsys, "input=in", "format=coco", "overlays=false")
    assert (code, err) == (130, "Stopped after 2 of 4 images; finished results are in predictions.")
    assert names() == ["a.png", "c.png"]
    code, _, err = call(capsys, "input=in", "format=coco", "overlays=false")
    assert code == 2
    assert err.startswith(
        f"segtune predict: 1 results exist already, such as {Path('predictions/coco/annotations.json')}"
    )
    code, _, err = call(capsys, "input=in", "format=coco", "overlays=false", "overwrite=true")
    assert (code, err) == (1, "segtune predict: 1 of 4 images could not be read: b.png.")
    assert names() == ["a.png", "c.png", "d.png"]
    assert not [name for name in files(place / "predictions") if "partial" in name]


def test_a_shared_file_that_cannot_be_written_is_said(
    place: Path, red: None, capsys: pytest.CaptureFixture[str]
) -> None:
    save(place / "a.png", squares())
    (place / "predictions" / "coco" / "annotations.json").mkdir(parents=True)
    code, out, err = call(capsys, "input=a.png", "format=[masks,coco]", "overlays=false")
    assert code == 1
    assert err.startswith(f"segtune predict: Cannot write {Path('predictions/coco/annotations.json')}: ")
    assert "1 image in predictions: " in out
    assert (place / "predictions" / "masks" / "a.png").is_file()


def test_several_inputs_and_a_list(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mon/a.png", "mon/b.png", "tue/a.png", "tue/c.png", "tue/d.png"):
        save(place / name)
    code, _, err = call(capsys, "input=[mon/a.png,tue,'tue/*.png']", "overlays=false")
    assert (code, err) == (0, "")
    assert files(place / "predictions" / "masks") == ["mon/a.png", "tue/a.png", "tue/c.png", "tue/d.png"]
    (place / "list.txt").write_text("mon/b.png\ntue/c.png\n", encoding="utf-8")
    code, out, err = call(capsys, "input=list.txt", "overlays=false", "output=two")
    assert (code, err) == (0, "")
    assert out.startswith("2 images; ")
    assert files(place / "two" / "masks") == ["b.png", "c.png"]


def test_links_to_photos_are_no_input(place: Path, red: None, capsys: pytest.CaptureFixture[str]) -> None:
    save(place / "a.png")
    for _ in range(2):
        more = ("format=[coco,yolo,cvat,labelme]", "overlays=false", "output=.", "overwrite=true")
        code, out, err = call(capsys, "input=.", *more)
        assert (code, err) == (0, "")
        assert "\n1 image in " in out
