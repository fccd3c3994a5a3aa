"""`train.compile`: what is compiled, what a try leaves behind, and that a stopped run ends as an undisturbed one."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtune.commands import train as commands
from segtune.config.cache_settings import CacheSettings
from segtune.config.loss_settings import BCESettings
from segtune.data.loader import EpochBatches
from segtune.models import build
from segtune.models import model as models
from segtune.models.pretrained import LoadedWeights
from segtune.models.split import Crossing
from segtune.runtime.device import Device
from segtune.training import compiled, epoch
from segtune.training.compiled import CompiledForward, compile_network, uncompile
from tests.training.conftest import same, settings, weights_of
from tests.training.test_loop import assert_same_end, rows_of, stop_after, stopped_and_resumed

Calls = list[tuple[int, ...]]


class Tiny(nn.Module):
    """From images, or one crossing value, to logits; with statistics and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1), nn.Dropout(0.5))

    def forward(self, images: Tensor | Crossing) -> Tensor:
        x = images if isinstance(images, Tensor) else images.values["x"]
        logits: Tensor = self.layers(x.float())
        return logits


def run_of(model: nn.Module, **more: Any) -> Any:
    given = {"images": 5, "batch": 2, "compile": True} | more
    options = SimpleNamespace(compile=given["compile"])
    return SimpleNamespace(
        model=model,
        settings=SimpleNamespace(train=options, data=SimpleNamespace(size=(4, 4)), loss=BCESettings()),
        batches=EpochBatches(given["images"], given["batch"], 0),
        compute=Device(torch.device("cpu"), torch.float32),
        features=None,
        compiles=True,
        state=SimpleNamespace(seconds=0.0),
    )


def compiler(monkeypatch: pytest.MonkeyPatch, then: Callable[[Tensor], Tensor] = lambda x: x) -> Calls:
    """Replace PyTorch's compiler by one that notes the sizes of compiled calls and changes what they return."""
    calls: Calls = []

    def compile_(function: Callable[..., Tensor], *, dynamic: bool) -> Callable[..., Tensor]:
        assert not dynamic

        def called(images: Any) -> Tensor:
            calls.append(tuple(getattr(images, "shape", ())) or images.values["x"].stride())
            return then(function(images))

        return called

    monkeypatch.setattr(torch, "compile", compile_)
    return calls


PHASE: Any = SimpleNamespace(name="head")


def test_whole_batches_of_training_are_compiled_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = compiler(monkeypatch)
    forward, images = CompiledForward(Tiny(), 2), torch.zeros(2, 3, 4, 4)
    forward(images)
    forward(images[:1])
    with torch.inference_mode():
        forward(images)
    assert calls == [(2, 3, 4, 4)]
    for x in (images, images.contiguous(memory_format=torch.channels_last)):
        forward(Crossing({"x": x}, (4, 4)))
    assert calls[1:] == [(48, 1, 12, 3)] * 2  # kept features and fresh ones come in one layout


@pytest.mark.parametrize("batch", [2, 8])
def test_a_try_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], batch: int
) -> None:
    calls, model = compiler(monkeypatch), Tiny()
    state, draws = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    run = run_of(model, batch=batch)
    compile_network(run, PHASE)
    assert calls == [(min(batch, 5), 3, 4, 4)]
    assert run.compiles
    assert run.state.seconds > 0
    assert same(model.state_dict(), state)  # the same names, too
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (
        capsys.readouterr().out == "      head  compiling the network (train.compile) …\n      head  compiled in 0 s\n"
    )
    model(torch.zeros(min(batch, 5), 3, 4, 4))
    assert len(calls) == 2
    run.settings.train.compile = False
    uncompile(model)
    compile_network(run, PHASE)
    model(torch.zeros(min(batch, 5), 3, 4, 4))
    assert len(calls) == 2


class _FailsBehind(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        raise _hidden()


def _hidden() -> Exception:
    error = RuntimeError("backend raised")
    error.inner_exception = OSError("no compiler\nmore of it")  # type: ignore[attr-defined]  # as dynamo's errors have
    return error


def _fails(_: Tensor) -> Tensor:
    raise _hidden()


@pytest.mark.parametrize("fails", [_fails, _FailsBehind.apply])
def test_a_compiler_that_fails_forward_or_backward_leaves_the_usual_way(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[[Tensor], Tensor]
) -> None:
    calls, model, said = compiler(monkeypatch, fails), Tiny(), list[str]()
    monkeypatch.setattr(compiled.log, "warning", lambda text, *values: said.append(text % values))
    state, draws = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    run = run_of(model)
    for _ in range(2):  # in the next phase it is neither tried nor told again
        compile_network(run, PHASE)
    assert said == ["Training goes on uncompiled (train.compile): OSError: no compiler"]
    assert same(model.state_dict(), state)
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(parameter.grad is None for parameter in model.parameters())
    model(torch.zeros(2, 3, 4, 4)).sum().backward()
    assert len(calls) == 1


def test_all_processes_go_on_without_if_one_must(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, model, run = compiler(monkeypatch), Tiny(), None
    monkeypatch.setattr(compiled.distributed, "gather", lambda mine: [mine, "OSError: no compiler there"])
    run = run_of(model)
    compile_network(run, PHASE)
    model(torch.zeros(2, 3, 4, 4))
    assert (len(calls), run.compiles) == (1, False)


@pytest.mark.slow
@pytest.mark.usefixtures("without_reports")
@pytest.mark.parametrize("mode", ["off", "memory"])
def test_each_phase_is_compiled_once_and_trains_the_same(
    mode: Any, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's tracing with its backend `eager`, which runs what was traced as it is: no bit may differ."""
    graphs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    phases = {"head": {"backbone": 0, "epochs": 2, "lr": 1e-3}, "all": {"epochs": 1, "lr": 1e-4}}
    chosen = replace(settings(discs, phases, precision="fp32"), cache=CacheSettings(mode, 2))
    monkeypatch.setattr(models, "hasten_dilated", lambda _: None)  # what is compiled does without
    monkeypatch.setattr(build, "load_weights", lambda *_, **__: LoadedWeights("a file"))
    commands.train(chosen, tmp_path / "usual")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    commands.train(replace(chosen, train=replace(chosen.train, compile=True)), tmp_path / "compiled")
    assert_same_end(tmp_path / "usual", tmp_path / "compiled")
    assert len(graphs) == len(phases)


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.usefixtures("without_reports")
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs a C++ compiler on a CPU")
def test_a_compiled_run_that_was_stopped_ends_as_one_that_was_not(discs: Path, tmp_path: Path) -> None:
    """Three steps an epoch, the last of one image; stopped behind the fourth, in the second epoch."""
    chosen = settings(discs, {"one": {"epochs": 2, "lr": 1e-3}}, compile=True)
    commands.train(chosen, tmp_path / "undisturbed")
    stopped_and_resumed(chosen, tmp_path / "stopped", partial(stop_after, 4, epoch, "take_step"))
    assert_same_end(tmp_path / "undisturbed", tmp_path / "stopped")
    commands.train(replace(chosen, train=replace(chosen.train, compile=False)), tmp_path / "usual")
    ours, theirs = (weights_of(tmp_path / name) for name in ("undisturbed", "usual"))
    assert ours.keys() == theirs.keys()
    assert not same(ours, theirs)  # else nothing was compiled
    compiled_row, usual_row = (rows_of(tmp_path / name)[0] for name in ("undisturbed", "usual"))
    for loss in ("train_loss", "val_loss"):
        assert float(compiled_row[loss]) == pytest.approx(float(usual_row[loss]), rel=0.01)
