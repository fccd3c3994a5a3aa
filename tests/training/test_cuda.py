"""CUDA: mixed precision trains, a resumed run counts the same steps, and a GPU finds what a CPU finds.

The tests need a GPU (`make test-gpu`). Bits are not compared: several of cuDNN's and PyTorch's kernels add in changing
order.
"""

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from segtune.__main__ import main
from segtune.commands import train as commands
from segtune.config.cache_settings import CacheSettings
from segtune.config.data_settings import AugmentSettings
from segtune.config.schema import Settings
from segtune.errors import Interrupted
from segtune.inference.predictor import load
from segtune.models.build import BuiltModel, build_model
from segtune.models.checkpoint import Checkpoint
from segtune.models.split import split_backbone
from segtune.runtime.device import Device, resolve_device
from segtune.training import epoch
from segtune.training.batch_size import with_batch_size
from segtune.training.feature_form import FeatureForm
from segtune.training.feature_store import FolderStore
from segtune.training.phase_summary import Trial, measured
from segtune.training.phases import plan_phases
from segtune.training.unread import Unread
from tests.training.conftest import settings, weights_of

DEVICE = os.environ.get("SEGTUNE_TEST_CUDA", "cuda")  # cpu: whether the tests themselves work
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.usefixtures("quick", "without_reports"),
]
PHASES = {"head": {"epochs": 2, "lr": 1e-3, "backbone": 0}, "all": {"epochs": 3, "lr": 1e-3}}


@pytest.fixture(scope="module")
def weights(network_of: Callable[[str], nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file, so that phases may freeze the backbone."""
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file(network_of("resnet50").state_dict(), path)
    return path


@pytest.fixture
def chosen(discs: Path, weights: Path) -> Settings:
    plain = settings(discs, PHASES, device=DEVICE)
    return replace(plain, backbone=replace(plain.backbone, weights=str(weights)))


def trained(chosen: Settings, folder: Path, **changes: Any) -> dict[str, Any]:
    return commands.train(replace(chosen, train=replace(chosen.train, **changes)), folder)


def rows_of(folder: Path) -> list[list[str]]:
    return [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_precision_trains(chosen: Settings, tmp_path: Path, precision: str, accumulate: int) -> None:
    summary = trained(chosen, tmp_path / "run", precision=precision, accumulate=accumulate, workers=2)
    head, *rows = rows_of(tmp_path / "run")
    losses = [float(row[head.index("train_loss")]) for row in rows]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.05
    assert summary["device"].startswith(DEVICE)
    tensors = weights_of(tmp_path / "run")
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("step", [2, 7])
def test_a_stopped_run_makes_the_same_steps(
    chosen: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, step: int
) -> None:
    """Steps, schedule and loss scale of the end are those of a run that was not stopped."""
    trained(chosen, tmp_path / "whole", precision=precision)
    made, take_step = 0, epoch.take_step

    def stop(*arguments: object) -> None:
        nonlocal made
        take_step(*arguments)  # type: ignore[arg-type]
        made += 1
        if made == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(epoch, "take_step", stop)
        with pytest.raises(Interrupted):
            trained(chosen, tmp_path / "stopped", precision=precision)
    trained(replace(chosen, resume=str(tmp_path / "stopped")), tmp_path / "stopped", precision=precision)
    ends = [Checkpoint.load(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "stopped")]
    schedules = [end.optimizer["schedule"]["last_epoch"] for end in ends]
    assert schedules[0] == schedules[1] > 0
    assert ends[0].optimizer["scaler"] == ends[1].optimizer["scaler"]
    head, *rows = rows_of(tmp_path / "whole")
    again = rows_of(tmp_path / "stopped")[1:]
    rate = head.index("lr")
    assert [row[rate] for row in rows] == [row[rate] for row in again]
    loss = head.index("train_loss")
    assert [float(row[loss]) for row in again] == pytest.approx([float(row[loss]) for row in rows], abs=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_frozen_tensors_are_those_of_the_weights_file(
    chosen: Settings, weights: Path, tmp_path: Path, precision: str
) -> None:
    head = replace(chosen, freeze=replace(chosen.freeze, phases={"head": chosen.freeze.phases["head"]}))
    trained(head, tmp_path / "run", precision=precision)
    original, after = load_file(weights), weights_of(tmp_path / "run")
    frozen = [name for name in after if name.startswith("backbone.")]
    assert len(frozen) > 20
    assert all(torch.equal(after[name], original[name.removeprefix("backbone.")]) for name in frozen)


def test_weights_and_features_are_channels_last(chosen: Settings) -> None:
    compute = resolve_device(chosen.train)
    model = compute.place(build_model(chosen.backbone, chosen.taps, chosen.decoder).model)
    wide = [p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert wide
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in wide)
    seen = []
    model.backbone.register_forward_hook(lambda _m, _i, out: seen.extend(out.values()))
    with compute.autocast():
        model(torch.zeros(2, 3, 64, 64, dtype=torch.uint8, device=compute.device))
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in seen)


def test_a_gpu_predicts_what_a_cpu_predicts(chosen: Settings, tmp_path: Path) -> None:
    """Probabilities of every pixel, by the largest difference; fp32 convolutions compute in TF32 on recent GPUs."""
    trained(chosen, tmp_path / "run")
    image = np.random.default_rng(0).integers(0, 256, (150, 170, 3)).astype(np.uint8)
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    truth = load(best, device="cpu", precision="fp32").predict(image).probability
    for precision, bound in (("fp32", 0.01), ("fp16", 0.02), ("bf16", 0.1)):
        found = load(best, device=DEVICE, precision=precision).predict(image).probability
        assert np.abs(found - truth).max() < bound, precision


def test_six_jobs_of_one_process_give_their_memory_back(chosen: Settings, tmp_path: Path) -> None:
    """As in a sweep by Hydra's own launcher."""
    held = []
    for number in range(6):
        trained(chosen, tmp_path / str(number))
        held.append(torch.cuda.memory_allocated() if DEVICE == "cuda" else 0)
    assert max(held[1:]) <= held[0] + 2**20


@pytest.mark.skipif(DEVICE != "cuda", reason="there is no CUDA device")
def test_out_of_memory_is_one_message(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**30) / total)
    try:
        code = main(
            [
                *("train", "data=folder", f"data.root={discs}", "backbone=resnet50", "backbone.weights=none"),
                *("data.image_size=1024", "train.batch_size=4", "train.workers=0", f"run_dir={tmp_path / 'run'}"),
            ]
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert code not in (0, 130)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "memory" in said
    assert "train.batch_size" in said


@pytest.mark.skipif(DEVICE != "cuda", reason="there is no CUDA device")
@pytest.mark.parametrize(("precision", "expected"), [("fp32", 0), ("bf16", 0), ("fp16", 1)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_between_two_readings_nothing_waits_for_the_gpu(
    chosen: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, expected: int, accumulate: int
) -> None:
    """By PyTorch's own count; only fp16 must know whether a step is made. The first step is not counted."""
    found, came, queued = [], Unread.batch_came, Unread.batch_queued
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def begin(unread: Unread, waited: float) -> None:
            came(unread, waited)
            caught.clear()
            torch.cuda.set_sync_debug_mode("warn")

        def end(unread: Unread) -> None:
            torch.cuda.set_sync_debug_mode("default")
            found.append(sum("synchroniz" in str(warning.message) for warning in caught))
            queued(unread)

        monkeypatch.setattr(Unread, "batch_came", begin)
        monkeypatch.setattr(Unread, "batch_queued", end)
        monkeypatch.setattr(epoch, "_SECONDS", float("inf"))
        trained(chosen, tmp_path / "run", precision=precision, accumulate=accumulate, batch_size=1, log_every=0)
    of_epoch = [expected] * 5 if accumulate == 1 else [0, expected, 0, expected, expected]
    assert found[accumulate:] == (of_epoch * 5)[accumulate:]


@pytest.mark.skipif(DEVICE != "cuda", reason="there is no CUDA device")
def test_plan_measures_the_peak_of_a_real_step(discs: Path) -> None:
    """Against a plain loop of the same network in this process; both count what PyTorch's allocator hands out."""
    chosen = settings(discs, {"all": {"epochs": 1, "lr": 1e-3}}, device="cuda", precision="bf16", batch_size=16)
    chosen = replace(chosen, data=replace(chosen.data, image_size=256))
    built = build_model(chosen.backbone, chosen.taps, chosen.decoder)
    compute = resolve_device(chosen.train)
    phase = plan_phases(chosen, built)[0]
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model = compute.place(built.model).train()
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randint(256, (16, 3, 256, 256), dtype=torch.uint8, device="cuda")
    target = torch.rand(16, 1, 256, 256, device="cuda")
    for _ in range(3):
        with compute.autocast():
            logits = model(images)
        nn.functional.binary_cross_entropy_with_logits(logits, target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    peak = torch.cuda.max_memory_allocated() - before
    assert measured(phase, chosen)["measured_bytes"] == pytest.approx(peak, rel=0.15)


@pytest.mark.skipif(DEVICE != "cuda", reason="there is no CUDA device")
def test_the_batch_size_that_is_found_trains_and_leaves_a_margin(discs: Path) -> None:
    chosen = settings(discs, {"all": {"epochs": 1, "lr": 1e-3}}, device="cuda", precision="bf16", batch_size="auto")
    chosen = replace(chosen, data=replace(chosen.data, image_size=512))
    built, compute = build_model(chosen.backbone, chosen.taps, chosen.decoder), resolve_device(chosen.train)
    phases = plan_phases(chosen, built)
    found = with_batch_size(chosen, built, phases, compute, None).train.images_per_batch
    assert found >= 8
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trial = Trial(chosen, phases[0])
    for _ in range(3):
        trial.step(found)()
    assert torch.cuda.max_memory_reserved() < 0.95 * torch.cuda.mem_get_info()[1]


@pytest.mark.skipif(DEVICE != "cuda", reason="there is no CUDA device")
def test_nccl_trains_with_one_process_of_torchrun(discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [
        *("train", "data=folder", f"data.root={discs}", "backbone=resnet50", "backbone.weights=none"),
        *("freeze=none", "freeze.phases.all.epochs=1", "data.image_size=64", "train.batch_size=2", f"run_dir={run}"),
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", "--standalone", "-m", "segtune"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["processes"], summary["device"]) == (1, "cuda")


def test_features_come_back_from_where_they_are_kept(chosen: Settings, tmp_path: Path) -> None:
    """A run that finds its features and one that finds none see the same values; those without a cache are close."""
    plain = replace(chosen, augment=AugmentSettings(), train=replace(chosen.train, precision="fp32", workers=2))
    losses = {}
    for name, mode in {"off": "off", "new": "disk", "found": "disk", "memory": "memory"}.items():
        commands.train(replace(plain, cache=CacheSettings(mode, folder=str(tmp_path / "cache"))), tmp_path / name)
        head, *rows = rows_of(tmp_path / name)
        losses[name] = [float(row[head.index("train_loss")]) for row in rows]
    for name in "new", "found", "memory":
        assert losses[name] == pytest.approx(losses["off"], rel=0.02)
    assert losses["found"][0] == pytest.approx(losses["new"][0], rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_kept_of_an_image_on_the_gpu_is_what_it_computes(
    built_of: Callable[[str], BuiltModel], tmp_path: Path, dtype: torch.dtype
) -> None:
    built, device = built_of("resnet50_deeplabv3plus"), torch.device(DEVICE)
    built.model.eval().requires_grad_(False)
    built.model.decoder.requires_grad_(True)
    built.model.to(device).split = split_backbone(built.model.backbone)
    form = FeatureForm(Device(device, dtype), dtype, 2)
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    crossing, store = form.through(built.model, images), FolderStore(tmp_path, {})
    for number, record in enumerate(form.records(crossing)):
        store.write(str(number), record)
    found = form.batch([record for name in "01" if (record := store.read(name))], (64, 64))["image"].to(device)
    for name, value in crossing.values.items():
        assert value.device.type == device.type
        assert found.values[name].dtype == value.dtype
        assert torch.equal(found.values[name], value)
