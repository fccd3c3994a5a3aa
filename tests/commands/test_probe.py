"""`probe` as a command: what it prints, writes and refuses."""

import csv
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from segtune.__main__ import main
from segtune.models.backbones.registry import spec_of
from tests.commands.conftest import SMALL, TIMM, Counted, refused, run, words


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


PROBE = ("layers=[bn1,'re:blocks\\.[12]\\..*add',blocks.3]", "+compare.mine=[bn1,blocks.3.1.add]")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 16 images with a half as object."""
    return folder_with(tmp_path_factory.mktemp("images") / "data", [np.roll(half(255), 4 * n, 0) for n in range(16)])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_file(spec_of(SMALL).build().state_dict(), path)
    return path


def of(folder: Path, weights: Path | str) -> tuple[str, ...]:
    return (*TIMM, "data=folder", f"data.root={folder}", f"backbone.weights={weights}", "train.workers=0")


@pytest.fixture(scope="module")
def probed(images: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a probe, and what it printed."""
    folder = tmp_path_factory.mktemp("probed") / "run"
    with redirect_stdout(io.StringIO()) as out:
        assert main(["probe", *of(images, weights), f"run_dir={folder}", *PROBE]) == 0
    return folder, out.getvalue()


@pytest.mark.trains
def test_a_probe_reports_and_recommends(probed: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = probed
    rows = list(csv.DictReader((folder / "probe.csv").open(encoding="utf-8")))
    assert {path.name for path in folder.iterdir()} == {"probe.csv", "probe.png", "config.yaml"}
    assert Image.open(folder / "probe.png").size[0] > 500
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)
    (best,) = (row for row in rows if "recommended" in row["note"])
    pairs = [row for row in rows if " + " in row["layers"] and row["note"] in ("", "recommended")]
    assert float(best["dice"]) == max(float(row["dice"]) for row in pairs)
    assert {row["note"].split(", ")[-1] for row in rows} >= {"", "current taps", "mine"}
    low, high = best["layers"].split(" + ")
    assert f"taps.low={low} taps.high={high}" in out

    again = run(capsys, "plan", *TIMM, "backbone.weights=none", f"taps.low={low}", f"taps.high={high}")
    assert "phase 1/2" in again  # what is to be pasted is accepted


def test_a_probe_builds_one_network_and_resolves_each_name_once(
    images: Path, weights: Path, count: Callable[[str], Counted], capsys: pytest.CaptureFixture[str]
) -> None:
    built, resolved = count(SMALL)
    layers = ("taps.low=blocks.1", "taps.high=blocks.4", "layers=[bn1,blocks.2,blocks.3]")
    run(capsys, "probe", *of(images, weights), "run_dir=run", *layers, "+compare.mine=[blocks.0,blocks.5]")
    assert built == [SMALL]
    assert resolved == ["blocks.1", "blocks.4", "blocks.0", "blocks.5", "bn1", "blocks.2", "blocks.3"]


@pytest.mark.trains
def test_a_probe_gives_the_same_again(
    probed: tuple[Path, str], images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "probe", *of(images, weights), "run_dir=again", *PROBE)
    one, two = ((folder / "probe.csv").read_text(encoding="utf-8") for folder in (probed[0], tmp_path / "again"))
    assert one == two
    assert "bn1 + " in one


@pytest.mark.trains
@pytest.mark.usefixtures("at_80_columns")
def test_three_taps_for_fcn8s(images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = "layers=[bn1,blocks.0,blocks.1,blocks.2,blocks.3]"
    out = run(capsys, "probe", *of(images, weights), "decoder=fcn8s", "run_dir=run", layers)
    assert "taps.pool3=" in out
    rows = list(csv.DictReader((tmp_path / "run" / "probe.csv").open(encoding="utf-8")))
    (best,) = (row for row in rows if "recommended" in row["note"])
    together = words(out.partition("layers together")[2].partition("Recommended for")[0])
    assert {*best["layers"].split(" + "), best["dice"]} <= together
    assert max(row["layers"].count("+") for row in rows) == 2


@pytest.mark.slow
@pytest.mark.trains
def test_random_weights_are_refused_unless_asked_for(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "probe", *of(images, "auto"), "run_dir=run")
    assert said.startswith(f"segtune probe: backbone.weights=auto: no ImageNet weights for {SMALL}: not in the local")
    assert said.endswith("backbone.weights=none means random weights, on purpose. A probe of them says little.")
    assert not (tmp_path / "run").exists()
    run(capsys, "probe", *of(images, "none"), "run_dir=run", "layers=[bn1,blocks.2]", "train_images=8", "val_images=2")


def folder_with(root: Path, masks: list[np.ndarray]) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number, mask in enumerate(masks):
        photo = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(photo).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


def half(value: int) -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = value
    return mask


def test_too_few_images(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_with(tmp_path / "data", [half(255)] * 5)
    assert refused(capsys, "probe", *of(folder, weights)) == (
        "segtune probe: Too few images: got 3 for training and 1 for validation; expected at least 5 and 1, "
        "better 50 or more of each."
    )


def test_masks_of_one_class(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_with(tmp_path / "data", [np.zeros((64, 64), np.uint8)] * 12)
    assert "no training mask has any foreground: all 8 are empty" in refused(capsys, "probe", *of(folder, weights))


def test_no_masks(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_with(tmp_path / "data", [half(255)] * 8)
    for path in (folder / "masks").iterdir():
        path.unlink()
    assert refused(capsys, "probe", *of(folder, weights)).startswith(
        f"segtune probe: No photo in {folder} has a mask: "
    )


def test_images_too_small_for_the_deepest_tap(images: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("taps.high=blocks.5", "data.image_size=32")
    assert refused(capsys, "probe", *of(images, weights), *arguments).startswith(
        "segtune probe: Images of 32 x 32 pixels are too small for the deepest tap, "
    )


def test_a_pattern_that_matches_no_layer(images: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "probe", *of(images, weights), "layers=['re:stage.*']").startswith(
        "segtune probe: layers: 're:stage.*' matches nothing. The names are: "
    )


def test_what_a_probe_does_not_read(images: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "probe", *of(images, weights), "restore.checkpoint=x.pt") == (
        "segtune probe: restore.checkpoint is not supported for probe. Set backbone.weights, which it measures."
    )


@pytest.mark.trains
def test_layers_without_weights_are_not_probed(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {n: v for n, v in spec_of(SMALL).build().state_dict().items() if not n.startswith(("blocks.4", "blocks.5"))}
    save_file(kept, tmp_path / "part.safetensors")
    arguments = ("run_dir=run", "layers=[bn1,blocks.2,blocks.3]", "taps.high=blocks.4", "taps.low=blocks.1")
    arguments += ("augment=crops", "data.image_size=48", "data.eval_tile=128")
    out = run(capsys, "probe", *of(images, tmp_path / "part.safetensors"), *arguments)
    assert "not measured: the weights file lacks some of its weights." in out
    assert "images of 48 x 48 pixels and scored on 2 validation images, all as crops of this size (augment.crop)" in out
    assert "current taps" not in (tmp_path / "run" / "probe.csv").read_text(encoding="utf-8")
    assert refused(capsys, "probe", *of(images, tmp_path / "part.safetensors"), "layers=[bn1,blocks.4]").startswith(
        "segtune probe: layers: blocks.4."
    )
