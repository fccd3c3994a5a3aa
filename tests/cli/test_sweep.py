"""A sweep from the command line: what runs, what is said, and how it goes on."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from filelock import FileLock

from segtune.__main__ import main
from segtune.cli import sweep
from segtune.commands import train as train_command
from segtune.config.schema import Settings
from segtune.errors import DivergedError, Interrupted, UserError
from segtune.runtime.sweep_files import SweepJob, SweepRecord, write_sweep
from segtune.training.run_folder import write_settings
from tests.cli.conftest import message

Trained = list[tuple[int, str, bool]]


class Trainings:
    """What the jobs of sweeps in the folder of the test have done, without training."""

    def __init__(self) -> None:
        self.done: Trained = []
        self.ranked: list[Path] = []
        self.faults: dict[int, BaseException] = {}

    def train(self, settings: Settings, folder: Path, command: str, **more: bool) -> dict[str, float]:
        """Note the seed, the folder and whether the run resumes; leave what a finished run leaves."""
        self.done.append((settings.seed, folder.name, settings.resume is not None))
        write_settings(folder, asdict(settings), command)
        if settings.seed in self.faults:
            raise self.faults[settings.seed]
        (folder / "checkpoints").mkdir(exist_ok=True)
        for name in ("checkpoints/last.pt", "summary.json", "report.html"):
            (folder / name).write_text('{"val_dice": 0.5}')
        return {"val_dice": 0.5}


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    monkeypatch.chdir(tmp_path)
    trainings = Trainings()
    monkeypatch.setattr(train_command, "train", trainings.train)
    monkeypatch.setattr(sweep, "rank", trainings.ranked.append)
    return trainings


def swept(*arguments: str) -> int:
    return main(["train", "-m", *arguments, "run_dir=s"])


def test_failures_do_not_stop_the_others_and_are_kept_and_told(
    trainings: Trainings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainings.faults = {1: UserError("It cannot.\nMore on it."), 2: KeyError("x"), 3: DivergedError("too far")}
    assert swept("seed=0,1,2,3,4", "epochs=2") == 1
    out, err = capsys.readouterr()
    assert re.findall("^run .*", out, re.MULTILINE) == [f"run {seed + 1} of 5: seed={seed}" for seed in range(5)]
    assert "run 2 of 5: seed=1: failed. It cannot.\nMore on it.\n" in err
    assert "KeyError: 'x'\nrun 3 of 5: seed=2: failed. KeyError: 'x'\n" in err  # after its traceback
    assert err.endswith(
        "segtune train: 3 of 5 failed:\n"
        "  s/1 (seed=1): It cannot.\n"
        "  s/2 (seed=2): KeyError: 'x'\n"
        "  s/3 (seed=3): too far\n"
        "To go on: python -m segtune train resume=s\n"
    )
    assert trainings.done == [(seed, str(seed), False) for seed in range(5)]
    assert trainings.ranked == [tmp_path / "s"]
    failures = [json.loads(path.read_text()) for path in sorted(Path("s").glob("*/failure.json"))]
    assert [each["kind"] for each in failures] == ["UserError", "KeyError", "DivergedError"]
    assert failures[0] == {
        "reason": "It cannot.\nMore on it.",
        "kind": "UserError",
        "overrides": ["seed=1", "epochs=2"],
        "command": "python -m segtune train seed=1 epochs=2",
    }
    assert "raise self.faults[settings.seed]\nKeyError: 'x'\n" in failures[1]["traceback"]
    assert json.loads(Path("s/sweep.json").read_text()) == {
        "command": "python -m segtune train -m seed=0,1,2,3,4 epochs=2 run_dir=s",
        "jobs": [{"number": n, "folder": str(n), "overrides": [f"seed={n}", "epochs=2"]} for n in range(5)],
    }


def test_a_stopped_sweep_goes_on_with_what_is_missing(
    trainings: Trainings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainings.faults = {2: Interrupted("Stopped; everything is saved.")}
    assert swept("seed=0,2,3") == 130
    assert [seed for seed, *_ in trainings.done] == [0, 2]
    assert trainings.ranked == [tmp_path / "s"]
    assert capsys.readouterr().err.endswith(
        "Stopped; everything is saved.\n"
        "Stopped; 1 of 3 interrupted, 1 of 3 not begun:\n"
        "  s/1 (seed=2): interrupted\n"
        "To go on: python -m segtune train resume=s\n"
    )
    trainings.faults = {}
    trainings.done.clear()
    assert main(["train", "resume=s", "train.workers=1"]) == 0
    assert trainings.done == [(2, "1", True), (3, "2", False)]
    assert "1 of 3 runs are finished already.\n\nrun 2 of 3: seed=2\n" in capsys.readouterr().out
    trainings.done.clear()
    assert main(["train", "resume=s"]) == 0
    assert trainings.done == []


@pytest.mark.slow
def test_a_sweep_grows_by_values_in_any_order(trainings: Trainings) -> None:
    assert swept("seed=1,2") == 0
    trainings.done.clear()
    assert swept("seed=3,2,1", "data.limit=5,null", "resume=auto") == 0
    assert trainings.done == [(3, "2", False), (3, "3", False), (2, "4", False), (1, "5", False)]
    record = json.loads(Path("s/sweep.json").read_text())
    assert [job["number"] for job in record["jobs"]] == list(range(6))
    assert record["command"].endswith("seed=3,2,1 data.limit=5,null resume=auto run_dir=s")


@pytest.mark.slow
def test_the_same_job_twice_is_run_once(trainings: Trainings) -> None:
    assert swept("seed=1,1") == 0
    assert len(trainings.done) == 1


@pytest.mark.slow
def test_a_sweep_of_an_earlier_version_is_known_by_its_settings(trainings: Trainings) -> None:
    assert swept("seed=1,2") == 0
    Path("s/sweep.json").unlink()
    assert swept("seed=1,2") == 2
    trainings.done.clear()
    assert swept("seed=2,3,1", "resume=auto") == 0
    assert trainings.done == [(3, "2", False)]


def test_a_folder_with_a_sweep_is_refused(trainings: Trainings, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(Path("s"), SweepRecord("", (SweepJob(0, "0", ("seed=1",)),)))
    assert message(capsys, "train", "-m", "seed=2", "run_dir=s") == (
        "segtune train: There is a sweep in s already. To go on with it: python -m segtune train resume=s, or the same "
        "command with run_dir and resume=auto, also with more values. Or choose another folder (run_dir=…)."
    )
    assert trainings.done == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("seed=-1,-2",), "One setting is wrong:\n  seed: got -1; expected: greater than or equal to 0."),
        (
            ("data.root=a,b",),
            "data.root=a is not a folder (current folder: {}). Set it to the folder of your data set.",
        ),
        (
            ("seed=1,2", "resume=auto"),
            "resume=auto needs run_dir=…: the folder in which to begin the run, or to go on with it.",
        ),
        (
            ("seed=1,2", "hydra.sweep.subdir=x"),
            "hydra.sweep.subdir cannot be set: the folders of a sweep's runs are numbered.",
        ),
    ],
)
def test_what_no_job_can_do_is_told_once_and_leaves_nothing(
    trainings: Trainings, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    assert message(capsys, "train", "-m", *arguments) == f"segtune train: {expected.format(tmp_path)}"
    assert not list(tmp_path.glob("multirun/*"))
    assert (trainings.done, trainings.ranked) == ([], [])


def test_a_sweep_that_another_process_runs_is_refused(trainings: Trainings, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s").mkdir()
    with FileLock("s/.lock"):
        assert message(capsys, "train", "-m", "seed=1", "run_dir=s") == (
            "segtune train: Another process runs the sweep in s. Wait for it."
        )
    assert trainings.done == []


@pytest.mark.slow
def test_one_job_with_wrong_settings_fails_alone(trainings: Trainings, capsys: pytest.CaptureFixture[str]) -> None:
    assert swept("seed=-1,2") == 1
    assert (
        "1 of 2 failed:\n  s/0 (seed=-1): One setting is wrong: seed: got -1; expected: greater than or equal to 0.\n"
        in capsys.readouterr().err
    )
    assert [seed for seed, *_ in trainings.done] == [2]


@pytest.mark.parametrize(
    ("word", "start"),
    [
        ("seed=3", "seed=3: the runs of a sweep keep their settings. Only these may be added: data.root, "),
        ("-m", "resume takes no flags; got -m."),
    ],
)
def test_a_sweep_keeps_its_settings(
    trainings: Trainings, capsys: pytest.CaptureFixture[str], word: str, start: str
) -> None:
    write_sweep(Path("s"), SweepRecord("python -m segtune train -m seed=1 run_dir=s resume=auto", ()))
    found = message(capsys, "train", "resume=s", word)
    assert found.startswith(f"segtune train: {start}")
    more = "give the sweep's command with more values: python -m segtune train -m seed=1 run_dir=s resume=auto"
    assert word == "-m" or found.endswith(more)


@pytest.mark.slow
def test_errors_are_let_through_on_request(trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    trainings.faults = {1: UserError("no")}
    with pytest.raises(UserError, match="no"):
        swept("seed=1,2")


@pytest.mark.parametrize("flag", ["-m", "--multirun", "--multi", "hydra.mode=MULTIRUN"])
def test_what_asks_for_a_sweep(flag: str) -> None:
    assert sweep.is_multirun(["seed=1", flag])
    assert not sweep.is_multirun(["seed=1", "--cfg", "job", "hydra.mode=RUN"])
