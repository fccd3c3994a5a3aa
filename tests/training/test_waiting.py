"""When a run says that it waits for its data, and what it advises."""

import os

import pytest

from segtune.runtime import cores
from segtune.training.waiting import Waiting


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)


@pytest.mark.parametrize(
    ("setting", "workers", "advice"),
    [
        (0, 0, "more worker processes may help (train.workers=4, one for each core; now 0)"),
        ("auto", 2, "more worker processes may help (train.workers=4, one for each core; now auto)"),
        (
            4,
            4,
            "more worker processes will not help (train.workers=4: 4 on 4 cores), but smaller photos or a lighter "
            "augmentation will",
        ),
    ],
)
def test_it_is_said_once_with_the_setting(setting, workers: int, advice: str, caplog) -> None:
    waiting = Waiting(setting, workers)
    for _ in range(40):
        waiting.add(0.5, 2.0)
    assert caplog.messages == [f"Training waits for its data in 25 % of the time: {advice}."]


@pytest.mark.parametrize(("waited", "batches"), [(0.5, 19), (0.3, 1000)])
def test_a_short_wait_is_not_worth_a_word(waited: float, batches: int, caplog) -> None:
    waiting = Waiting(0, 0)
    for _ in range(batches):
        waiting.add(waited, 2.0)
    assert caplog.messages == []
