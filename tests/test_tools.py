"""Each tool answers --help at once, and its smallest form works."""

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from functools import partial
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
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)


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


def test_benchmark_refuses_what_cannot_be_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, "benchmark", "--images", "8") == 2
    assert "got a batch of 8, 8 images" in capsys.readouterr().err
    assert run_here(monkeypatch, "benchmark", "--jobs", "3") == 2
    assert "got 3 jobs" in capsys.readouterr().err
    assert run_here(monkeypatch, "benchmark", "--rounds", "-1") == 2


def test_goals_of_the_benchmark_are_medians_of_ratios_and_what_is_missing_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    from benchmarks import measuring
    from benchmarks.tables import show

    figures = {"fast": iter([8.0, 9.0, 1.0]), "slow": iter([4.0, 3.0, 1.0])}

    def alone(job: measuring.Job, pool: object) -> measuring.Figures:
        assert pool is None
        if job.name == "peer":
            raise measuring.MissingError("No module named 'peer'")
        if job.name == "bad":
            raise RuntimeError("bad: out of order")
        return {"images_per_second": next(figures[job.name])}

    monkeypatch.setattr(measuring, "alone", alone)
    rate = "images_per_second"
    jobs = [measuring.Job(name, print, ()) for name in ("fast", "peer", "bad", "slow")]
    goals = [
        measuring.Goal("fast / slow", ("fast", rate), ("slow", rate), 2, True),
        measuring.Goal("fast / peer", ("fast", rate), ("peer", rate), 2, True),
        measuring.Goal("fast", ("fast", rate), None, 7.9, False),
    ]
    results = measuring.Results()
    results.run(measuring.Part(jobs), None)
    assert results.missing == {"peer": "No module named 'peer'", "bad": "failed: out of order"}
    assert results.failed == ["bad"]
    assert results.medians() == {"fast": {rate: 8.0}, "slow": {rate: 3.0}}
    facts = show({"versions": {}, "small": False}, results, [("steps", goal) for goal in goals])
    assert [(row["measured"], row["met"]) for row in facts["goals"]] == [(2.0, True), (None, None), (8.0, False)]
    assert "left out: No module named 'peer'" in capsys.readouterr().out


def test_the_benchmark_measures_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    from benchmarks.measuring import Job, alone

    figures = alone(Job("works", eval, ("{'process': __import__('os').getpid()}",)))
    assert figures["process"] != os.getpid()
    assert 0 < figures["peak_memory_gb"] < 0.5  # without PyTorch
    with pytest.raises(RuntimeError, match=r"^fails: ZeroDivisionError: division by zero\nso far$"):
        alone(Job("fails", exec, ("print('so far', flush=True); 1 / 0",)))


#: What each part of the benchmark measures, as the names of its figures begin, and its number of goals.
MEASURED = {
    "steps": (["plain loop", "segtune train"] * 2 + ["segtune train"] + ["plain loop"] * 2, 4),
    "peers": (["segtune train"], 1),  # and what is installed of the peers
    "sweep": (["a sweep of 2 jobs"] * 2, 1),
    "loader": (["loader"] * 6, 3),
    "dice": (["segtune to"], 2),
    "start": (["first step"] * 3 + ["python -m segtune --help"], 4),
    "sizes": (["plain loop"] * 4, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("part", MEASURED)
def test_benchmark_runs_in_its_small_form(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGTUNE_SHARED", raising=False)  # without real photos and weights
    figures = tmp_path / "figures.json"
    done = run("benchmark", "--only", part, "--small", "--json", str(figures))
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(figures.read_text("utf-8"))
    begins, goals = MEASURED[part]
    names = [name for name in facts["medians"] if not name.startswith(("smp", "fastai"))]
    assert len(names) == len(begins)
    assert all(name.startswith(begin) for name, begin in zip(names, begins, strict=True))
    assert len(facts["goals"]) == goals
    assert all(each["peak_memory_gb"] > 0 for each in facts["medians"].values())
    assert all(each.get("images_per_second", each.get("seconds")) for each in facts["medians"].values())
    assert all(row["measured"] is not None for row in facts["goals"]) or facts["left_out"]
    assert "A small form: its figures mean nothing." in done.stdout


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
def test_gpu_check_measures_compiled_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With PyTorch's backend that only traces: a compiler takes minutes on a CPU."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    small = ("--size", "64", "--batch", "4", "--images", "12", "--steps", "1", "--workers", "0", "--precisions", "fp32")
    figures = tmp_path / "figures.json"
    assert run_here(monkeypatch, "gpu_check", *small, "--device", "cpu", "--compile", "--json", str(figures)) == 0
    rows = json.loads(figures.read_text("utf-8"))["rows"]
    assert [row["what"] for row in rows if "compiled" in row["what"]] == [
        "plain loop, segtune's model, compiled",
        "segtune train, 0 workers, compiled",
    ]
    assert capsys.readouterr().out.count("compiling the network") == 1


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
