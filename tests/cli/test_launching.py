"""Launchers that run jobs in processes of their own: what is shared, shown and done when they fail."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from segtune.cli import launching
from segtune.cli.jobs import HELD, Job, Share
from segtune.cli.launching import launch_apart, share_of, without_plugin
from segtune.errors import UserError
from segtune.runtime import cores
from segtune.runtime.sweep_files import SweepJob, read_failure, write_failure

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher."


@pytest.mark.parametrize(
    ("settings", "gpus", "expected"),
    [
        ({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}, ("0", "1"), Share()),
        ({"_target_": f"{SUBMITIT}SlurmLauncher", "cpus_per_task": 2}, ("0", "1"), Share()),
        ({"_target_": JOBLIB, "n_jobs": 2}, (), Share(2, 4)),
        ({"_target_": JOBLIB, "n_jobs": 3}, ("0",), Share(3, 2)),
        ({"_target_": JOBLIB, "n_jobs": 2}, ("0", "3"), Share(2, 4, ("0", "3"))),
        ({"_target_": JOBLIB, "n_jobs": -1}, (), Share(8, 1)),
        ({"_target_": JOBLIB, "n_jobs": 20}, (), Share(20, 1)),
        ({"_target_": f"{SUBMITIT}LocalLauncher", "cpus_per_task": 3}, (), Share(2, 3)),
        ({"_target_": f"{SUBMITIT}LocalLauncher", "cpus_per_task": None}, ("0",), Share(8, 1, ("0",))),
    ],
)
def test_jobs_share_the_machine(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], gpus: tuple[str, ...], expected: Share
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 8)
    monkeypatch.setattr(launching, "_gpus", lambda: gpus)
    assert share_of(OmegaConf.create(settings)) == expected


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, ("0", "1")), ("5,7", ("5", "7")), ("GPU-a,GPU-b", ("GPU-a", "GPU-b"))]
)
def test_gpus_have_the_names_that_this_process_has_for_them(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: tuple[str, ...]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert launching._gpus() == expected


@pytest.mark.parametrize(("target", "choice"), [(JOBLIB, "joblib"), (f"{SUBMITIT}SlurmLauncher", "submitit_slurm")])
def test_a_launcher_that_is_missing_says_how_to_install_it(target: str, choice: str) -> None:
    runtime = {"choices": {"hydra/launcher": choice}}
    config = OmegaConf.create({"hydra": {"launcher": {"_target_": target}, "runtime": runtime}})
    extra = choice.partition("_")[0]
    expected = rf"^hydra/launcher={choice} is not installed.*pip install 'segtune\[{extra}\]'"
    with pytest.raises(UserError, match=expected), without_plugin(config):
        raise RuntimeError(f"Unknown plugin class : '{target}'")
    config.hydra.launcher._target_ = "mine.Launcher"
    with pytest.raises(RuntimeError, match="mine"), without_plugin(config):
        raise RuntimeError("mine")


JOBS = [SweepJob(number, str(number), (f"seed={number}",)) for number in range(4)]


class FakeLauncher:
    """A launcher whose jobs are functions of their folders; like joblib it fails as a whole if one of them raises."""

    def __init__(self, sweep: Path, jobs: Sequence[Callable[[Path], None]]) -> None:
        self.sweep, self.jobs, self.calls = sweep, jobs, []

    def launch(self, overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        self.calls.append([each[0] for each in overrides])
        for each in overrides:
            folder = self.sweep / each[0]
            folder.mkdir()
            (folder / HELD).touch()
            self.jobs[int(each[0])](folder)
        return [JobReturn(overrides=each) for each in overrides]


def finish(folder: Path) -> None:
    (folder / "checkpoints").mkdir()
    for name in ("checkpoints/last.pt", "summary.json", "report.html"):
        (folder / name).touch()


def lose(folder: Path) -> None:
    raise RuntimeError("a process of the launcher was killed")


def fail(folder: Path) -> None:
    write_failure(folder, "no", "UserError", [], "")


def stop(folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def launched(sweep: Path, *kinds: Callable[[Path], None]) -> tuple[FakeLauncher, Callable[[], dict[int, JobReturn]]]:
    jobs = JOBS[: len(kinds)]
    task = Job("train", sweep=str(sweep), headings={str(sweep / job.folder): f"run {job.number}" for job in jobs})
    launcher = FakeLauncher(sweep, kinds)
    lines = {job: ["python", "-m", "segtune", "train", *job.overrides] for job in jobs}
    return launcher, lambda: launch_apart(launcher, {job: [job.folder] for job in jobs}, lines, task)  # type: ignore[arg-type]


def test_jobs_are_shown_as_they_begin_and_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, launch = launched(tmp_path, finish, fail)
    assert list(launch()) == [0, 1]
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == [
        f"run 0 (output: {tmp_path / '0' / 'output.log'})",
        "run 0: finished",
        f"run 1 (output: {tmp_path / '1' / 'output.log'})",
    ]
    assert err == "run 1: failed. no\n"


def test_a_launcher_that_fails_is_called_again_for_what_has_not_begun(tmp_path: Path) -> None:
    launcher, launch = launched(tmp_path, finish, lose, finish, fail)
    assert list(launch()) == [2, 3]
    assert launcher.calls == [["0", "1", "2", "3"], ["2", "3"]]
    assert read_failure(tmp_path / "0") is None
    assert read_failure(tmp_path / "1") == {
        "reason": f"Its process has ended without a result. See the end of {tmp_path / '1' / 'output.log'}.",
        "kind": "ProcessEnded",
        "overrides": ["seed=1"],
        "command": "python -m segtune train seed=1",
    }


def test_a_launcher_that_cannot_begin_is_an_error(tmp_path: Path) -> None:
    launcher, launch = launched(tmp_path, finish)
    (tmp_path / "0").mkdir()
    with pytest.raises(FileExistsError):
        launch()
    assert launcher.calls == [["0"]]


def test_a_signal_lets_the_launcher_end_by_itself(tmp_path: Path) -> None:
    """The jobs learn of it by the file that asks them to stop, which is gone afterwards."""
    seen: list[bool] = []
    _, launch = launched(tmp_path, stop, lambda folder: seen.append((tmp_path / ".stop").exists()))
    with pytest.raises(KeyboardInterrupt):
        launch()
    assert seen == [True]
    assert not (tmp_path / ".stop").exists()


def test_a_job_that_another_process_runs_is_not_begun(tmp_path: Path) -> None:
    launcher, launch = launched(tmp_path, finish)
    (tmp_path / "0").mkdir()
    with FileLock(tmp_path / "0" / HELD), pytest.raises(UserError, match=r"Another process trains in .*0\."):
        launch()
    assert launcher.calls == []
