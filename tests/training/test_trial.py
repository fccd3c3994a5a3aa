"""A run as the trial of a search: what it tells, and when it ends. The medians are worked out by hand."""

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from segtune.errors import Pruned
from segtune.training.trial import NAME, STUDY, TRIAL, Trial

optuna = pytest.importorskip("optuna", reason="needs the extra segtune[optuna]")

#: Validation Dice by epoch of three finished runs; the medians are .3 .4 .4.
FINISHED = ([0.2, 0.6, 0.4], [0.3, 0.4, 0.8], [0.5, 0.1, 0.2])


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a study with the finished runs and trial 3, which runs."""
    path = tmp_path_factory.mktemp("study") / "study.db"
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{path}", direction="maximize")
    for dices in FINISHED:
        study.add_trial(
            optuna.create_trial(value=max(dices), intermediate_values=dict(enumerate(dices, 1)))  # epochs from 1
        )
    study.ask()
    choose(study)
    return path


@pytest.fixture
def study(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    shutil.copy(database, tmp_path)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for name, value in ((STUDY, url), (NAME, "s"), (TRIAL, "3")):
        monkeypatch.setenv(name, value)
    return optuna.load_study(study_name="s", storage=url)


def choose(study: Any, name: str = "median", finished_trials: int = 3, warmup_epochs: int = 0) -> None:
    study.set_user_attr("pruner", {"name": name, "finished_trials": finished_trials, "warmup_epochs": warmup_epochs})


def of_job() -> Trial:
    trial = Trial.of_job()
    assert trial is not None
    return trial


def test_outside_a_search_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STUDY, raising=False)
    assert Trial.of_job() is None


def test_a_run_below_the_median_is_ended(study: Any) -> None:
    trial = of_job()
    trial.epoch(1, 0.3, may_end=True)  # at the median, and not below it
    trial.epoch(2, 0.35, may_end=False)  # below it, but this one may not end
    with pytest.raises(Pruned) as caught:
        trial.epoch(3, 0.1, may_end=True)
    assert str(caught.value) == (
        "After epoch 3 its best validation Dice, 0.3500, is below the median of the finished runs at that epoch."
    )
    assert study.trials[-1].intermediate_values == {1: 0.3, 2: 0.35, 3: 0.1}


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({}, True),
        ({"finished_trials": 4}, False),
        ({"warmup_epochs": 1}, False),
        ({"name": "none"}, False),
        ({"name": "hyperband"}, False),  # ends runs after 1, 3, 9 … epochs, and only among others of the same bracket
    ],
)
def test_what_keeps_a_run_going(study: Any, settings: dict[str, Any], ends: bool) -> None:
    choose(study, **settings)
    trial, ended = of_job(), False
    try:
        trial.epoch(1, 0.1, may_end=True)
    except Pruned:
        ended = True
    assert ended == ends


def test_what_was_told_before_an_interruption_stays(study: Any, recwarn: pytest.WarningsRecorder) -> None:
    of_job().epoch(1, 0.3, may_end=True)
    trial = of_job()  # the job goes on in another process
    trial.epoch(1, 0.7, may_end=True)
    trial.epoch(2, math.nan, may_end=True)  # no validation image has an object
    assert study.trials[-1].intermediate_values == {1: 0.3}
    assert not recwarn.list


def test_a_run_goes_on_without_the_database(study: Any, caplog: pytest.LogCaptureFixture) -> None:
    trial = of_job()
    study.tell(study.trials[-1].number, state=optuna.trial.TrialState.FAIL)  # as somebody else may have done
    with caplog.at_level(logging.WARNING):
        trial.epoch(1, 0.3, may_end=True)
        trial.epoch(2, 0.3, may_end=True)
    assert [each.getMessage()[:61] for each in caplog.records] == [
        "The search was not told of epoch 1, and cannot end this run: "
    ]
