"""`train.batch_size=auto`: choices on devices whose memory and speed are known by formula, and a run that takes one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from segtune.commands import train as commands
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.runtime.device import Device
from segtune.training import batch_size as module
from segtune.training.batch_size import Tried, estimated_choice, measured_choice, most_images, with_batch_size
from segtune.training.freezing import Scope
from tests.training.conftest import same, settings, weights_of

GB = 10**9


def device(memory: Callable[[int], float], seconds: Callable[[int], float], card: float) -> tuple[Any, list[int]]:
    """Return attempts on a card of so many GB, and the list of the numbers of images that were tried."""
    tried: list[int] = []

    def attempt(images: int) -> Tried | None:
        tried.append(images)
        taken = round(memory(images) * GB)
        return None if taken > card * GB else Tried(seconds(images), taken)

    return attempt, tried


@pytest.mark.parametrize(
    ("card", "chosen", "why", "tried"),
    [
        # A step takes 1 GB and 1 GB for each image, and nine tenths of the card may be used.
        (30, 24, "a step takes 25.0 GB; 28 do not fit into 27.0 GB", [2, 4, 8, 16, 32, 28, 24]),
        (20, 16, "a step takes 17.0 GB; 20 do not fit into 18.0 GB", [2, 4, 8, 16, 32, 28, 24, 20]),
        (5, 3, "a step takes 4.0 GB; 4 do not fit into 4.5 GB", [2, 4, 3]),
        (3, 1, "a step takes 2.0 GB; 2 do not fit into 2.7 GB", [2, 1]),
    ],
)
def test_where_memory_ends_a_margin_is_kept(card: float, chosen: int, why: str, tried: list[int]) -> None:
    attempt, attempts = device(lambda images: 1 + images, lambda images: 0.01 * images**0.5, card)
    found = measured_choice(attempt, None, card * GB)
    assert (found.images, found.why, attempts) == (chosen, why, tried)


def test_the_batch_grows_while_a_larger_one_is_faster() -> None:
    """0.1 s for a step and 0.01 s for each image: 86.5 images/s with 64, 92.8 with 128, 96.2 (+3.8 %) with 256."""
    attempt, tried = device(lambda images: images, lambda images: 0.1 + 0.01 * images, 1000)
    found = measured_choice(attempt, None, 1000 * GB)
    assert (found.images, tried[-1]) == (128, 256)
    assert found.why == "92.8 images/s; 256 bring 96.2, so more are hardly faster"
    assert measured_choice(attempt, 150, 1000 * GB).images == 128  # 150 are 1.2 % faster; 5 % a doubling would be 1.1 %


def test_a_number_between_two_powers_is_taken_only_if_it_is_not_slower() -> None:
    attempt, _ = device(lambda images: images, lambda images: 1 if images <= 16 else 2, 30)
    assert measured_choice(attempt, None, 30 * GB).images == 16


@pytest.mark.parametrize("most", [1, 2, 20])
def test_the_data_bound_the_batch(most: int) -> None:
    attempt, tried = device(lambda _: 1, lambda _: 0.1, 10)
    found = measured_choice(attempt, most, 10 * GB)
    assert (found.images, max(tried)) == (most, most)
    assert found.why == "with more, an epoch of so few training images would have less than 10 steps"


def test_memory_for_no_image_at_all_is_an_error() -> None:
    attempt, tried = device(lambda _: 11, lambda _: 0.1, 10)
    expected = (
        "train.batch_size=auto: not even one image fits into the memory: 9.0 GB may be used. Try a smaller "
        "data.image_size, or fewer blocks that train (plan)."
    )
    with pytest.raises(UserError) as caught:
        measured_choice(attempt, None, 10 * GB)
    assert (str(caught.value), tried) == (expected, [2, 1])
    with pytest.raises(UserError, match=r"it takes about 2\.0 GB, and 1\.0 GB may be used"):
        estimated_choice(lambda images: 2 * images * GB, 8, GB)


@pytest.mark.parametrize(
    ("free", "most", "chosen", "why"),
    [
        (8, 8, 8, "on a CPU more are not faster"),
        (7.9, 8, 4, "the most that fit into 7.9 GB, half of the free memory, by estimate"),
        (2, 6, 2, "the most that fit into 2.0 GB, half of the free memory, by estimate"),
        (1, 8, 1, "the most that fit into 1.0 GB, half of the free memory, by estimate"),
        (6, 6, 6, "with more, an epoch of so few training images would have less than 10 steps"),
    ],
)
def test_on_a_cpu_the_estimate_decides(free: float, most: int, chosen: int, why: str) -> None:
    found = estimated_choice(lambda images: images * GB, most, int(free * GB))
    assert (found.images, found.why) == (chosen, why)


@pytest.mark.parametrize(
    ("images", "accumulate", "world", "most"),
    [(1000, 1, 1, 100), (1000, 2, 1, 50), (1000, 1, 4, 25), (30, 1, 1, 8), (5, 1, 1, 5), (1, 1, 1, 1), (64, 1, 8, 2)],
)
def test_an_epoch_has_ten_steps_or_batches_of_the_default_size(
    images: int, accumulate: int, world: int, most: int
) -> None:
    assert most_images(images, accumulate, world) == most


def test_all_processes_take_what_the_smallest_can(
    monkeypatch: pytest.MonkeyPatch, discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On CUDA each measures for itself, in a process of its own; an error of one is the error of all."""
    mine, theirs = module.Choice(24, "fast"), module.Choice(16, "full")
    gathered: list[Any] = [theirs]
    monkeypatch.setattr(module, "in_new_process", lambda _: mine)
    monkeypatch.setattr(module.distributed, "world", lambda: 2)
    monkeypatch.setattr(module.distributed, "gather", lambda value: [value, *gathered])
    costs = {"one": 3, "two": 5}
    monkeypatch.setattr(module, "cost_of", lambda _, phase, *more: SimpleNamespace(memory=costs[phase.name], more=more))
    phases: Any = [SimpleNamespace(name=name) for name in costs]
    given, cuda, no_model = settings(discs, batch_size="auto"), Device(torch.device("cuda"), torch.float32), Any
    chosen = with_batch_size(given, no_model, phases, cuda, 1000)  # type: ignore[arg-type]
    assert chosen == replace(given, train=replace(given.train, batch_size=32))
    out = capsys.readouterr().out
    assert "measuring steps of two with growing batches (train.batch_size=auto) …\n" in out
    assert "train.batch_size=32 (auto) (16 in each of 2 processes): full\n" in out
    gathered[0] = "it does not fit"
    with pytest.raises(UserError, match="it does not fit"):
        with_batch_size(given, no_model, phases, cuda, 1000)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.trains
def test_what_is_measured_on_a_gpu(monkeypatch: pytest.MonkeyPatch, discs: Path) -> None:
    """Whole steps and a batch of validation for every process; memory that runs out ends it, another error is one."""
    given = settings(discs, batch_size="auto")
    phase = SimpleNamespace(settings=given.freeze.phases["one"], scope=Scope(("decoder",)))
    done: list[tuple[str, int, bool]] = []
    error: Exception = torch.OutOfMemoryError("CUDA out of memory")

    class Watched(module.Trial):
        def step(self, images: int) -> Callable[[], None]:
            if images > 4:
                raise error
            step, before = super().step(images), self.model.decoder.classifier.weight.clone()

            def watched() -> None:
                step()
                done.append(("step", images, not torch.equal(before, self.model.decoder.classifier.weight)))

            return watched

        def validate(self, images: int) -> None:
            super().validate(images)
            done.append(("validation", images, self.model.decoder.training))

    def seconds_of(step: Callable[[], None], *_: Any) -> float:
        step()
        return 1.0

    monkeypatch.setattr(module, "Trial", Watched)
    monkeypatch.setattr(module, "seconds_of", seconds_of)
    monkeypatch.setattr(module.distributed, "world", lambda: 2)
    for name, value in {"mem_get_info": (GB, 0), "memory_reserved": 0, "max_memory_reserved": 0}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    found = module._measured(given, phase, None)  # type: ignore[arg-type]
    assert (found.images, found.why) == (4, "a step takes 0.0 GB; 5 do not fit into 0.9 GB")
    assert done == [("step", 2, True), ("validation", 4, True), ("step", 4, True), ("validation", 8, True)]
    error = ValueError("something else")
    with pytest.raises(ValueError, match="something else"):
        module._measured(given, phase, None)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.usefixtures("without_reports")
def test_a_run_records_the_number_and_resumes_with_it_on_a_smaller_machine(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with the weights of a run that was given the number; the choice draws no random number."""
    phases = {name: {"epochs": 1, "lr": 1e-3, "schedule": "constant"} for name in ("one", "two")}
    given = settings(discs, phases, batch_size=5, precision="fp32")
    commands.train(given, tmp_path / "given")
    auto, folder = replace(given, train=replace(given.train, batch_size="auto")), tmp_path / "auto"
    capsys.readouterr()
    commands.train(_of_phases(auto, "one"), folder)
    assert "train.batch_size=5 (auto): with more, an epoch of so few training images" in capsys.readouterr().out
    assert yaml.safe_load((folder / "config.yaml").read_text())["train"]["batch_size"] == 5
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    commands.train(replace(auto, resume=str(folder)), folder)
    assert same(weights_of(folder), weights_of(tmp_path / "given"))
    with pytest.raises(UserError, match="not even one image fits"):
        commands.train(auto, tmp_path / "new")


def _of_phases(given: Settings, *names: str) -> Settings:
    return replace(given, freeze=replace(given.freeze, phases={name: given.freeze.phases[name] for name in names}))
