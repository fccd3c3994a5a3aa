"""Each tool answers --help at once, and its smallest form works."""

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import segtune
from segtune.__main__ import main
from segtune.models.backbones.registry import BACKBONES
from segtune.models.checkpoint import Checkpoint
from segtune.runtime.measure import Measured

REPOSITORY = Path(segtune.__file__).parents[1]
TOOLS = sorted((REPOSITORY / "tools").glob("*.py"))


def run(tool: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *options, str(REPOSITORY / "tools" / f"{tool}.py"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def run_here(monkeypatch: pytest.MonkeyPatch, tool: str, *arguments: str) -> int:
    """Run in this process, which has PyTorch already; return the exit code."""
    monkeypatch.setattr(sys, "argv", [tool, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / "tools" / f"{tool}.py"), run_name="__main__")
    return int(ended.value.code or 0)


def draw(folder: Path) -> None:
    """Write eight images of discs and their masks."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(8):
        mask = np.zeros((64, 64), np.uint8)
        cv2.circle(mask, (20 + 3 * i, 32), 12, 255, -1)
        image = generator.integers(0, 120, (64, 64, 3)).astype(np.uint8) + (mask > 0)[..., None] * np.uint8(100)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"{i}.png"), mask)


@pytest.mark.parametrize("tool", [path.stem for path in TOOLS])
def test_each_tool_explains_itself_without_loading_pytorch(tool: str) -> None:
    done = run(tool, "--help", options=("-X", "importtime"))
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {tool}.py")
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert "torch" not in imported


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_each_tool_has_a_smoke_test(path: Path) -> None:
    assert re.search(rf'\brun(_here)?\((monkeypatch, )?"{path.stem}"', Path(__file__).read_text(encoding="utf-8"))


def test_throughput_compares_precisions_and_freezing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, "throughput", "resnet50", "64", "2", "--rounds", "1", "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert "resnet50 + deeplabv3plus, 64 px, batches of 2, cpu" in " ".join(out.split())
    rows = dict(re.findall(r"((?:everything trains|backbone frozen), \w+) +│ +[\d.]+ +│ +([\d.]+)", out))
    assert {"everything trains, float32", "backbone frozen, float32"} <= rows.keys()
    assert float(rows["everything trains, float32"]) == 1


def test_throughput_refuses_what_cannot_be_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, "throughput", "resnet50", "64", "1") == 2
    assert "got a batch of 1, a size of 64" in capsys.readouterr().err
    assert run_here(monkeypatch, "throughput", "resnet50", "64", "2", "--device", "cuda:77") == 2
    assert "train.device=cuda:77 cannot be used here" in capsys.readouterr().err


def test_compare_runs_finds_one_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = torch.tensor([1.0, float("nan")])
    for name, value in {"one": weight, "same": weight, "other": torch.nextafter(weight, weight + 1)}.items():
        content = {"settings": {"run_dir": name, "train": {"workers": 0}}, "state": {"seconds": 1.0}}
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        torch.save(content | {"model": {"weight": weight}}, tmp_path / name / "checkpoints" / "last.pt")
        torch.save(content | {"model": {"weight": value}}, tmp_path / name / "checkpoints" / "best.pt")
        (tmp_path / name / "metrics.csv").write_text("epoch\n1\n", encoding="utf-8")
        (tmp_path / name / "summary.json").write_text('{"val_dice": 0.5}', encoding="utf-8")
    assert run_here(monkeypatch, "compare_runs", str(tmp_path / "one"), str(tmp_path / "same")) == 0
    assert capsys.readouterr().out == "0 differences\n"
    assert run_here(monkeypatch, "compare_runs", str(tmp_path / "one"), str(tmp_path / "other")) == 1
    assert capsys.readouterr().out == "best.pt/model/weight\n1 differences\n"
    (tmp_path / "same" / "checkpoints" / ".last.pt.x1y2.partial").touch()
    assert run_here(monkeypatch, "compare_runs", str(tmp_path / "one"), str(tmp_path / "same")) == 1
    assert capsys.readouterr().out == "partial file left: last.pt\n1 differences\n"
    assert run_here(monkeypatch, "compare_runs", str(tmp_path / "one"), str(tmp_path / "none")) == 2
    assert f"No checkpoint at {tmp_path / 'none' / 'checkpoints' / 'last.pt'}." in capsys.readouterr().err


def test_gpu_check_refuses_what_cannot_be_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an epoch the first steps do not count, so there must be others."""
    assert run_here(monkeypatch, "gpu_check", "--images", "8", "--batch", "4") == 2
    assert "images for three batches or more" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_gpu_check_runs_on_a_cpu_too(tmp_path: Path) -> None:
    """In its small form, with drawn photos: every row is measured, and the table says of what."""
    figures = tmp_path / "figures.json"
    small = ("--size", "64", "--batch", "4", "--images", "12", "--steps", "1", "--workers", "0", "--precisions", "bf16")
    done = run("gpu_check", *small, "--device", "cpu", "--json", str(figures))
    assert done.returncode == 0, done.stderr
    facts = json.loads(figures.read_text("utf-8"))
    assert (facts["device"], facts["size"], facts["batch"]) == ("CPU", 64, 4)
    assert [row["what"] for row in facts["rows"]] == [
        "plain loop, segtune's model",
        "plain loop, smp's DeepLabV3Plus",
        "loader alone, 0 workers",
        "segtune train, 0 workers",
    ]
    assert all(row["images_per_second"] > 0 for row in facts["rows"])
    assert "resnet50 + deeplabv3plus, 64 px, batches of 4, CPU" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_fault_with_one_kill(tmp_path: Path) -> None:
    done = run("fault", "--kills", "1", "--signal", "TERM", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 runs killed, 0 differences" in done.stdout
    same = run("compare_runs", str(tmp_path / "undisturbed"), str(tmp_path / "disturbed0"))
    assert same.stdout == "0 differences\n"


@pytest.mark.slow
def test_old_values_finds_frozen_what_is_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "data")
    save_file(BACKBONES["resnet50"].build().state_dict(), tmp_path / "resnet50.safetensors")
    data = ("data=folder", f"data.root={tmp_path / 'data'}", "data.image_size=64", "train.batch_size=2")
    last = ("freeze=head_only", "freeze.phases.head.epochs=1", "train.device=cpu", "train.workers=0", "train.samples=0")
    model = (
        "backbone=resnet50",
        f"backbone.weights={tmp_path / 'resnet50.safetensors'}",
        f"run_dir={tmp_path / 'run'}",
    )
    assert main(["train", *data, *last, *model]) == 0
    done = run("old_values", str(tmp_path / "run"), "--steps", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    moved = re.search(r"The run has moved (\d+) of (\d+) tensors: decoder\.", done.stdout)
    same = re.search(r"Both come to the same: all (\d+) tensors are equal bit for bit\.", done.stdout)
    assert moved
    assert same
    assert int(moved[1]) < int(moved[2]) == int(same[1])
    assert re.search(r"^time +[\d.]+ s +[\d.]+ s +\d+%$", done.stdout, re.MULTILINE)
    missing = run("old_values", str(tmp_path / "run"), "--phase", "all")
    assert missing.returncode == 2
    assert "--phase all: the run has no such phase; it has head." in " ".join(missing.stderr.split())

    spec = importlib.util.spec_from_file_location("old_values", REPOSITORY / "tools" / "old_values.py")
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    checkpoint = Checkpoint.load(tmp_path / "run")
    monkeypatch.setattr("segtune.runtime.measure.measure", lambda job: Measured(1.0, None))
    assert tool.compare(checkpoint, None, 1)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)  # nothing is put back
    assert not tool.compare(checkpoint, None, 1)


@pytest.mark.slow
def test_rank_taps_with_two_maps(tmp_path: Path) -> None:
    draw(tmp_path / "data")
    small = ("--maps", "default", "deep", "--epochs", "1", "--images", "4")
    settings = ("data=folder", f"data.root={tmp_path / 'data'}", "data.image_size=64", "backbone.weights=none")
    speed = ("train.device=cpu", "train.workers=0", "train.batch_size=2")
    done = run("rank_taps", "--folder", str(tmp_path / "rank"), *small, "--", *settings, *speed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^default +block3\.rep\.0 \+ block8\.rep\.6 +probe 0\.\d+ +trained 0\.\d+$", done.stdout, re.M)
    assert re.search(r"^Spearman's rank correlation: (-?1\.00|nan)$", done.stdout, re.M)
    failed = run("rank_taps", "--folder", str(tmp_path / "other"), *small, "--", "data=folder", "data.root=nowhere")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == "rank_taps.py: segtune ended with exit code 2"
