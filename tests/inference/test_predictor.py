"""A loaded model predicts what the evaluation measures, and refuses what it would misread."""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torch.nn import functional as F

import segtune
from segtune.cli.help import config_folder
from segtune.config.command_settings import PredictSettings
from segtune.config.output_settings import CleanSettings
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.data.images import read_photo
from segtune.data.sources.base import Pair
from segtune.errors import UserError
from segtune.evaluation.evaluator import Evaluator
from segtune.inference import predictor
from segtune.inference.predictor import Predictor, load_as
from segtune.losses import build_loss
from segtune.models.backbones.registry import BACKBONES
from segtune.models.build import build_model
from segtune.models.checkpoint import Checkpoint
from segtune.runtime.device import Device

CPU = Device(torch.device("cpu"), torch.float32)
SIZES = [(33, 47), (64, 64), (91, 150), (201, 77), (5, 9), (128, 128)]


def settings(*overrides: str) -> Settings:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", overrides=["backbone=resnet50", "backbone.weights=none", *overrides])
    return parse(Settings, OmegaConf.to_container(config, resolve=True))


@pytest.fixture(scope="module", params=[1, 2], ids=["sigmoid", "softmax"])
def trained(
    request: pytest.FixtureRequest, network_of: Callable[[str], nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Settings, nn.Module]]:
    """A checkpoint as a training run writes it, its settings, and the model in it."""
    chosen = settings(
        "taps.low=layer1.0.act2",
        "taps.high=layer1.2.act2",
        "decoder.channels=8",
        f"decoder.outputs={request.param}",
        "data.image_size=64",
        "data.eval_size=[96,64]",
        "train.threshold=0.6",
        "train.batch_size=1",
        "train.workers=0",
    )
    path = tmp_path_factory.mktemp("run") / "best.pt"
    network_of("resnet50")  # kept from here on
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], build=lambda: network_of("resnet50")))
        torch.manual_seed(1)
        built = build_model(chosen.backbone, chosen.taps, chosen.decoder)
        model = built.model.eval()
        _balance(model)
        Checkpoint.of(built, chosen).save(path)
        yield path, chosen, model


def _balance(model: nn.Module) -> None:
    """Let a random network find foreground in about half of an image."""
    seen = torch.from_numpy(image_of(96, 64).transpose(2, 0, 1).copy())[None]
    last = [module for module in model.decoder.modules() if isinstance(module, nn.Conv2d)][-1]
    with torch.no_grad():
        last.bias.zero_()
        logits = model(seen)
        last.weight *= 4 / (logits - logits.mean(dim=(2, 3), keepdim=True)).std()
        last.bias[-1] -= model(seen).mean()


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return smooth noise: single random pixels would vanish when the image is resized."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("sizes", "clean"), [(SIZES, {}), (SIZES[2:4], {"fill_holes": True, "min_area": 30, "largest": True})]
)
def test_masks_are_the_evaluations_bit_for_bit(
    trained, tmp_path: Path, sizes: list[tuple[int, int]], clean: dict[str, float]
) -> None:
    """Each mask is saved as the truth: the evaluation then finds no false pixel and misses none."""
    path, chosen, model = trained
    predictor = segtune.load(path, device="cpu", precision="fp32", clean=clean)
    pairs, shares = [], []
    for number, size in enumerate(sizes):
        pair = Pair(f"p{number}", tmp_path / f"p{number}.png", tmp_path / f"m{number}.png")
        Image.fromarray(image_of(*size, seed=number)).save(pair.photo)
        mask, _ = predictor.predict(image_of(*size, seed=number))
        Image.fromarray(mask.astype(np.uint8)).save(pair.mask)
        pairs.append(pair)
        shares.append(mask.mean())
    assert 0.1 < np.mean(shares) < 0.9
    corrected = CleanSettings(**clean)
    found = Evaluator(pairs, chosen.data, chosen.train, build_loss(chosen.loss), CPU, clean=corrected)(
        model.to(memory_format=torch.channels_last)
    )
    assert found is not None
    assert found.counts[:, 1:3].sum() == 0
    assert found.counts.sum(1).tolist() == [height * width for height, width in sizes]


def test_what_is_returned(trained) -> None:
    path, _, _ = trained
    found = segtune.load(str(path), device="cpu", precision="fp32").predict(image_of(75, 50))
    mask, probability = found
    assert (mask.dtype, probability.dtype) == (np.bool_, np.float32)
    assert mask.shape == probability.shape == (75, 50)
    assert 0 <= probability.min() < probability.max() <= 1
    assert ((probability > 0.6) == mask).all()  # the threshold of the training
    assert found.mask is mask


def test_settings_can_be_given(trained) -> None:
    path, _, model = trained
    loaded = segtune.load(path, device="cpu", precision="fp32")
    assert (loaded.size, loaded.threshold, loaded.tile) == ((96, 64), 0.6, None)
    other = segtune.load(path, size=(48, 32), threshold=0.3, device="cpu", precision="fp32")
    assert (other.size, other.threshold) == ((48, 32), 0.3)
    image = image_of(48, 32)
    mask, probability = other.predict(image)
    assert (mask == (probability > 0.3)).all()
    with torch.inference_mode():
        seen = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float()
        logits = model.decoder(model.backbone((seen - model.mean) / model.std))
        logits = F.interpolate(logits, (48, 32), mode="bilinear")
    expected = logits.softmax(1)[0, 1] if logits.shape[1] == 2 else logits.sigmoid()[0, 0]
    np.testing.assert_allclose(probability, expected, atol=1e-4)
    assert segtune.load(path, size=40).size == (40, 40)


def test_mirror_images_are_averaged(trained) -> None:
    path, _, _ = trained
    image = image_of(70, 90)
    plain = segtune.load(path, device="cpu", precision="fp32", size=64)
    both = segtune.load(path, device="cpu", precision="fp32", size=64, flips=True).predict(image).probability
    mirrored = np.ascontiguousarray(image[:, ::-1])
    np.testing.assert_allclose(
        both,
        segtune.load(path, device="cpu", precision="fp32", size=64, flips=True).predict(mirrored).probability[:, ::-1],
        atol=1e-4,
    )
    assert np.abs(both - plain.predict(image).probability).max() > 1e-3


def test_views_and_read_only_images(trained) -> None:
    path, _, _ = trained
    loaded, image = segtune.load(path, device="cpu", precision="fp32"), image_of(60, 80)
    turned = image[:, :, ::-1]
    fixed = image.copy()
    fixed.flags.writeable = False
    before = image.copy()
    assert (loaded.predict(turned).mask == loaded.predict(turned.copy()).mask).all()
    assert (loaded.predict(fixed).mask == loaded.predict(image).mask).all()
    assert (image == before).all()


EXPECTED = "predict takes RGB as a NumPy array of uint8, 0 to 255, of shape (height, width, 3); got "


@pytest.mark.parametrize(
    ("image", "rest"),
    [
        (np.zeros((8, 9), np.uint8), "uint8 (8, 9). For greyscale: np.stack([image] * 3, axis=2)."),
        (
            np.zeros((8, 9, 4), np.uint8),
            "uint8 (8, 9, 4). Drop the alpha channel: image[..., :3], for BGRA image[..., 2::-1].",
        ),
        (
            np.zeros((8, 9, 3), np.float32),
            "float32 (8, 9, 3). Convert it: (image * 255).round().astype(np.uint8) for floats from 0 to 1, "
            "(image >> 8).astype(np.uint8) for 16 bits.",
        ),
        (
            np.zeros((1, 3, 8, 9), np.uint8),
            "uint8 (1, 3, 8, 9). Pass one image at a time, channels last.",
        ),
        (np.zeros((3, 8, 9), np.uint8), "uint8 (3, 8, 9). Pass one image at a time, channels last."),
        (np.zeros((0, 9, 3), np.uint8), "uint8 (0, 9, 3). Pass one image at a time, channels last."),
        (Image.new("RGB", (9, 8)), "Image. For Pillow: np.array(image.convert('RGB'))."),
    ],
)
def test_other_images_are_refused(image: object, rest: str) -> None:
    predictor = Predictor(lambda images: images[:, :1].float(), (32, 32), 0.5, CPU)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        predictor.predict(image)
    assert str(error.value) == EXPECTED + rest


def test_the_advice_for_16_bits_is_what_the_model_saw_in_training(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 5000, (8, 9, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
    for max_value in (None, 4095, 2999):
        predictor = Predictor(lambda images: images[:, :1].float(), (32, 32), 0.5, CPU, max_value=max_value)
        with pytest.raises(ValueError, match="for 16 bits") as error:
            predictor.predict(deep)
        advice = re.search(r"0 to 1, (.*) for 16 bits", str(error.value))
        assert advice
        converted = eval(advice[1], {"np": np, "image": deep})
        assert np.array_equal(converted, read_photo(tmp_path / "a.png", predictor.max_value))


def test_the_value_that_is_white_is_that_of_the_training(trained, tmp_path: Path) -> None:
    path, _, _ = trained
    content = torch.load(path, weights_only=True)
    assert content["settings"]["data"]["max_value"] is None
    content["settings"]["data"]["max_value"] = 4095
    torch.save(content, tmp_path / "deep.pt")
    options = {"checkpoint": str(tmp_path / "deep.pt"), "input": "", "train": {"device": "cpu"}}
    assert load_as(parse(PredictSettings, options)).max_value == 4095
    assert load_as(parse(PredictSettings, options | {"max_value": 1023})).max_value == 1023
    del content["settings"]["data"]["max_value"]  # as earlier versions wrote it
    torch.save(content, tmp_path / "old.pt")
    assert segtune.load(tmp_path / "old.pt", device="cpu").max_value is None


def test_a_model_that_was_validated_in_tiles_predicts_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"eval_tile": 128, "eval_overlap": 0.5}
    monkeypatch.setattr(predictor, "_trained", lambda *_: (torch.nn.Identity(), (128, 128), 0.5, data))

    def loaded(**options: Any) -> tuple[int | None, float, tuple[int, int]]:
        found = segtune.load("best.pt", device="cpu", **options)
        return found.tile, found.overlap, found.size

    assert loaded() == (128, 0.5, (128, 128))
    assert loaded(tile=256)[:2] == (256, 0.5)
    assert loaded(overlap=0.0)[:2] == (128, 0.0)
    assert loaded(size=[48, 64]) == (None, 0.5, (48, 64))
    data.clear()  # as earlier versions wrote it
    assert loaded() == (None, 0.25, (128, 128))


def test_the_advice_for_bgra_is_right() -> None:
    image = np.arange(4, dtype=np.uint8)[None, None]
    assert image[..., 2::-1].tolist() == [[[2, 1, 0]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "One setting is wrong:\n  train.threshold: got 1.5; expected: less than 1."),
        ({"tile": 64}, "One setting is wrong:\n  tile: got 64; expected: greater than or equal to 128."),
        ({"device": "tpu7"}, "train.device=tpu7 cannot be used here: "),
        ({"clean": {"holes": True}}, "One setting is wrong:\n  clean.holes: there is no such setting."),
        (
            {"tile": 256, "size": 64},
            "tile=256 predicts an image at its own size, image_size=64 at a fixed one: set only one ",
        ),
        ({}, "No checkpoint at nowhere.pt."),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        segtune.load("nowhere.pt", **options)
    assert str(error.value).startswith(message)


def test_memory_that_is_too_small_is_explained() -> None:
    def network(_images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"^cpu ran out of memory on an image of 50 x 60 pixels\."):
        Predictor(network, (32, 32), 0.5, CPU).predict(image_of(50, 60))


def test_an_exported_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file maps bytes to probabilities, which are returned unchanged, also averaged."""
    seen = []

    def load_onnx(path: Path):
        assert path == Path("best.onnx")

        def network(images: torch.Tensor) -> torch.Tensor:
            assert images.dtype == torch.uint8
            seen.append(tuple(images.shape))
            return images[:, :1].float() / 255

        return network, {"size": [40, 48], "threshold": 0.25, "settings": saved, "taps": {}}

    saved: dict[str, dict[str, float]] = {"data": {"max_value": 4095}}
    monkeypatch.setitem(sys.modules, "segtune.inference.onnx_model", SimpleNamespace(load_onnx=load_onnx))
    assert segtune.load("best.onnx", device="cpu").max_value == 4095
    assert segtune.load("best.onnx", device="cpu").category == "object"
    assert segtune.load("best.onnx", device="cpu", clean={"largest": True}).clean.largest
    saved["data"]["category"] = "skin"  # type: ignore[assignment]
    assert segtune.load("best.onnx", device="cpu").category == "skin"
    saved["data"] = {"eval_tile": 256, "eval_overlap": 0.5}
    tiled = segtune.load("best.onnx", device="cpu")
    assert (tiled.tile, tiled.overlap) == (256, 0.5)
    saved.clear()  # as earlier versions wrote it
    loaded = segtune.load("best.onnx", device="cpu")
    assert (loaded.size, loaded.threshold, loaded.max_value) == ((40, 48), 0.25, None)
    assert (loaded.tile, loaded.overlap) == (None, 0.25)
    image = image_of(40, 48)
    mask, probability = loaded.predict(image)
    np.testing.assert_allclose(probability, image[..., 0] / np.float32(255), atol=1e-6)
    assert (mask == (image[..., 0] > 63)).all()
    averaged = segtune.load("best.onnx", device="cpu", flips=True, scales=[1.0, 2.0]).predict(image).probability
    assert np.abs(averaged - probability).mean() < 0.02
    assert seen == [(1, 3, 40, 48)] * 3 + [(1, 3, 80, 96)] * 2


def test_a_real_network_in_tiles(built_of) -> None:
    """Tiles lack the context beyond their border; random weights use it as much as the rest, so they are the worst."""
    model, image = built_of("resnet50_deeplabv3plus").model.eval(), image_of(200, 320)
    with torch.no_grad():
        logits = model(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])
    model.register_forward_hook(lambda _module, _inputs, output: 2 * (output - logits.mean()) / logits.std())
    whole = Predictor(model, (200, 320), 0.5, CPU).predict(image).probability
    tiled = Predictor(model, (200, 320), 0.5, CPU, tile=192, overlap=0.5).predict(image).probability
    assert whole.std() > 0.2
    assert np.abs(tiled - whole).mean() < 0.2
    assert np.corrcoef(tiled.ravel(), whole.ravel())[0, 1] > 0.7
