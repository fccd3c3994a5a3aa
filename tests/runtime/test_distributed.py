"""Several processes, one run, over gloo on the CPU.

The slow tests look at what this file leaves behind when it is run as a program: it forks the processes of every
scenario from one that has imported everything, which saves minutes.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from segtune.__main__ import main
from segtune.cli import main as cli
from segtune.cli import tasks
from segtune.commands import train as commands
from segtune.config.loss_settings import LossSettings
from segtune.config.training_settings import TrainSettings
from segtune.errors import LostError, UserError
from segtune.losses import Loss
from segtune.runtime import console, distributed
from segtune.runtime.device import resolve_device
from segtune.training import epoch
from segtune.training import loop as engine
from segtune.training import phase_summary as plan
from segtune.training.feature_folders import kept
from segtune.training.signals import stop_signals
from segtune.training.step_cost import StepCost

CPU = torch.device("cpu")
PHASES = ["head", "deep1", "deep2", "deep3", "all"]
DATA = ("data=folder", "data.root=photos", "train.workers=0", "train.device=cpu")
TRAIN = (
    *DATA,
    *("data.image_size=32", "backbone=resnet50", "backbone.weights=live.safetensors"),
    *("train.precision=fp32", "train.batch_size=4", "train.samples=2"),
)
#: FCN-8s on three blocks of ResNet50 and on the stem; no BatchNorm of it trains, and there is no dropout.
FIXED = (
    *TRAIN,
    *("decoder=fcn8s", "taps.pool3=layer1.0.act2", "taps.pool4=layer2.0.act2", "taps.high=layer3.0.act2"),
    *("freeze=progressive", *(f"freeze.phases.{phase}.batchnorm=frozen" for phase in PHASES)),
    *(f"freeze.phases.{phase}.epochs=1" for phase in PHASES),
)
#: With plain SGD; its weights move by 0.006 and more in each phase.
EXACT = (*FIXED, "optimizer=sgd", *(f"freeze.phases.{phase}.lr=0.02" for phase in PHASES))
#: The same in three of its phases, two of them with a frozen part, of two epochs each.
KEPT = (
    *(each for each in EXACT if "deep2" not in each and "deep3" not in each),
    *("~freeze.phases.deep2", "~freeze.phases.deep3", "augment=none"),
    *(f"freeze.phases.{phase}.epochs=2" for phase in ("head", "deep1")),
)
#: DeepLabV3+ with BatchNorm and dropout that train, in batches of 4 and 2.
LIVELY = (
    *TRAIN,
    *("taps.low=layer1.0.act2", "taps.high=layer1.2.act2", "decoder.channels=8", "freeze=two_phase"),
    *("freeze.phases.head.epochs=1", "freeze.phases.all.epochs=2"),
)


def test_one_process_needs_no_others() -> None:
    model = nn.Linear(2, 2)
    with distributed.process_group(CPU):
        assert distributed.all_reduce_sum([1, 2.5]) == [1, 2.5]
        assert distributed.gather("mine") == ["mine"]
        assert distributed.on_rank_zero(lambda: 7) == 7
        assert distributed.wrap(model, CPU, True) is model
        distributed.broadcast_buffers(model)
    assert (distributed.rank(), distributed.world(), distributed.local_rank()) == (0, 1, 0)


def test_a_world_without_an_address_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError) as caught, distributed.process_group(CPU):
        pass
    assert str(caught.value) == (
        "WORLD_SIZE=4 in the environment announces 4 processes, but MASTER_ADDR and MASTER_PORT are not set. "
        "Start them with torchrun, or unset WORLD_SIZE."
    )


def test_a_lost_process_is_told_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(LostError) as caught, distributed.process_group(CPU):
        raise RuntimeError("In a callback: [/x/gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:5. Long")
    assert str(caught.value) == (
        "Process 1 of 2 has lost the others: one of them has ended, or the network failed (Connection closed by peer "
        "[::1]:5).\nIts message, if any, is above or in its log. The run can be resumed from its last save."
    )
    with pytest.raises(RuntimeError, match="size mismatch"), distributed.process_group(CPU):
        raise RuntimeError("size mismatch")


def test_a_batch_smaller_than_the_world_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main(["train", "data=folder", "data.root=photos", "train.batch_size=2", "run_dir=run"]) == 2
    assert capsys.readouterr().err.strip() == (
        "segtune train: train.batch_size=2 is shared by 3 processes, and each needs an image; expected 3 or more."
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "photos"]


def test_a_signal_that_comes_twice_does_not_end_one_of_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stop_signals() as stopped:
        assert not stopped()
        for _ in range(2):  # from a batch system, and from torchrun
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopped()
    assert capsys.readouterr().out == "Stopping after this step.\n"


def test_one_gpu_for_all_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError) as caught:
        resolve_device(TrainSettings(device="cuda:1"))
    assert str(caught.value) == (
        "train.device=cuda:1 would put all 2 processes on one GPU. Use train.device=cuda: one GPU each."
    )


@pytest.mark.parametrize(("number", "at_once", "expected"), [(0, False, []), (1, False, [5]), (1, True, [])])
def test_the_first_process_speaks_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, at_once: bool, expected: list[int]
) -> None:
    waited: list[float] = []
    monkeypatch.setenv("RANK", str(number))
    monkeypatch.setattr(time, "sleep", waited.append)
    cli._complain("what is wrong", at_once=at_once)
    assert (waited, capsys.readouterr().err) == (expected, "what is wrong\n")


def test_only_the_first_process_shows_lines_and_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, expected in (("1", ""), ("0", "a line\n")):
        with monkeypatch.context() as patch:
            patch.setenv("RANK", number)
            patch.setattr(console.console, "quiet", False)
            patch.setattr("warnings.filters", [])
            console.set_up_logging()
            console.say("a line")
            assert capsys.readouterr().out == expected
    console.set_up_logging()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be the first of two, with a wrapping that needs no second."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "DistributedDataParallel", lambda model, **_: model)


@pytest.mark.usefixtures("two")
def test_batchnorm_is_synced_in_place_with_its_tensors_names_and_flags() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4, affine=False)))
    model[1].eval().requires_grad_(False)
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    flags = [(name, p.requires_grad) for name, p in model.named_parameters()]
    distributed.wrap(model, torch.device("cuda"), sync_batchnorm=True)
    assert [type(module).__name__ for module in model.modules()].count("SyncBatchNorm") == 2
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    assert [(name, p.requires_grad) for name, p in model.named_parameters()] == flags
    assert (model[1].training, model[2][0].training) == (False, True)
    left = nn.Sequential(nn.BatchNorm2d(4))
    distributed.wrap(left, torch.device("cuda"), sync_batchnorm=False)
    assert type(left[0]) is nn.BatchNorm2d


@pytest.mark.usefixtures("two")
def test_statistics_of_each_process_are_warned_of_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(distributed.log, "warning", lambda text, *values: said.append(text % values))
    distributed._warn_of_batchnorm.cache_clear()
    frozen = nn.Sequential(nn.BatchNorm2d(4)).eval()
    trained = nn.Sequential(nn.BatchNorm2d(4))
    wrap = partial(distributed.wrap, device=torch.device("meta"), sync_batchnorm=True)
    wrap(frozen)
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "1")
        wrap(trained)
    assert not said
    wrap(trained)
    wrap(trained)
    assert said == [
        "Each of the 2 processes computes BatchNorm statistics over its own part of the batch (there is no "
        "SyncBatchNorm on meta). One process with the same batch would train a little differently; batchnorm: frozen "
        "in a phase avoids this in the backbone."
    ]
    assert type(trained[0]) is nn.BatchNorm2d
    distributed._warn_of_batchnorm.cache_clear()


# From here on: real processes.


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which this file has run as a program."""
    folder = tmp_path_factory.mktemp("distributed")
    done = subprocess.run([sys.executable, __file__], cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr + "".join(p.read_text() for p in folder.glob("*.log"))
    return folder


def environment() -> dict[str, str]:
    repository = str(Path(engine.__file__).parents[2])
    return {**os.environ, "PYTHONPATH": repository, "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0"}


def log(folder: Path, scenario: str, number: int) -> str:
    return (folder / f"{scenario}.{number}.log").read_text()


def weights(path: Path) -> dict[str, torch.Tensor]:
    content = torch.load(path)
    return content.get("model", content)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def deviation(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["even", "odd"])
def test_both_processes_have_the_weights_of_a_single_one_after_every_phase(outcome: Path, scenario: str) -> None:
    """The sums over a batch are taken in another order, so the last bits of float32 differ; nothing else may.

    SampleStats: 7e-9 (even, odd), where the weights move by 6e-3 and more in each phase.
    """
    before = None
    for phase in PHASES:
        alone, first, second = (weights(outcome / f"{scenario}{name}_{phase}.pt") for name in ("1.0", "2.0", "2.1"))
        assert equal(first, second)
        assert deviation(alone, first) < 1e-7
        assert before is None or deviation(before, alone) > 1e-3
        before = alone


@pytest.mark.slow
def test_features_that_two_processes_keep_give_the_weights_of_one_without(outcome: Path) -> None:
    """Both write to one folder, which one process shares; the last batch of an epoch is not whole.

    SampleStats: 0 (one process), 1.5e-8 (two), where the weights move by 8e-3 and more in each phase.
    """
    before = None
    for phase in ("head", "deep1", "all"):
        names = ("unkept.0", "kept1.0", "kept2.0", "kept2.1")
        without, alone, first, second = (weights(outcome / f"{name}_{phase}.pt") for name in names)
        assert equal(first, second)
        assert deviation(without, alone) < 1e-7
        assert deviation(without, first) < 1e-7
        assert before is None or deviation(before, without) > 1e-3
        before = without
    for phase in ("head", "deep1"):
        assert log(outcome, "kept2", 0).count(f"{phase:>10}  features of the frozen part are kept in features: ") == 1
    found = [(each.facts["of"], each.images, each.views) for each in kept(outcome / "features")]
    assert sorted(found) == [("training", 6, 1)] * 4 + [("validation", 2, 1)] * 4  # batches of 4, and of 2 in each


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_without_the_features_that_it_kept(outcome: Path) -> None:
    assert log(outcome, "halted", 0).count("Stopped; everything is saved.") == 1
    assert same_run(outcome / "kept2", outcome / "halted")


@pytest.mark.slow
def test_a_step_that_overflows_in_one_process_is_skipped_by_all(outcome: Path) -> None:
    """In the second process, the first step of the second phase; each phase has an epoch of two."""
    for phase in PHASES:
        assert equal(*(weights(outcome / f"skips.{number}_{phase}.pt") for number in range(2)))
    head, *rows = (outcome / "skips" / "metrics.csv").read_text().splitlines()
    skipped = head.split(",").index("skipped_steps")
    assert [int(row.split(",")[skipped]) for row in rows] == [0, 1, 0, 0, 0]
    assert json.loads((outcome / "skips" / "summary.json").read_text())["skipped_steps"] == 1


@pytest.mark.slow
def test_a_phase_needs_a_wrapping_of_its_own(outcome: Path) -> None:
    results = [json.loads((outcome / f"thaw.{number}.json").read_text()) for number in range(2)]
    assert results[0]["kept"] != results[1]["kept"]  # what thaws gets no gradients of the others, without any error
    assert results[0]["anew"] == results[1]["anew"]


@pytest.mark.slow
def test_gradients_lie_where_they_are_exchanged_and_change_no_bit(outcome: Path) -> None:
    """The same steps with the defaults of PyTorch, which copies gradients, end with the same bits."""
    first, second = (json.loads((outcome / f"shared.{number}.json").read_text()) for number in range(2))
    assert first["segtune"] == first["pytorch"]
    assert first["places"] == second["places"] == {"segtune": 1, "pytorch": 6}


@pytest.mark.slow
def test_a_run_is_one_folder_and_one_voice(outcome: Path) -> None:
    files = {str(path.relative_to(outcome / "calm")) for path in (outcome / "calm").rglob("*.*") if path.is_file()}
    events = {name for name in files if name.startswith("tensorboard/")}
    assert len(events) == 2  # by epoch, and by step
    assert files - events == {
        *("config.yaml", "metrics.csv", "summary.json", "checkpoints/best.pt", "checkpoints/last.pt", ".lock"),
        *("data.json", "environment.json", "report.html", "evaluation.json", "per_image.csv"),
        *(f"samples/epoch_00{number}.png" for number in (1, 2, 3)),
    }
    assert json.loads((outcome / "calm" / "summary.json").read_text())["processes"] == 3
    said = log(outcome, "calm", 0)
    assert said.count("The run is in calm") == said.count("phase 2/2: all") == 1
    assert said.count("Each of the 3 processes computes BatchNorm statistics") == 1
    assert log(outcome, "calm", 1) == log(outcome, "calm", 2) == ""


@pytest.mark.slow
def test_a_killed_and_a_stopped_run_go_on_bit_for_bit(outcome: Path) -> None:
    assert "segtune train: Process 0 of 3 has lost the others: " in log(outcome, "killed", 0)
    assert float((outcome / "killed.seconds").read_text()) < 20  # 0.1 on a quiet machine
    assert log(outcome, "stopped", 0).count("Stopped; everything is saved.") == 1
    assert log(outcome, "stopped", 1) == log(outcome, "stopped", 2) == ""
    assert same_run(outcome / "calm", outcome / "troubled")


def same_run(a: Path, b: Path) -> bool:
    return (
        equal(weights(a / "checkpoints" / "last.pt"), weights(b / "checkpoints" / "last.pt"))
        and equal(weights(a / "checkpoints" / "best.pt"), weights(b / "checkpoints" / "best.pt"))
        and (a / "metrics.csv").read_text() == (b / "metrics.csv").read_text()
    )


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(outcome: Path) -> None:
    """Begun by two, ended by one: the bound is that of two against one."""
    assert "Stopped; everything is saved." in log(outcome, "moved", 0)
    last = weights(outcome / "moved" / "checkpoints" / "last.pt")
    assert deviation(weights(outcome / "even1.0_all.pt"), last) < 1e-7


@pytest.mark.slow
def test_an_error_of_one_process_is_told_by_it(outcome: Path) -> None:
    said = log(outcome, "own", 1).splitlines()
    assert len(said) == 1
    assert said[0].startswith("segtune train: No weights file at gone.safetensors.")
    assert "\nsegtune train: Process 0 of 2 has lost the others: " in log(outcome, "own", 0)
    assert not (outcome / "own").exists()


@pytest.mark.slow
def test_a_common_error_is_told_once_before_the_others_are_ended(outcome: Path) -> None:
    assert log(outcome, "wrong", 0) == (
        f"segtune train: data.root=nowhere is not a folder (current folder: {outcome}). "
        "Set it to the folder of your data set.\n"
    )
    assert log(outcome, "wrong", 1) == ""
    assert not (outcome / "wrong").exists()


@pytest.mark.slow
def test_evaluation_covers_every_picture_once(outcome: Path) -> None:
    """Two pictures: the third process has none. The loss is summed in float32, in batches that are not the same."""
    alone, shared = (json.loads((outcome / name / "evaluation.json").read_text()) for name in ("seen1", "seen3"))
    assert shared.pop("loss") == pytest.approx(alone.pop("loss"), rel=1e-6)
    assert shared == alone
    assert 0.1 < alone["dice_mean"] < 0.9
    assert (outcome / "seen1" / "per_image.csv").read_text() == (outcome / "seen3" / "per_image.csv").read_text()


def torchrun(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "segtune", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_torchrun_passes_signals_on(outcome: Path) -> None:
    process = torchrun(outcome, "train", *LIVELY, "freeze.phases.head.epochs=500", "run_dir=torchrun")
    assert process.stdout
    said = next(line for line in process.stdout if "epoch 2/502" in line)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said
    assert "Stopping after this step" in out
    assert err.count("Stopped; everything is saved. To resume: python -m segtune train resume=torchrun") == 1
    assert (outcome / "torchrun" / "checkpoints" / "last.pt").is_file()


# From here on: what the processes of the slow tests do.


def together(world: int, scenario: str, work: Callable[[int], int], *, tied: bool = False) -> list[int]:
    """Fork processes that form a world and work, and give their exit codes.

    Tied together, an error of one ends the others, as under torchrun.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
    numbers = {}
    for number in range(world):
        child = os.fork()
        if child:
            numbers[child] = number
        else:
            os.environ.update({name: str(value) for name, value in (place | {"RANK": number}).items()})
            alone(f"{scenario}.{number}.log", partial(work, number))
    codes = [0] * world
    for _ in range(world):
        child, status = os.wait()
        codes[numbers.pop(child)] = os.waitstatus_to_exitcode(status)
        for other in numbers if tied and status else ():
            os.kill(other, signal.SIGTERM)
    return codes


def alone(file: str, work: Callable[[], int]) -> None:
    """Work, with all output to a file, and end the process."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    code = 99
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def train(*arguments: str, keep: str = "", end: tuple[int, int, int] = (-1, 0, 0)) -> Callable[[int], int]:
    """Make the work of training.

    Args:
        arguments: As on the command line.
        keep: Where to keep the weights after each phase.
        end: A process sends itself a signal after a step: process, signal, step.
    """

    given: list[tuple[Any, ...]] = []
    if not arguments[0].startswith("resume="):  # Hydra takes a second: once for all processes is enough
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commands, "train", lambda *settings: given.append(settings) or {"val_dice": 0})
            patch.setattr(tasks, "find_data_folder", lambda _: None)  # the processes are to find out
            assert main(["train", *arguments]) == 0

    def work(number: int) -> int:
        fit_phase, step, steps = engine.fit_phase, epoch.take_step, iter(range(1, 1000))

        def keeping(run: engine.Run, index: int, resumed: dict) -> None:
            fit_phase(run, index, resumed)
            if keep:
                torch.save(run.model.state_dict(), f"{keep}.{number}_{run.phases[index].name}.pt")

        def ending(*given: object) -> None:
            step(*given)  # type: ignore[arg-type]
            if (number, next(steps)) == (end[0], end[2]):
                Path("ended").write_text(str(time.time()))
                os.kill(os.getpid(), end[1])

        engine.fit_phase, epoch.take_step = keeping, ending  # type: ignore[assignment]
        if given:
            cli.compose = lambda *_, **__: commands.train(*given[0])  # type: ignore[assignment]
        return main(["train", *arguments])

    return work


def overflowing(work: Callable[[int], int]) -> Callable[[int], int]:
    """Make the same work, but in process 1 the gradient of the third step is infinite before the two are averaged."""
    build, calls = epoch.build_loss, count(1)

    def build_steep(settings: LossSettings) -> Loss:
        loss = build(settings)

        def steep(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            slope = (logits - logits.detach()).abs().sqrt().sum()  # zero, and infinitely steep
            return loss(logits, target) + (slope if next(calls) == 3 else 0)

        return steep

    def working(number: int) -> int:
        epoch.build_loss = build_steep if number == 1 else build  # type: ignore[attr-defined]
        return work(number)

    return working


def thaw(number: int) -> int:
    """Train the second of two layers, then both: with the wrapping of before, and with a new one."""
    results = {}
    for way in ("kept", "anew"):
        with distributed.process_group(CPU):  # a second time, as for another run
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
            model[0].requires_grad_(False)
            network = distributed.wrap(model, CPU, False)
            for _ in range(2):
                torch.manual_seed(number)
                network(torch.randn(4, 3)).mean().backward()
                torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
                model.requires_grad_(True).zero_grad()
                network = distributed.wrap(model, CPU, False) if way == "anew" else network
            results[way] = [parameter.tolist() for parameter in model.parameters()]
    Path(f"thaw.{number}.json").write_text(json.dumps(results))
    return 0


def shared(number: int) -> int:
    """Train with BatchNorm, accumulated gradients and clipping, wrapped by segtune and with PyTorch's defaults."""
    found: dict[str, Any] = {"places": {}}
    for way in ("segtune", "pytorch"):
        with distributed.process_group(CPU):
            torch.manual_seed(number)
            model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))
            network = distributed.wrap(model, CPU, False)
            if way == "pytorch":
                network = nn.parallel.DistributedDataParallel(model)
                network.register_comm_hook(None, distributed._average)
            optimizer = torch.optim.AdamW(model.parameters(), 0.1)
            for step in range(3):
                torch.manual_seed(10 * step + number)
                with distributed.no_sync(network, last=False):
                    network(torch.randn(2, 3, 9, 9)).square().mean().backward()
                network(torch.randn(2, 3, 9, 9)).square().mean().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                held = {p.grad.untyped_storage().data_ptr() for p in model.parameters() if p.grad is not None}
                found["places"][way] = len(held)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            found[way] = [tensor.tolist() for tensor in model.state_dict().values()]
    Path(f"shared.{number}.json").write_text(json.dumps(found))
    return 0


def prepare(_: int) -> int:
    """Make eight discs on noise, six to train, and a weights file whose every layer is alive."""
    from safetensors.torch import save_file

    from segtune.models.backbones.registry import BACKBONES

    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        Path("photos", name).mkdir(parents=True)
    for i in range(8):
        mask = np.zeros((40 + i, 50 - i), np.uint8)
        cv2.circle(mask, (18 + 2 * i, 20), 9 + i, 255, -1)
        photo = generator.integers(0, 120, (*mask.shape, 3)).astype(np.uint8) + (mask > 0)[..., None] * np.uint8(100)
        cv2.imwrite(f"photos/masks/d{i}.png", mask)
        cv2.imwrite(f"photos/images/d{i}.png", photo)
    Path("photos/train.txt").write_text("".join(f"d{i}\n" for i in range(6)))
    Path("photos/val.txt").write_text("d6\nd7\n")
    torch.manual_seed(0)
    network = BACKBONES["resnet50"].build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
    save_file(network.state_dict(), "live.safetensors")
    return 0


def run_scenarios() -> None:
    """Run all; a line of time and exit codes for each."""
    # Forked processes cannot share a pool of threads, so nothing is computed here.
    cli.PATIENCE = 2
    plan.estimate = lambda *_: StepCost(0, 0, 0, {}, 0, "")  # type: ignore[assignment]
    expect(1, "prepare", prepare, [0])
    odd = ("data.limit=5", "train.accumulate=2")  # batches of 4 and 1, one step: nothing is left for process 1
    for name, more in {"even": (), "odd": odd}.items():
        for world in (1, 2):
            run = f"{name}{world}"
            expect(world, run, train(*EXACT, *more, f"run_dir={run}", keep=run), [0] * world)
    expect(2, "moved", train(*EXACT, "run_dir=moved", end=(1, signal.SIGTERM, 5)), [130, 130])
    expect(1, "moved", train("resume=moved"), [0])
    for name, world, mode in (("unkept", 1, "off"), ("kept1", 1, "disk"), ("kept2", 2, "disk")):
        keeping = (f"cache.mode={mode}", "cache.folder=features", f"run_dir={name}")
        expect(world, name, train(*KEPT, *keeping, keep=name), [0] * world)
    keeping = ("cache.mode=disk", "cache.folder=lost", "run_dir=halted")
    expect(2, "halted", train(*KEPT, *keeping, end=(1, signal.SIGTERM, 3)), [130, 130])
    shutil.rmtree("lost")
    expect(2, "halted", train("resume=halted"), [0, 0])
    expect(3, "calm", train(*LIVELY, "run_dir=calm"), [0, 0, 0])
    expect(3, "killed", train(*LIVELY, "run_dir=troubled", end=(1, signal.SIGKILL, 3)), [2, -signal.SIGKILL, 2])
    Path("killed.seconds").write_text(str(time.time() - float(Path("ended").read_text())))
    expect(3, "stopped", train("resume=troubled", end=(2, signal.SIGTERM, 3)), [130, 130, 130])
    expect(3, "ended", train("resume=troubled"), [0, 0, 0])
    for world in (1, 3):
        seen = ("checkpoint=calm/checkpoints/last.pt", "train.threshold=0.3", *DATA, "data.split=val")
        arguments = ["evaluate", *seen, f"run_dir=seen{world}"]
        expect(world, f"seen{world}", lambda _, arguments=arguments: main(arguments), [0] * world)
    expect(2, "skips", overflowing(train(*EXACT, "train.precision=fp16", "run_dir=skips", keep="skips")), [0, 0])
    expect(2, "thaw", thaw, [0, 0])
    expect(2, "shared", shared, [0, 0])
    works = [train(*LIVELY, "run_dir=own", *more) for more in ((), ("backbone.weights=gone.safetensors",))]
    expect(2, "own", lambda number: works[number](number), [2, 2])
    expect(2, "wrong", train(*LIVELY, "run_dir=wrong", "data.root=nowhere"), [2, -signal.SIGTERM], tied=True)


def expect(world: int, scenario: str, work: Callable[[int], int], codes: list[int], *, tied: bool = False) -> None:
    began = time.time()
    came = together(world, scenario, work, tied=tied)
    sys.stdout.write(f"{scenario}: {came} after {time.time() - began:.1f} s\n")
    sys.stdout.flush()
    if came != codes:
        sys.exit(f"expected {codes}")


if __name__ == "__main__":
    run_scenarios()
