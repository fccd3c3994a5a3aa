"""A search by Optuna whose runs do not train: they have a Dice that follows from their settings."""

import json
import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from segtune.__main__ import main
from segtune.cli import sweep
from segtune.commands import train as train_command
from segtune.config.schema import Settings
from segtune.errors import Interrupted, UserError
from segtune.runtime.sweep_files import read_failure
from segtune.training.run_folder import write_settings
from segtune.training.trial import Trial
from tests.cli.conftest import message

needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra segtune[optuna]")
LR = "lr=tag(log, interval(1e-5, 1e-1))"
SEARCH = ("-m", "hydra/sweeper=optuna", "run_dir=s", "freeze=none")


def quadratic(settings: Settings) -> list[float]:
    """The Dice of one epoch, which is highest, 0.9, at a learning rate of 1e-3."""
    return [0.9 - 0.1 * (math.log10(settings.freeze.phases["all"].lr) + 3) ** 2]


class Runs:
    """What the runs have done; `dices` returns the Dice of each epoch."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.resumed: list[bool] = []
        self.ranked: list[str] = []
        self.dices: Callable[[Settings], list[float]] = quadratic

    def train(self, settings: Settings, folder: Path, command: str, **more: bool) -> dict[str, float]:
        self.done.append(folder.name)
        self.resumed.append(settings.resume is not None)
        write_settings(folder, asdict(settings), command)
        dices = self.dices(settings)
        trial = Trial.of_job()
        assert trial is not None
        for epoch, dice in enumerate(dices, 1):
            trial.epoch(epoch, dice, may_end=epoch < len(dices))
        (folder / "checkpoints").mkdir(exist_ok=True)
        for name in ("checkpoints/last.pt", "summary.json", "report.html"):
            (folder / name).write_text(json.dumps({"val_dice": max(dices)}))
        return {"val_dice": max(dices)}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.chdir(tmp_path)
    runs = Runs()
    monkeypatch.setattr(train_command, "train", runs.train)
    monkeypatch.setattr(sweep, "rank", lambda folder: runs.ranked.append(folder.name))
    return runs


def searched(*arguments: str) -> int:
    return main(["train", *SEARCH, *arguments])


def study() -> Any:
    import optuna

    return optuna.load_study(study_name="segtune", storage="sqlite:///s/study.db")


def states() -> list[str]:
    return [trial.state.name for trial in study().trials]


@needs_optuna
@pytest.mark.slow
def test_the_best_is_the_highest_dice_and_the_search_comes_nearer(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert searched(LR, "hydra.sweeper.n_trials=16", "hydra.sweeper.startup_trials=6") == 0
    found = study()
    values = [trial.value for trial in found.trials]
    assert runs.done == [str(number) for number in range(16)]
    assert found.best_value == max(values) > 0.88
    assert sum(values[8:]) > sum(values[:8])
    assert 5e-4 < found.best_params["lr"] < 2e-3
    out = capsys.readouterr().out
    first = f"{found.trials[0].params['lr']:.4g}"
    assert f"run 1 of 16: lr={first}\n" in out
    assert "Search: 16 finished, of 16 runs.\n" in out
    assert runs.ranked[-1] == "s"
    record = json.loads(Path("s/sweep.json").read_text())
    assert record["jobs"][0]["overrides"] == ["freeze=none", f"lr={first}"]


@needs_optuna
@pytest.mark.slow
def test_failures_count_and_end_nothing(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    def dices(settings: Settings) -> list[float]:
        if settings.seed == 1:
            raise UserError("It cannot.")
        return [math.nan if settings.seed == 2 else 0.5]

    runs.dices = dices
    assert searched("seed=0,1,2,3") == 1
    assert states() == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    out, err = capsys.readouterr()
    assert "Search: 2 finished, 2 failed, of 4 runs." in out
    assert err.endswith(
        "segtune train: 1 of 4 failed:\n  s/1 (seed=1): It cannot.\nTo go on: python -m segtune train resume=s\n"
    )
    runs.done.clear()
    assert main(["train", "resume=s"]) == 1  # a search does not try again what has failed
    assert runs.done == []


@needs_optuna
@pytest.mark.slow
def test_runs_below_the_median_are_pruned(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    table = {0: [0.5, 0.6], 1: [0.7, 0.8], 2: [0.5, 0.9], 3: [0.6, 0.1], 4: [0.65, 0.6]}
    runs.dices = lambda settings: table[settings.seed]
    assert searched("seed=range(5)", "hydra.sweeper.finished_trials=2", "hydra.sweeper.warmup_epochs=0") == 0
    # After one epoch the medians of the finished runs are .6, .6 and, of .5 .6 .7, .6; the last epoch ends by itself.
    assert states() == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"]
    assert read_failure(Path("s/2")) == {
        "kind": "Pruned",
        "reason": "After epoch 1 its best validation Dice, 0.5000, is below the median of the finished runs at that "
        "epoch.",
        "overrides": ["freeze=none", "seed=2"],
        "command": "python -m segtune train freeze=none seed=2",
    }
    out, err = capsys.readouterr()
    assert "run 3 of 5: seed=2: pruned. After epoch 1 its best validation Dice, 0.5000, is below" in out
    assert "Search: 4 finished, 1 pruned, of 5 runs." in out
    assert err == ""
    runs.done.clear()
    assert main(["train", "resume=s"]) == 0
    assert runs.done == []


@needs_optuna
@pytest.mark.slow
def test_a_stopped_search_goes_on_as_if_it_had_not_been(
    runs: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (LR, "hydra.sweeper.n_trials=6", "hydra.sweeper.startup_trials=2")
    assert searched(*words) == 0
    uninterrupted = [trial.params for trial in study().trials]
    Path("s").rename("whole")
    runs.done.clear()

    def stop(settings: Settings) -> list[float]:
        if len(runs.done) == 4:
            raise Interrupted("Stopped; everything is saved.")
        return quadratic(settings)

    runs.dices = stop
    assert searched(*words) == 130
    out, err = capsys.readouterr()
    assert "Search: 3 finished, 1 interrupted, of 6 runs." in out
    assert runs.ranked[-1] == "s"
    assert "Stopped; 1 of 6 interrupted, 2 of 6 not begun:\n  s/3 (lr=" in err
    runs.dices = quadratic
    runs.done.clear()
    runs.resumed.clear()
    assert searched(*words, "resume=auto") == 0
    assert (runs.done, runs.resumed) == (["3", "4", "5"], [True, False, False])
    assert [trial.params for trial in study().trials] == uninterrupted
    assert Counter(states()) == {"COMPLETE": 6}
    runs.done.clear()
    assert searched(LR, "hydra.sweeper.n_trials=7", "resume=auto") == 0
    assert runs.done == ["6"]


@needs_optuna
@pytest.mark.slow
def test_another_search_is_refused_in_its_folder(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert searched("optimizer=adamw,sgd", "data.limit=5") == 0
    capsys.readouterr()
    assert message(capsys, "train", *SEARCH, "optimizer=adamw,sgd", "resume=auto").endswith(
        "The search in s has other settings beside its space: got freeze=none; expected data.limit=5 freeze=none. "
        "Give the same, or choose another folder (run_dir=…)."
    )
    assert "optimizer: the search in s has another kind of range or other choices: got " in message(
        capsys, "train", *SEARCH, "optimizer=adamw,adam", "data.limit=5", "resume=auto"
    )


@needs_optuna
@pytest.mark.slow
def test_ready_spaces_leave_out_what_the_policy_lacks(runs: Runs) -> None:
    few = ("hydra.sweeper.n_trials=1", "run_dir=s")
    assert main(["train", "sweep=rates", "freeze=none", *few]) == 0
    assert set(study().trials[0].params) == {"freeze.phases.all.lr", "freeze.phases.all.backbone_lr_scale"}
    assert json.loads(Path("s/sweep.json").read_text())["command"].startswith("python -m segtune train -m sweep=rates")


@needs_optuna
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "points"), [("sweep=taps", 9), ("sweep=taps_vgg16 backbone=vgg16", 9), ("sweep=freeze", 6)]
)
def test_a_small_ready_space_is_tried_whole(runs: Runs, words: str, points: int) -> None:
    runs.dices = lambda _: [0.5]
    assert main(["train", *words.split(), "run_dir=s"]) == 0
    assert len({str(trial.params) for trial in study().trials}) == len(runs.done) == points


@needs_optuna
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("seed=1",), "hydra/sweeper=optuna: there is nothing to search. Give a setting several values, such as "),
        (("lr=tag(log, interval(0.0, 1.0))",), "lr: got tag(log, interval(0.0, 1.0)), which cannot be searched: "),
        ((LR, "hydra.sweeper.n_trials=0"), "One setting is wrong:\n  hydra.sweeper.n_trials: got 0; expected: "),
        ((LR, "seed=-1"), "One setting is wrong:\n  seed: got -1; expected: "),
        (("optimizer=adamw,nothing",), "optimizer=nothing: there is no such choice."),
        ((LR, "hydra.sweeper.storage=x"), "The study in x cannot be used: "),
    ],
)
def test_what_cannot_be_searched_is_told_at_once(
    runs: Runs, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    assert message(capsys, "train", *SEARCH, *arguments).removeprefix("segtune train: ").startswith(expected)
    assert runs.done == []


@needs_optuna
def test_only_training_is_searched(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, "plan", "-m", "hydra/sweeper=optuna", "lr=1e-3,1e-4") == (
        "segtune plan: hydra/sweeper=optuna searches for settings of train; got the command plan."
    )


def test_optuna_may_be_missing(runs: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    found = message(capsys, "train", *SEARCH, "seed=0,1")
    assert found.startswith("segtune train: hydra/sweeper=optuna needs Optuna, which cannot be imported (")
    assert found.endswith("). To install it: pip install 'segtune[optuna]'")
    assert not Path("s").exists()
