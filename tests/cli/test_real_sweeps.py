"""Sweeps that train, under each launcher: one run fails, one is killed, one interrupted; then the sweep goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

import segtune
from segtune.runtime.files import read_rows
from segtune.runtime.sweep_files import is_finished, read_failure, was_pruned
from tests.cli.conftest import SMALL, discs

pytestmark = [pytest.mark.slow, pytest.mark.trains]

ENVIRONMENT = {"PYTHONPATH": str(Path(segtune.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
TRAINING = (*(each for each in SMALL if "epochs" not in each), "freeze.phases.all.epochs=3", "train.precision=fp32")
SEEDS = "seed=0,1,2,3,4,-1"


def launcher(name: str, package: str, *settings: str) -> object:
    missing = pytest.mark.skipif(find_spec(package) is None, reason=f"needs the extra segtune[{package}]")
    return pytest.param((f"hydra/launcher={name}", *settings), id=name, marks=missing)


APART = [launcher("joblib", "joblib", "hydra.launcher.n_jobs=2"), launcher("submitit_local", "submitit")]


def start(folder: Path, *words: str) -> subprocess.Popen:
    """Start the command line in a process group of its own, as a shell does."""
    command = [sys.executable, "-m", "segtune", "train", *words]
    env = os.environ | ENVIRONMENT
    with (folder / "screen").open("w") as screen:
        return subprocess.Popen(
            command, cwd=folder, env=env, stdout=screen, stderr=subprocess.STDOUT, start_new_session=True
        )


def ended(process: subprocess.Popen) -> int:
    try:
        return process.wait(300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def process_of(folder: Path, seed: int) -> int | None:
    """The process that runs a job apart, by what Linux tells of processes."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "segtune.cli.jobs" in words and f"seed={seed}" in words and (path / "cwd").resolve() == folder:
                return int(path.name)
    return None


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.02)


def begun(folder: Path) -> bool:
    return (folder / "checkpoints" / "last.pt").exists()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` and the finished sweep `one`, whose runs took turns."""
    home = tmp_path_factory.mktemp("home")
    discs(home / "photos")
    assert ended(start(home, "-m", *TRAINING, "seed=0,1,2,3,4", "run_dir=one")) == 0, (home / "screen").read_text()
    return home


@pytest.fixture
def here(home: Path, tmp_path: Path) -> Path:
    (tmp_path / "photos").symlink_to(home / "photos")
    return tmp_path


def same_results(one: Path, other: Path) -> bool:
    return (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()


def states(sweep: Path) -> list[str]:
    """How each run of a sweep has ended, by its files."""
    found = []
    for number in range(6):
        folder = sweep / str(number)
        failure = read_failure(folder)
        began = "interrupted" if (folder / "config.yaml").exists() else "not begun"
        found.append("failed" if failure else "finished" if is_finished(folder) else began)
    return found


@pytest.mark.parametrize("words", APART)
def test_runs_apart_fail_and_stop_by_themselves(home: Path, here: Path, words: tuple[str, ...]) -> None:
    sweep = start(here, "-m", *TRAINING, SEEDS, *words, "run_dir=s")
    for seed, number in ((1, signal.SIGKILL), (2, signal.SIGINT)):
        wait_for(lambda seed=seed: begun(here / "s" / str(seed)), sweep)  # type: ignore[misc]
        found = process_of(here, seed)
        assert found is not None
        os.kill(found, number)
    assert ended(sweep) == 1
    screen = (here / "screen").read_text()
    assert states(here / "s") == ["finished", "failed", "interrupted", "finished", "finished", "failed"], screen
    for part in (
        *(f"run {number} of 6: seed=" for number in range(1, 7)),
        "seed=1: failed. Its process was ended (SIGKILL), as happens where memory runs out.",
        "2 of 6 failed, 1 of 6 interrupted:\n  s/1 (seed=1): Its process was ended (SIGKILL)",
        "  s/2 (seed=2): interrupted\n  s/5 (seed=-1): One setting is wrong: seed: got -1; expected: greater than",
        "To go on: python -m segtune train resume=s\n",
        "Wrote s/report.html and s/leaderboard.csv.",
    ):
        assert part in screen
    before = {number: (here / "s" / number / "summary.json").stat().st_mtime_ns for number in ("0", "3", "4")}
    assert ended(start(here, "resume=s")) == 1  # with the command's own launcher; the wrong setting fails again
    assert states(here / "s") == [*["finished"] * 5, "failed"]
    assert "3 of 6 runs are finished already." in (here / "screen").read_text()
    assert before == {number: (here / "s" / number / "summary.json").stat().st_mtime_ns for number in before}
    for number in range(5):
        assert same_results(home / "one" / str(number), here / "s" / str(number))
    assert not list((here / "s").glob(".stop")) + list((here / "s").glob(".place*"))


@pytest.mark.parametrize("words", APART[:1])  # submitit's processes hear of it in the same way
def test_ctrl_c_lets_runs_apart_save(home: Path, here: Path, words: tuple[str, ...]) -> None:
    """A terminal sends the signal to all processes of the group."""
    sweep = start(here, "-m", *TRAINING, SEEDS, *words, "run_dir=s")
    wait_for(lambda: begun(here / "s" / "0"), sweep)
    os.killpg(sweep.pid, signal.SIGINT)
    assert ended(sweep) == 130
    screen = (here / "screen").read_text()
    assert re.search(r"^Stopped; [12] of 6 interrupted, [45] of 6 not begun:\n", screen, re.MULTILINE), screen
    assert "failed" not in states(here / "s")
    assert "everything is saved" in (here / "s" / "0" / "output.log").read_text()
    assert ended(start(here, "resume=s", "hydra/launcher=basic")) == 1
    assert states(here / "s") == [*["finished"] * 5, "failed"]
    assert all(same_results(home / "one" / str(number), here / "s" / str(number)) for number in range(5))


def test_a_sweep_in_one_process_that_is_killed_goes_on(home: Path, here: Path) -> None:
    sweep = start(here, "-m", *TRAINING, SEEDS, "run_dir=s")
    wait_for(lambda: begun(here / "s" / "1"), sweep)
    sweep.kill()
    assert ended(sweep) == -9
    assert [job["folder"] for job in json.loads((here / "s" / "sweep.json").read_text())["jobs"]] == list("012345")
    assert states(here / "s") == ["finished", "interrupted", *["not begun"] * 4]
    sweep = start(here, "resume=s")
    wait_for(lambda: begun(here / "s" / "3"), sweep)
    sweep.send_signal(signal.SIGINT)
    assert ended(sweep) == 130
    assert states(here / "s") == [*["finished"] * 3, "interrupted", *["not begun"] * 2]
    assert (
        "Stopped; 1 of 6 interrupted, 2 of 6 not begun:\n  s/3 (seed=3): interrupted\n" in (here / "screen").read_text()
    )
    assert ended(start(here, "-m", *TRAINING, "seed=4,3,2,1,0", "run_dir=s", "resume=auto")) == 0
    assert states(here / "s") == [*["finished"] * 5, "not begun"]
    assert all(same_results(home / "one" / str(number), here / "s" / str(number)) for number in range(5))


@pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra segtune[optuna]")
@pytest.mark.parametrize("words", [pytest.param((), id="basic"), APART[0]])
def test_a_search_is_told_every_epoch_by_runs_anywhere(here: Path, words: tuple[str, ...]) -> None:
    import optuna

    search = ("hydra/sweeper=optuna", "hydra.sweeper.finished_trials=1", "hydra.sweeper.warmup_epochs=0")
    space = ("seed=range(5)", "run_dir=s")
    assert ended(start(here, "-m", *TRAINING, *search, *space, *words)) == 0, (here / "screen").read_text()
    study = optuna.load_study(study_name="segtune", storage=f"sqlite:///{here / 's' / 'study.db'}")
    assert [trial.params["seed"] for trial in study.trials] == list(range(5))
    for trial in study.trials:
        folder = here / "s" / str(trial.number)
        dices = [float(row["val_dice_object"]) for row in read_rows(folder / "metrics.csv")]
        assert list(trial.intermediate_values.items()) == list(enumerate(dices, 1))
        assert trial.state.name == ("PRUNED" if was_pruned(folder) else "COMPLETE")
        assert len(dices) == 3 or was_pruned(folder)
    pruned = [trial.number for trial in study.trials if trial.state.name == "PRUNED"]
    for number in pruned[:1]:  # its user wants to know how it would have ended
        assert ended(start(here, f"resume=s/{number}")) == 0
        assert is_finished(here / "s" / str(number))


MEASURED = """
import sys
from segtune.__main__ import main
from segtune.cli import jobs

def measured(*arguments):
    result = attempt(*arguments)
    status = open("/proc/self/status").read()
    print("resident", status.split("VmRSS:")[1].split()[0])
    return result

attempt, jobs.attempt = jobs.attempt, measured
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_is_back_to_the_start_after_each_run(here: Path) -> None:
    words = ["train", "-m", *TRAINING, "freeze.phases.all.epochs=1", "seed=range(10)", "run_dir=s"]
    command = [sys.executable, "-c", MEASURED, *words]
    done = subprocess.run(command, cwd=here, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resident = [int(each) for each in re.findall(r"^resident (\d+)", done.stdout, re.MULTILINE)]
    assert len(resident) == 10
    assert resident[-1] <= 1.05 * resident[1], resident
