"""`taps` as a command: what it prints, draws and refuses."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtune.models import forward_cost
from segtune.runtime.measure import Job, Measured
from tests.commands.conftest import SMALL, TIMM, Counted, refused, run, words
from tests.conftest import slow


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


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
    cells = [[cell.strip() for cell in row.split("│")[2:5]] for row in rows]
    assert ["features.29", "block5_conv3", "17"] in cells
    assert ["features.28", "", ""] in cells  # as Keras's convolution, the index is on its ReLU's row
    assert ["relu6", "fc1", ""] in cells  # of Keras's top
    assert "of 19; a phase's backbone and freeze take ranges of it" in " ".join(out.split())


def test_json_and_csv_are_the_layers_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(run(capsys, "taps", *TIMM, "format=json"))
    table = list(csv.DictReader(io.StringIO(run(capsys, "taps", *TIMM, "format=csv"))))
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows] == table
    assert {row["keras_index"] for row in rows} == {None}
    assert [row["tap"] for row in rows if row["tap"]] == ["low", "high"]
    last = rows[-1]
    assert (last["stride"], last["height"], last["width"]) == (32, 2, 2)
    assert last["parameters_share"] <= 1
    assert [row["multiply_adds"] for row in rows if row["tap"]] == sorted(
        row["multiply_adds"] for row in rows if row["tap"]
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("backbone=xception", "decoder=fcn8s"),
            {"block12", "block12.rep.0", "block13_sepconv1_act", "pool4", "chan-", "1083"},
        ),
        (("backbone=resnet50",), {"layer3", "layer3.5.act2", "conv4_block6_2_relu", "high", "79%", "2048"}),
        slow(("backbone=xception", "details=true"), {"batch_normalization_4", "block10.rep.7.pointwise", "in-", "124"}),
        ((*TIMM, "details=true"), {"blocks.2", "blocks.2.2.drop_path", "blocks.0.0.se.mul", "low", "chan-"}),
    ],
)
@pytest.mark.usefixtures("at_80_columns")
def test_layers_fit_80_columns_with_their_whole_names(
    arguments: tuple[str, ...], expected: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected <= words(run(capsys, "taps", *arguments, "measure=false"))


@pytest.mark.parametrize("output_stride", ["null", "8"])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("conv2_block3_2_relu", "conv4_block6_2_relu"),
        slow("layer1", "layer3"),
        slow("layer1.2.act2", "layer3.5.act2"),
        slow("auto", "auto"),
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


@pytest.mark.parametrize("ending", ["svg", slow("png")])
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
            "segtune taps: One setting is wrong:\n"
            "  picture: got 'net.gif'; expected: a file name that ends in .png, .svg or .pdf.",
        ),
    ],
)
def test_taps_refuses(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "taps", *arguments).startswith(message)
