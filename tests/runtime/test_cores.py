"""What `train.workers=auto` means on machines, in containers and for processes of other sizes."""

import os
from pathlib import Path

import pytest
import torch

from segtune.runtime import cores
from segtune.runtime.cores import usable_cores, worker_count


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Return a function that sets the cores of the machine, the quota of the container and the processes on it."""
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")

    def of(count: int, quota: str | None = None, processes: int | None = None) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)
        if quota is not None:
            (tmp_path / "cpu.max").write_text(quota)
        if processes:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))

    return of


@pytest.mark.parametrize(
    ("quota", "expected"),
    [(None, 8), ("max 100000\n", 8), ("250000 100000\n", 3), ("5000 100000\n", 1), ("1600000 100000\n", 8), ("?", 8)],
)
def test_a_container_has_the_cores_of_its_quota(machine, quota: str | None, expected: int) -> None:
    machine(8, quota)
    assert usable_cores() == expected


@pytest.mark.parametrize(
    ("count", "processes", "checks", "beside_cpu", "beside_gpu"),
    [(1, 1, 1, 1, 1), (2, 1, 2, 1, 2), (8, 1, 8, 4, 8), (8, 4, 8, 1, 2), (64, 1, 16, 16, 16), (4, 8, 4, 1, 1)],
)
def test_auto_divides_the_cores(machine, count, processes, checks, beside_cpu, beside_gpu) -> None:
    machine(count, processes=processes)
    found = [worker_count("auto", device) for device in (None, torch.device("cpu"), torch.device("cuda"))]
    assert found == [checks, beside_cpu, beside_gpu]


def test_a_number_is_taken_as_it_is(machine) -> None:
    machine(4)
    assert [worker_count(number, torch.device("cpu")) for number in (0, 3, 40)] == [0, 3, 40]


@pytest.mark.parametrize(("share", "expected"), [("2", 2), ("0", 1), ("9", 4), ("", 4), ("two", 4)])
def test_a_job_of_several_at_once_uses_its_share(monkeypatch: pytest.MonkeyPatch, share: str, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr(cores, "_QUOTA", Path("/nonexistent"))
    monkeypatch.setenv("SEGTUNE_CORES", share)
    assert usable_cores() == expected
