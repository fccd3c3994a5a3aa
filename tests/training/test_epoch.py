"""An epoch of training: what its steps compute, which are skipped in fp16, and when they stop the run."""

import csv
import math
import os
import re
import shutil
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._python_dispatch import TorchDispatchMode

from segtune.commands import train as commands
from segtune.config.model_settings import FCN8sSettings
from segtune.config.training_settings import CheckpointSettings, OptimizerSettings, PhaseSettings
from segtune.data.splits import build_splits
from segtune.errors import DivergedError, Interrupted, UserError
from segtune.losses import build_loss
from segtune.models.build import build_model
from segtune.models.checkpoint import Checkpoint
from segtune.models.pretrained import LoadedWeights
from segtune.runtime.device import Device
from segtune.training import epoch, loop
from segtune.training import state as states
from segtune.training.state import OptimState, Run, State
from segtune.training.unread import Unread
from tests.conftest import slow
from tests.training.conftest import fit, same, settings, weights_of

trains = pytest.mark.trains
quickly = pytest.mark.usefixtures("quick", "without_reports")
HALF, FULL = torch.float16, torch.float32


@trains
@quickly
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, calls = build_loss(settings(discs).loss), 0

    def ruined(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += logits.requires_grad
        return good(logits, target) * (float("nan") if calls == 5 and logits.requires_grad else 1.0)

    monkeypatch.setattr(epoch, "build_loss", lambda _: ruined)
    with pytest.raises(DivergedError) as error:
        commands.train(settings(discs), tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert str(error.value) == (
        f"Training stopped in phase one, epoch 2, step 2: the loss is nan.\nThe last good checkpoint is {last}. "
        "Try a lower learning rate (freeze.phases.one.lr=…) or train.precision=fp32."
    )
    good = Checkpoint.load(last)
    assert good.state.epoch == 1
    assert all(torch.isfinite(tensor).all() for tensor in good.model.values())


@trains
@quickly
def test_a_gradient_that_is_not_finite_stops_the_run_too(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steep(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (logits - logits.detach()).abs().sqrt().mean()  # 0, with an infinite slope

    monkeypatch.setattr(epoch, "build_loss", lambda _: steep)
    with pytest.raises(DivergedError, match=r"phase one, epoch 1, step 1: the gradient's norm is (nan|inf)"):
        commands.train(settings(discs), tmp_path / "run")


@trains
@quickly
def test_accumulated_gradients_equal_those_of_the_whole_batch(discs: Path, tmp_path: Path) -> None:
    """Without BatchNorm in training mode, dropout, clipping and per-batch terms the two are one computation."""
    results = []
    for size, accumulate in ((4, 1), (2, 2)):
        more = {"batch_size": size, "accumulate": accumulate, "clip": 0, "precision": "fp32"}
        chosen = settings(discs, {"head": {"epochs": 1, "lr": 0.1}}, **more)
        chosen = replace(
            chosen,
            decoder=FCN8sSettings(),
            taps={"pool3": "layer1.0.act2", "pool4": "layer1.1.act2", "high": "layer1.2.act2"},
            optimizer=OptimizerSettings("sgd", momentum=0.0, weight_decay=0.0, schedule="constant", warmup=0.0),
            freeze=replace(chosen.freeze, phases={"head": PhaseSettings(epochs=1, lr=0.1, backbone=0)}),
            data=replace(chosen.data, limit=4),
        )
        torch.manual_seed(0)
        built = replace(build_model(chosen.backbone, chosen.taps, chosen.decoder), weights=LoadedWeights("a file"))
        folder = tmp_path / str(accumulate)
        fit(chosen, built, build_splits(chosen.data, 0, 0), folder)
        results.append(weights_of(folder))
    assert all(torch.allclose(results[0][name], results[1][name], atol=1e-6) for name in results[0])


@trains
@quickly
def test_labels_below_void_change_no_bit_of_a_network(discs: Path, tmp_path: Path) -> None:
    """Void covers noise: half of it would be object, half background, by a rule that did not know of void."""
    rng, results = np.random.default_rng(0), []
    for name in ("clean", "noise"):
        root = shutil.copytree(discs, tmp_path / name)
        for path in sorted((root / "masks").iterdir()):
            mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            region = mask[20:50, 20:60]
            region[:] = 100 if name == "clean" else rng.choice(np.array([100, 199], np.uint8), region.shape)
            cv2.imwrite(str(path), mask)
        chosen = settings(root, {"one": {"epochs": 1, "lr": 1e-3}})
        data = replace(chosen.data, foreground=128, ignore=[100, 199], limit=4)
        border = {"Affine": {"rotate": [-30, 30], "p": 1.0}}
        chosen = replace(chosen, data=data, augment=replace(chosen.augment, transforms=border, border="void"))
        summary = commands.train(chosen, folder := tmp_path / f"run_{name}")
        results.append((weights_of(folder), (folder / "metrics.csv").read_bytes()))
        assert math.isfinite(summary["val_dice"])
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


class Steps:
    """Two weights, with what `take_step` needs; each `step` makes one from a gradient, which the scaler has scaled."""

    def __init__(self, dtype: torch.dtype = HALF, clip: float = 1.0, most: int = 3, scale: float = 8.0) -> None:
        self.model = torch.nn.Linear(2, 1, bias=False)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=dtype == HALF)
        self.optim_state = OptimState(optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step)), scaler)
        self.run = SimpleNamespace(
            model=self.model,
            state=State(phases={"head": {}}),
            settings=SimpleNamespace(train=SimpleNamespace(clip=clip, max_skipped_steps=most)),
            compute=Device(torch.device("cpu"), dtype),
            folder=Path("run"),
            proven="",
            unread=Unread(torch.device("cpu")),
        )
        self.phase = SimpleNamespace(name="head")

    def step(self, gradient: float) -> float:
        """Return by how much the first weight has changed; both have the gradient."""
        before = self.model.weight[0, 0].item()
        self.run.state.step += 1
        self.optim_state.scaler.scale((self.model.weight * gradient).sum()).backward()
        epoch.take_step(self.run, self.optim_state, self.phase)  # type: ignore[arg-type]
        assert self.model.weight.grad is None
        return self.model.weight[0, 0].item() - before

    @property
    def counts(self) -> tuple[int, int, int, float]:
        """Steps made, steps skipped, those in a row, and the scale."""
        state = self.run.state
        return self.optim_state.made, state.skipped, state.skipped_in_a_row, self.optim_state.scaler.get_scale()


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_skipped_step_is_counted_and_changes_neither_weights_nor_schedule(clip: float, bad: float) -> None:
    steps = Steps(clip=clip)
    assert steps.step(bad) == 0
    assert (steps.counts, steps.run.proven, steps.run.state.lr) == ((0, 1, 1, 4.0), "", 0.5)
    assert steps.step(0.5) == pytest.approx(-0.25, rel=1e-5)
    assert (steps.counts, steps.run.proven) == ((1, 1, 0, 4.0), "head")
    assert steps.step(bad) == 0
    assert (steps.counts, steps.run.state.lr) == ((1, 2, 1, 2.0), 0.25)
    assert steps.step(0.5) == pytest.approx(-0.125, rel=1e-5)
    assert steps.counts == (2, 2, 0, 2.0)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_norm_beyond_float32_is_skipped_too(clip: float) -> None:
    """Each gradient is finite, so the scaler would make the step: with gradients of 0 or, without clipping, NaN."""
    steps = Steps(clip=clip)
    assert steps.step(1e30) == 0
    assert steps.counts[:3] == (0, 1, 1)


def test_too_many_skipped_steps_in_a_row_stop_the_run() -> None:
    steps = Steps(most=3)
    for gradient in (float("inf"), float("nan"), 1.0, float("inf"), float("inf")):
        steps.step(gradient)
    with pytest.raises(DivergedError) as caught:
        steps.step(float("inf"))
    assert str(caught.value) == (
        "Training stopped in phase head, epoch 1, step 6: 3 steps in a row (train.max_skipped_steps) were skipped: "
        "their gradients overflow in fp16, the last at a loss scale of 0.5.\n"
        "The last good checkpoint is run/checkpoints/last.pt. Try train.precision=bf16 or fp32, whose range is wider, "
        "or a lower learning rate (freeze.phases.head.lr=…)."
    )


def test_the_rates_and_the_norm_of_a_step_are_those_it_was_made_with() -> None:
    """Before clipping, and before the schedule moves."""
    steps = Steps(FULL, clip=0.1)
    optimizer = torch.optim.SGD([{"params": steps.model.parameters()}, {"params": [], "lr": 0.05}], lr=0.5)
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    steps.optim_state = OptimState(optimizer, schedule, steps.optim_state.scaler)
    steps.step(3.0)
    assert steps.run.last_step == {"lr_min": 0.05, "lr_max": 0.5, "gradient_norm": pytest.approx(math.sqrt(18))}


def test_other_precisions_skip_nothing() -> None:
    steps = Steps(FULL)
    assert steps.step(0.5) == pytest.approx(-0.25, rel=1e-5)
    with pytest.raises(DivergedError, match="epoch 1, step 2: the gradient's norm is inf"):
        steps.step(float("inf"))
    assert steps.counts == (1, 0, 0, 1.0)


def test_a_phase_that_made_no_step_is_not_done() -> None:
    steps = Steps()
    steps.step(float("inf"))
    steps.step(float("inf"))
    with pytest.raises(DivergedError) as caught:
        epoch.check_steps(steps.run, steps.optim_state, steps.phase)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "Phase head has trained nothing: all its 2 steps were skipped, for their gradients overflow in fp16; the loss "
        "scale is down to 2.\nTry train.precision=bf16 or fp32, whose range is wider, or a lower learning rate "
        "(freeze.phases.head.lr=…)."
    )
    steps.step(1.0)
    epoch.check_steps(steps.run, steps.optim_state, steps.phase)  # type: ignore[arg-type]


def test_a_weight_without_gradient_is_found_in_a_skipped_step_too() -> None:
    steps = Steps()
    steps.model.register_parameter("lone", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(UserError, match="Phase head: no gradient reaches lone"):
        steps.step(float("inf"))


def test_the_first_scale_leads_in_twelve_skipped_steps_through_the_range_that_networks_need() -> None:
    scaler = epoch.new_scaler(Device(torch.device("cpu"), HALF))
    assert scaler.get_scale() * 0.5 ** settings(Path()).train.max_skipped_steps == 8
    assert not epoch.new_scaler(Device(torch.device("cpu"), torch.bfloat16)).is_enabled()


def rows_of(folder: Path) -> list[tuple[str, int, float]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [(row["phase"], int(row["skipped_steps"]), float(row["lr"])) for row in csv.DictReader(file)]


@pytest.mark.slow
@trains
@quickly
def test_a_phase_of_steps_makes_up_for_skipped_ones_and_resumes_to_the_bit(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batches an epoch; the last epoch of the phase of four steps needs one more than was planned.

    All is computed in float32, which is faster on most CPUs; only the scaler is that of fp16.
    """
    monkeypatch.setattr(Device, "autocast", lambda _: nullcontext())
    take, bad, stop, seen = epoch.take_step, {"few": (0, 3), "whole": (1,)}, 0, []

    def overflow(run: loop.Run, optim_state: OptimState, phase: loop.Phase) -> None:
        if optim_state.made + run.state.skipped_in(phase.name) in bad[phase.name]:
            next(run.model.parameters()).grad.fill_(float("inf"))
        take(run, optim_state, phase)
        seen.append((phase.name, optim_state.made, run.state.lr))
        if len(seen) == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(epoch, "take_step", overflow)
    phases = {"few": {"steps": 4, "lr": 1e-2, "warmup": 0.0}, "whole": {"epochs": 1, "lr": 1e-2, "warmup": 0.0}}
    chosen, straight = settings(discs, phases, precision="fp16"), tmp_path / "straight"
    summary = commands.train(chosen, straight)
    assert [each[1] for each in seen] == [0, 1, 2, 2, 3, 4, 1, 1, 2]
    rates = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in (0, 0, 1, 2, 2, 3)] + [1, 0.75, 0.75]
    assert [each[2] for each in seen] == pytest.approx([1e-2 * rate for rate in rates], rel=1e-6)
    assert [row[:2] for row in rows_of(straight)] == [("few", 1), ("few", 1), ("whole", 1)]
    assert summary["skipped_steps"] == 3
    uninterrupted, resumed, stop = seen[:], tmp_path / "resumed", 4  # behind the step that was skipped in that epoch
    seen.clear()
    with pytest.raises(Interrupted):
        commands.train(chosen, resumed)
    commands.train(replace(chosen, resume=str(resumed)), resumed)
    assert seen == uninterrupted
    assert same(weights_of(straight), weights_of(resumed))
    assert (straight / "metrics.csv").read_bytes() == (resumed / "metrics.csv").read_bytes()
    scalers = [Checkpoint.load(run / "checkpoints" / "last.pt").optimizer["scaler"] for run in (straight, resumed)]
    assert scalers[0] == scalers[1]


@pytest.mark.slow
@trains
@quickly
def test_a_run_whose_every_step_overflows_ends_with_the_cause(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six steps, as in a short trial: fewer than may be skipped in a row."""
    scaler = epoch.new_scaler
    monkeypatch.setattr(loop, "new_scaler", lambda compute: torch.amp.GradScaler("cpu", init_scale=2.0**60))
    with pytest.raises(DivergedError, match="Phase one has trained nothing: all its 6 steps were skipped"):
        commands.train(settings(discs, precision="fp16"), tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()
    monkeypatch.setattr(loop, "new_scaler", scaler)  # a resume goes on with the scale of before
    with pytest.raises(DivergedError, match=re.escape(f"the loss scale is down to {2.0**54:g}.")):
        commands.train(replace(settings(discs, precision="fp16"), resume="run"), tmp_path / "run")


@trains
@quickly
@pytest.mark.parametrize(("minutes", "saved"), [(1e-9, [0, 1, 2, 3, 0]), (10.0, [0, 0])])
def test_a_run_is_saved_within_an_epoch_by_the_clock(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, saved: list[int]
) -> None:
    """At the start of the phase, after each of its three batches or none, and after the epoch."""
    found, save = [], Run.save

    def recorded(run: Run, name: str, optimizer: dict | None = None) -> None:
        save(run, name, optimizer)
        if name == "last.pt":
            found.append(Checkpoint.load(run.folder / "checkpoints" / name).state.step)

    monkeypatch.setattr(Run, "save", recorded)
    chosen = settings(discs, {"one": {"epochs": 1, "lr": 1e-3}})
    commands.train(replace(chosen, checkpoint=CheckpointSettings(minutes)), tmp_path / "run")
    assert found == saved


class Behind(Unread):
    """On the CPU what is there on a GPU: numbers are not read at once. Its device never waits for a batch."""

    read_behind: list[int]  # the last batch of every reading

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.at_once = False

    def read(self) -> Any:
        for reading in super().read():
            last = reading.batch
            yield reading
        if "last" in locals():
            self.read_behind.append(last)

    def _mark(self) -> Any:
        return SimpleNamespace(synchronize=lambda: None, elapsed_time=lambda _: 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A device that is read rarely, and a time that only the test moves on."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(Behind, "read_behind", [], raising=False)
    monkeypatch.setattr(states, "Unread", Behind)

    def tick() -> float:
        clock.now += 1e-6  # a rate is of more than no time
        return clock.now

    monkeypatch.setattr(epoch, "time", SimpleNamespace(perf_counter=tick))
    return clock


def five_steps(root: Path, **train: Any) -> Any:
    return settings(root, {"one": {"epochs": 1, "lr": 1e-3}}, batch_size=1, log_every=0, samples=0, **train)


@trains
@quickly
@pytest.mark.parametrize("what", ["loss", slow("gradient")])
def test_what_is_not_finite_between_two_readings_is_reported_with_its_own_step(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, what: str
) -> None:
    """Step 4 is ruined; the losses are read after steps 1, 3, when the clock asks for a checkpoint, and 5, the last."""
    good, take, calls = build_loss(settings(discs).loss), epoch.take_step, 0

    def ruined(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        steep = (logits - logits.detach()).abs().sqrt().sum()  # zero, and infinitely steep
        return good(logits, target) + (0 if calls != 4 else steep if what == "gradient" else math.nan)

    def timed(run: Run, *more: Any) -> None:
        take(run, *more)
        clock.now += 601 * (run.state.step == 3)

    monkeypatch.setattr(epoch, "build_loss", lambda _: ruined)
    monkeypatch.setattr(epoch, "take_step", timed)
    with pytest.raises(DivergedError) as error:
        commands.train(five_steps(discs, precision="fp32"), tmp_path / "run")
    assert calls == 5
    assert Behind.read_behind == [1, 3]
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert re.match(
        rf"Training stopped in phase one, epoch 1, step 4: the {what}.* (is nan|is inf)\.", str(error.value)
    )
    assert f"The last good checkpoint is {last}." in str(error.value)
    saved = Checkpoint.load(last)
    assert saved.state.step == 3
    assert all(torch.isfinite(tensor).all() for tensor in saved.model.values())
    assert not last.with_name("best.pt").exists()


@trains
@quickly
def test_a_run_ends_the_same_however_rarely_losses_are_read(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    """Read after every step, and read twice, with a stop and a resume between."""
    with monkeypatch.context() as patch:
        patch.setattr(states, "Unread", Unread)
        commands.train(five_steps(discs), tmp_path / "often")
    take = epoch.take_step

    def stop(run: Run, *more: Any) -> None:
        take(run, *more)
        if run.state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(epoch, "take_step", stop)
        with pytest.raises(Interrupted):
            commands.train(five_steps(discs), tmp_path / "rarely")
    commands.train(replace(five_steps(discs), resume=str(tmp_path / "rarely")), tmp_path / "rarely")
    assert Behind.read_behind == [1, 3, 4, 5]
    assert same(weights_of(tmp_path / "often"), weights_of(tmp_path / "rarely"))
    assert (tmp_path / "often" / "metrics.csv").read_bytes() == (tmp_path / "rarely" / "metrics.csv").read_bytes()


class Reads(TorchDispatchMode):
    """Notes every number that is read from a tensor of floats; `item`, `bool`, `float` and comparisons come here."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_floating_point():
            self.found.append(str(function))
        return function(*args, **kwargs or {})


@trains
@quickly
def test_a_step_between_two_readings_reads_nothing(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    """From the batch, which is read on the CPU before it is sent, to the optimizer's step."""
    reads, lists, steps = Reads(), torch.Tensor.tolist, []

    def to_list(tensor: torch.Tensor) -> Any:
        reads.found += ["tolist"] * tensor.is_floating_point()
        return lists(tensor)

    def watch(method: str, act: Any) -> None:
        original = getattr(Behind, method)
        monkeypatch.setattr(Behind, method, lambda self, *given: (act(), original(self, *given))[1])

    watch("batch_came", lambda: reads.__enter__())
    watch("batch_queued", lambda: (reads.__exit__(None, None, None), steps.append(reads.found[:])))
    monkeypatch.setattr(torch.Tensor, "tolist", to_list)
    # Adam counts its steps on the CPU, a cosine is computed there.
    optimizer = OptimizerSettings("sgd", schedule="constant", warmup=0.0)
    chosen = replace(five_steps(discs), optimizer=optimizer)
    commands.train(chosen, tmp_path / "run")
    assert steps == [[], ["tolist"], ["tolist"], ["tolist"], ["tolist"]]  # the one reading behind step 1
    assert Behind.read_behind == [1, 5]
