"""`taps` and `probe` as commands: what they print, write and refuse."""

import csv
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

import segtune.models.layer_info as layers_module
import segtune.models.taps as taps_module
from segtune.__main__ import main
from segtune.models import forward_cost
from segtune.models.backbones.registry import BACKBONES, spec_of
from segtune.models.backbones.spec import BackboneSpec
from segtune.runtime import console
from segtune.runtime.measure import Job, Measured

SMALL = "mobilenetv3_small_050"
TIMM = ("backbone=timm", f"backbone.name={SMALL}", "data.image_size=64", "train.device=cpu")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return err.strip()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# --- taps ---


def test_the_table_shows_ends_of_blocks_and_the_taps(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "taps", "backbone=xception", "data.image_size=256", "measure=false")
    lines = [line for line in out.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].split(" (")[0].strip() for line in lines if line.count("│") > 6] == [
        "stem", "block1", "block2", "block3", "", *(f"block{n}" for n in range(4, 9)), "",
        *(f"block{n}" for n in range(9, 13)), "exit",
    ]  # fmt: skip
    low = next(line for line in lines if " low " in line)
    cells = [cell.strip() for cell in low.split("│")[2:-1]]
    assert cells == ["block3.rep.0", "block4_sepconv1_act", "8", "256", "32 x 32", "43", "0.9%", "20.5%", "low"]
    assert "taps.low=block3.rep.0 taps.high=block8.rep.6" in out
    parameters = next(line for line in lines if "parameters" in line)
    assert [cell.strip() for cell in parameters.split("│")[2:-1]] == ["8.6 M", "20.8 M", "42%"]


def test_details_show_every_layer(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "taps", "backbone=vgg16", "decoder=fcn8s", "data.image_size=64", "measure=false", "details=true")
    rows = [line for line in out.splitlines() if line.startswith("│") and line.count("│") > 6]
    assert len(rows) == 37
    assert "block5_conv3" in out


def test_json_and_csv_are_the_layers_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(run(capsys, "taps", *TIMM, "format=json"))
    table = list(csv.DictReader(io.StringIO(run(capsys, "taps", *TIMM, "format=csv"))))
    assert [{name: str(value) for name, value in row.items()} for row in rows] == table
    assert [row["tap"] for row in rows if row["tap"]] == ["low", "high"]
    last = rows[-1]
    assert (last["stride"], last["height"], last["width"]) == (32, 2, 2)
    assert last["parameters_share"] <= 1
    assert [row["multiply_adds"] for row in rows if row["tap"]] == sorted(
        row["multiply_adds"] for row in rows if row["tap"]
    )


@pytest.fixture
def at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False, "color_system": None}
    monkeypatch.setattr(console, "console", Console(width=80, force_terminal=True, **options))


def words(out: str) -> set[str]:
    """Return the words of a screen of 80 columns, after checking that nothing is wider, or cut."""
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "…" not in out
    return set(out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("backbone=xception", "decoder=fcn8s"),
            {"block12", "block12.rep.0", "block13_sepconv1_act", "pool4", "chan-", "1083"},
        ),
        (("backbone=resnet50",), {"layer3", "layer3.5.act2", "conv4_block6_2_relu", "high", "79%", "2048"}),
        ((*TIMM, "details=true"), {"blocks.2", "blocks.2.2.drop_path", "blocks.0.0.se.mul", "low", "chan-"}),
    ],
)
@pytest.mark.usefixtures("at_80_columns")
def test_layers_fit_80_columns_with_their_whole_names(
    arguments: tuple[str, ...], expected: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected <= words(run(capsys, "taps", *arguments, "measure=false"))


Counted = tuple[list[str], list[str]]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Counted]:
    """Return a function that notes, from then on, each build of a backbone and each tap name that is resolved."""

    def begin(name: str) -> Counted:
        built: list[str] = []
        resolved: list[str] = []
        spec, original = spec_of(name), taps_module.resolve

        def build() -> torch.nn.Module:
            built.append(name)
            return spec.build()

        def resolve(tap: str, nodes: list[str], spec: BackboneSpec) -> str:
            resolved.append(tap)
            return original(tap, nodes, spec)

        monkeypatch.setitem(BACKBONES, name, replace(spec, build=build))  # type: ignore[arg-type]
        for module in (taps_module, layers_module):
            monkeypatch.setattr(module, "resolve", resolve)
        return built, resolved

    return begin


@pytest.mark.parametrize("output_stride", ["null", "8"])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("conv2_block3_2_relu", "conv4_block6_2_relu"),
        ("layer1", "layer3"),
        ("layer1.2.act2", "layer3.5.act2"),
        ("auto", "auto"),
    ],
    ids=["Keras name", "block", "module path", "auto"],
)
def test_one_network_is_built_and_each_name_resolved_once(
    low: str, high: str, output_stride: str, count: Callable[[str], Counted], capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: with `measure=true` two others build their own, see the test below."""
    built, resolved = count("resnet50")
    taps = (f"taps.low={low}", f"taps.high={high}", f"backbone.output_stride={output_stride}")
    run(capsys, "taps", "backbone=resnet50", "data.image_size=64", "measure=false", *taps)
    assert built == ["resnet50"]
    assert resolved == (["layer1.2.act3", "layer3.5.act3"] if low == "auto" else [low, high])


def test_a_measured_pass_builds_once_and_resolves_nothing(
    count: Callable[[str], Counted], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work of the two processes is done here, to be counted: one measures the cut backbone, one the whole."""

    def measure(job: Job) -> Measured:
        job()[0]()
        return Measured(0.25, None)

    monkeypatch.setattr(forward_cost, "measure", measure)
    built, resolved = count(SMALL)
    out = run(capsys, "taps", *TIMM, "train.batch_size=1", "taps.low=blocks.1", "taps.high=blocks.3")
    assert built == [SMALL] * 3
    assert resolved == ["blocks.1", "blocks.3"]
    assert "250.0 ms" in out


@pytest.mark.slow  # two processes that import PyTorch
def test_what_the_cut_saves_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "taps", *TIMM, "train.batch_size=1")
    times = next(line for line in out.splitlines() if "time, measured" in line)
    here, there = (float(cell.split()[0].replace(",", "")) for cell in times.split("│")[2:4])
    assert here > 0
    assert there > 0


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_network_is_drawn(ending: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, "taps", *TIMM, "measure=false", f"picture=drawn/net.{ending}")
    content = (tmp_path / "drawn" / f"net.{ending}").read_bytes()
    assert content[:5] == {"png": b"\x89PNG\r", "svg": b"<?xml"}[ending]
    if ending == "png":
        picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    if ending == "svg":
        assert b"high: " in content or b"<!-- high: " in content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("backbone=xception", "taps.high=act4", "data.image_size=32"),
            "segtune taps: Images of 32 x 32 pixels are too small for the deepest tap, act4: its map "
            "would have 1 x 1 pixels. Its stride is 32: set data.image_size to 64 or more, or choose a shallower tap.",
        ),
        (
            ("backbone=xception", "taps.high=block99"),
            "segtune taps: xception has no layer 'block99'. The nearest names: ",
        ),
        (
            ("backbone=xception", "taps.high=add_3"),
            "segtune taps: 'add_3' of xception may mean block3.add or block4.add: ",
        ),
        (
            ("backbone=resnet50", "taps.high=global_pool"),
            "segtune taps: 'global_pool' of resnet50 (global_pool.flatten) returns no feature map (N, C, H, W). "
            "The nearest layers before it that do: layer4.2.act3, layer4.2.add, layer4.2.bn3.",
        ),
        (
            ("backbone=convnext_tiny",),
            "segtune taps: backbone=convnext_tiny: there is no such choice. Expected one of: resnet50, timm, vgg16, "
            "xception; or your own file with --config-dir. "
            "For any other CNN of timm: backbone=timm backbone.name=convnext_tiny.",
        ),
        (("backbone=timm",), "segtune taps: backbone.name is required. Set backbone.name=…"),
        (
            ("format=xml",),
            "segtune taps: One setting is wrong:\n  format: got 'xml'; expected: 'table', 'json' or 'csv'.",
        ),
        (
            (*TIMM, "measure=false", "picture=net.gif"),
            "segtune taps: net.gif: expected a file name that ends in .png, .svg or .pdf.",
        ),
    ],
)
def test_taps_refuses(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "taps", *arguments).startswith(message)


# --- probe ---

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


@pytest.mark.trains
def test_random_weights_are_refused_unless_asked_for(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, "probe", *of(images, "auto"), "run_dir=run") == (
        f"segtune probe: No pretrained weights found for {SMALL}, and probing random weights says little. "
        "Set backbone.weights=PATH, or backbone.weights=none to probe random weights all the same."
    )
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
    out = run(capsys, "probe", *of(images, tmp_path / "part.safetensors"), *arguments)
    assert "not measured: the weights file lacks some of its weights." in out
    assert "current taps" not in (tmp_path / "run" / "probe.csv").read_text(encoding="utf-8")
    assert refused(capsys, "probe", *of(images, tmp_path / "part.safetensors"), "layers=[bn1,blocks.4]").startswith(
        "segtune probe: layers: blocks.4."
    )
