"""Resuming from the command line: what may change, and what keeps a run's folder whole."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from segtune.__main__ import main
from segtune.commands import train as commands
from segtune.models.checkpoint import Checkpoint
from segtune.training.run_folder import EVALUATED
from tests.cli.conftest import SMALL, discs, message
from tests.conftest import slow

STEADY = ("optimizer.schedule=constant", "optimizer.warmup=0")  # a longer phase has then the same rates at the start
PHASES = (
    "~freeze.phases.all",
    "+freeze.phases.one={backbone: all, epochs: 2, lr: 1e-3}",
    "+freeze.phases.two={backbone: all, epochs: 1, lr: 1e-3}",
)
TRAINING = (*SMALL[:9], *SMALL[10:], "train.batch_size=2", *STEADY, *PHASES)


@pytest.fixture(scope="module")
def home(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` and the finished run `first`, of the phases `one` (two epochs) and `two` (one)."""
    home = tmp_path_factory.mktemp("home")
    discs(home / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["train", *TRAINING, "run_dir=first"]) == 0
    return home


@pytest.fixture
def first(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run, in the folder of the test."""
    monkeypatch.chdir(home)
    monkeypatch.setattr(commands, "_conclude", lambda *_: None)  # the evaluation at the end, which takes the longest
    return shutil.copytree(home / "first", tmp_path / "first")


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("**/*") if path.is_file()}


def assert_same_end(one: Path, other: Path) -> None:
    """Compare what two runs have come to, to the last bit."""
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    contents = [Checkpoint.load(folder / "checkpoints" / "last.pt") for folder in (one, other)]
    for part in (lambda c: c.model, lambda c: c.optimizer["optimizer"]["state"]):
        torch.testing.assert_close(part(contents[0]), part(contents[1]), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize(
    "change", [slow("freeze.phases.two.epochs=2"), "+freeze.phases.late={backbone: all, epochs: 1, lr: 1e-3}"]
)
def test_a_finished_run_can_become_longer(first: Path, tmp_path: Path, change: str) -> None:
    """It ends as if it had been planned so: with a rate that does not depend on the length."""
    assert main(["train", *TRAINING, change, f"run_dir={tmp_path / 'planned'}"]) == 0
    assert main(["train", f"resume={first}", change]) == 0
    assert_same_end(first, tmp_path / "planned")


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize(
    "own",
    [
        ("optimizer=rmsprop_tf", "optimizer.decay_steps=2", "optimizer.warmup=2"),
        ("optimizer=rmsprop", "optimizer.schedule=multistep", "optimizer.milestones=[1,2]", "optimizer.warmup=1"),
    ],
)
def test_a_schedule_that_does_not_depend_on_the_length_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: tuple[str, ...]
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(commands, "_conclude", lambda *_: None)
    short, planned, longer = tmp_path / "short", tmp_path / "planned", "freeze.phases.two.epochs=3"
    training = [each for each in TRAINING if each not in STEADY]
    assert main(["train", *training, *own, f"run_dir={short}"]) == 0
    assert main(["train", *training, *own, longer, f"run_dir={planned}"]) == 0
    assert main(["train", f"resume={short}", longer]) == 0
    assert_same_end(short, planned)
    rates = [float(line.split(",")[9]) for line in (short / "metrics.csv").read_text().splitlines()[1:]]
    assert rates[2] > rates[3] > rates[4]  # of the phase that became longer


@pytest.mark.slow
@pytest.mark.trains
def test_a_warm_up_longer_than_its_phase_is_refused_before_anything_is_written(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = "freeze.phases.late={backbone: all, epochs: 1, lr: 1e-3, warmup: 99}"
    assert "freeze.phases.late: got a warmup of 99 steps; expected at most the phase's " in message(
        capsys, "train", *TRAINING, late, f"run_dir={tmp_path / 'new'}"
    )
    assert not list(tmp_path.glob("new/checkpoints/*"))
    before = everything_in(first)
    assert "freeze.phases.late: got a warmup of 99 steps" in message(capsys, "train", f"resume={first}", f"+{late}")
    assert everything_in(first) == before


KEEPS = (
    "a resumed run keeps its settings, so that it ends as if it had not been interrupted. Only these may change: "
    "data.root, data.groups, data.pairs, train.device, train.workers, train.log_every, train.log_seconds, "
    "train.trackers, checkpoint.minutes, cache.mode, cache.limit_gb, cache.folder; the epochs, steps, patience of "
    "unfinished phases, such as freeze.phases.all.epochs; and phases may be added: "
    "+freeze.phases.NAME={backbone: …, epochs: …, lr: …}."
)


OFF = (
    "With off, every epoch draws new augmentation; with any other, phases with a frozen part take cache.views of each "
    "image in turn. Only between those others may a resumed run change."
)


@pytest.mark.trains
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("seed=1",), f"seed=1: {KEEPS}"),
        (("freeze.phases.two.lr=1e-5",), f"freeze.phases.two.lr=1e-5: {KEEPS}"),
        (("~freeze.phases.two",), f"~freeze.phases.two: {KEEPS}"),
        (("+freeze.phases.two={epochs: 1, lr: 1}",), f"+freeze.phases.two={{epochs: 1, lr: 1}}: {KEEPS}"),
        (("+train.workers=1",), f"+train.workers=1: {KEEPS}"),
        (("data=portraits",), f"data=portraits: {KEEPS}"),
        (("data.name=portraits",), f"data.name=portraits: {KEEPS}"),
        (("freeze.phases.tow.epochs=3",), "freeze.phases.tow.epochs: the run has no phase tow; it has one, two."),
        (
            ("freeze.phases.one.epochs=3",),
            "The finished phases (one) cannot change, and new ones come last: "
            "+freeze.phases.NAME={backbone: …, epochs: …, lr: …}.",
        ),
        (
            ("freeze.phases.two.epochs=null", "freeze.phases.two.steps=2"),
            "freeze.phases.two: the run has already made 3 steps of this phase; got a length of 2. "
            "Set a length of 3 steps or more.",
        ),
        (
            ("freeze.phases.two.epochs=0",),
            "One setting is wrong:\n  freeze.phases.two.epochs: got 0; expected: greater than or equal to 1.",
        ),
        (("cache.views=3",), f"cache.views=3: {KEEPS}"),
        (("cache.mode=off",), f"cache.mode=off: the run began with cache.mode=auto. {OFF}"),
        (("-m",), "resume takes no flags; got -m."),
        (("--cfg", "job"), "resume takes no flags; got --cfg."),
    ],
)
def test_what_a_resumed_run_cannot_become(
    capsys: pytest.CaptureFixture[str], first: Path, arguments: tuple[str, ...], expected: str
) -> None:
    before = everything_in(first)
    assert message(capsys, "train", f"resume={first}", *arguments) == f"segtune train: {expected}"
    assert everything_in(first) == before  # so that a resume without them still works


@pytest.mark.trains
def test_a_run_of_before_there_was_a_cache_goes_on_without(capsys: pytest.CaptureFixture[str], first: Path) -> None:
    config = yaml.safe_load((first / "config.yaml").read_text())
    del config["cache"]
    (first / "config.yaml").write_text(yaml.safe_dump(config))
    expected = f"segtune train: cache.mode=disk: the run began with cache.mode=off. {OFF}"
    assert message(capsys, "train", f"resume={first}", "cache.mode=disk") == expected


@pytest.mark.trains
@pytest.mark.parametrize("named", [".", "./", "../first", "checkpoints", "checkpoints/last.pt", "config.yaml"])
def test_a_run_is_found_from_inside_and_by_its_files(first: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """Its data were named relative to the folder where it began; `auto` means the number that it began with."""
    monkeypatch.chdir(first)
    assert main(["train", f"resume={named}", "train.batch_size=auto"]) == 0


@pytest.mark.trains
def test_another_checkpoint_is_not_resumed(capsys: pytest.CaptureFixture[str], first: Path) -> None:
    best = first / "checkpoints" / "best.pt"
    assert message(capsys, "train", f"resume={best}") == (
        f"segtune train: resume={best}: a run is resumed from its last.pt, by the name of its folder. A new run can "
        f"begin with the weights of best.pt: restore.checkpoint={best}."
    )


@pytest.mark.slow
@pytest.mark.trains
def test_how_data_are_kept_is_found_once(
    quick: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes into the folder later makes it ambiguous for a new run, but not for one that has begun."""
    monkeypatch.chdir(tmp_path)
    discs(tmp_path / "photos", 12)
    (tmp_path / "photos/images").rename(tmp_path / "photos/pictures")
    (tmp_path / "photos/masks").rename(tmp_path / "photos/labels")
    for path in (tmp_path / "photos/labels").iterdir():
        path.rename(path.with_stem(f"{path.stem}_gt"))
    begin = ["train", *SMALL, "train.batch_size=2", "data.folds=3", "data.fold=1", "data.group=d.+", "run_dir=run"]
    assert main(begin) == 0
    line = "12 pairs: pictures/ with labels/*_gt.png; split by seed 0, fold 1 of 3, with groups whole (train "
    assert line in capsys.readouterr().out
    kept = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["data"]
    assert (kept["images"], kept["masks"], kept["mask_name"]) == ("pictures", "labels", "*_gt")
    shutil.copytree(tmp_path / "photos/labels", tmp_path / "photos/masks")
    assert "data.images=pictures data.masks=labels 'data.mask_name=*_gt' (12 pairs)" in message(
        capsys, *begin[:-1], "run_dir=other"
    )
    assert main(["train", "resume=run", "freeze.phases.all.epochs=2", "checkpoint.minutes=1"]) == 0
    assert main([*begin, "freeze.phases.all.epochs=3", "resume=auto"]) == 0
    for more in ([], ["data=folder", "data.root=photos"], ["data.root=photos", "data.split=val"]):
        assert main(["evaluate", "checkpoint=run", *more, "train.device=cpu", "train.workers=0"]) == 0
    assert capsys.readouterr().out.count(line) == 5


@pytest.mark.trains
def test_data_may_move_but_not_change(
    capsys: pytest.CaptureFixture[str], home: Path, first: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(home / "photos", tmp_path / "moved")
    assert main(["train", f"resume={first}", f"data.root={moved}"]) == 0
    assert yaml.safe_load((first / "config.yaml").read_text())["data"]["root"] == str(moved)
    before = everything_in(first)
    trained = sorted(json.loads((first / "data.json").read_text())["train"])
    shutil.copy(moved / "masks" / f"{trained[0]}.png", moved / "masks" / f"{trained[1]}.png")
    (moved / "images" / f"{trained[2]}.jpg").rename(moved / "images" / "new.jpg")
    (moved / "masks" / f"{trained[2]}.png").rename(moved / "masks" / "new.png")
    capsys.readouterr()
    text = message(capsys, "train", f"resume={first}")
    assert text.startswith(f"segtune train: The data in {moved} have changed since the run began:\n  train: ")
    for change in (f"1 removed ({trained[2]})", f"1 with another mask ({trained[1]})"):
        assert change in text
    assert everything_in(first) == before
    for place in ("gone", tmp_path / "first" / "config.yaml"):
        expected = f"segtune train: data.root={place} is not a folder (current folder: {home})."
        assert message(capsys, "train", f"resume={first}", f"data.root={place}").startswith(expected)


@pytest.mark.trains
def test_a_config_that_was_edited_is_refused(capsys: pytest.CaptureFixture[str], first: Path) -> None:
    path = first / "config.yaml"
    path.write_text(path.read_text().replace("weight_decay: 0.0001", "weight_decay: 0.01"))
    assert message(capsys, "train", f"resume={first}").splitlines()[:2] == [
        f"segtune train: Settings in {path} have changed since the run was saved:",
        "  optimizer.weight_decay: 0.0001 in training, 0.01 now",
    ]
    path.write_text(path.read_text().replace("weight_decay: 0.01", "weight_decoy: 0.01"))
    assert message(capsys, "train", f"resume={first}").startswith(f"segtune train: {path} cannot be used. One setting")


@pytest.mark.trains
def test_a_missing_checkpoint_is_noticed_first(capsys: pytest.CaptureFixture[str], first: Path, tmp_path: Path) -> None:
    best, last = (first / "checkpoints" / name for name in ("best.pt", "last.pt"))
    content = best.read_bytes()
    best.unlink()
    assert message(capsys, "train", f"resume={first}").startswith(f"segtune train: {best} is missing: it holds epoch ")
    best.write_bytes(content[:1000])
    assert message(capsys, "train", f"resume={first}").startswith(f"segtune train: Cannot read the checkpoint {best}: ")
    best.write_bytes(content)
    last.unlink()
    assert message(capsys, "train", f"resume={first}").startswith(f"segtune train: {last} is missing, so the run")


@pytest.mark.trains
def test_a_run_of_an_earlier_version_has_no_record_of_its_data(capsys: pytest.CaptureFixture[str], first: Path) -> None:
    last = first / "checkpoints" / "last.pt"
    content = torch.load(last)
    del content["data"]
    torch.save(content, last)
    (first / "data.json").unlink()
    assert main(["train", f"resume={first}"]) == 0
    assert f"{last} has no record of its data, so it is not checked" in capsys.readouterr().out


@pytest.fixture
def holder(first: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the run's lock, with a child that outlives it, as a worker outlives a kill."""
    code = (
        "import filelock, os, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); child = os.fork();"
        "print(child, flush=True) if child else None; time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(first / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        yield process
        process.kill()
        os.kill(child, signal.SIGKILL)


@pytest.mark.trains
def test_two_processes_never_write_one_folder(
    capsys: pytest.CaptureFixture[str], first: Path, holder: subprocess.Popen
) -> None:
    before = everything_in(first)
    assert message(capsys, "train", f"resume={first}") == (
        f"segtune train: Another process is training in {first}. Wait for it, or choose another folder (run_dir=…)."
    )
    assert everything_in(first) == before
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (first / ".lock").exists()  # the file is left, the lock is not
    assert main(["train", f"resume={first}"]) == 0


@pytest.mark.trains
def test_a_new_run_does_not_touch_the_folder_of_one_that_begins(
    capsys: pytest.CaptureFixture[str], first: Path, holder: subprocess.Popen
) -> None:
    """Another process has locked the folder, but has not written anything yet."""
    for name in ("config.yaml", "metrics.csv", "summary.json"):
        (first / name).unlink()
    shutil.rmtree(first / "checkpoints")
    expected = f"segtune train: Another process is training in {first}. "
    assert message(capsys, "train", *TRAINING, f"run_dir={first}").startswith(expected)
    assert not (first / "config.yaml").exists()
    assert (first / ".lock").exists()


@pytest.mark.trains
def test_what_a_killed_process_left_half_written_is_removed(first: Path) -> None:
    left = [first / "checkpoints" / ".last.pt.ab12.partial", first / ".metrics.csv.cd34.partial"]
    for path in left:
        path.write_bytes(b"half of it")
    assert main(["train", f"resume={first}"]) == 0
    assert not [path for path in left if path.exists()]


@pytest.mark.slow
@pytest.mark.trains
def test_a_disk_that_is_full_keeps_the_last_checkpoint(
    capsys: pytest.CaptureFixture[str], first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file may grow beyond 100 kB while the checkpoint of the second epoch is written."""
    run, save, count = tmp_path / "run", Checkpoint.save, 0

    def cramped(content: Checkpoint, path: Path) -> None:
        nonlocal count
        count += path.name == "last.pt"
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            if count == 3:  # at the start, after the first epoch, after the second
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            save(content, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", cramped)
        text = message(capsys, "train", *TRAINING, f"run_dir={run}")
    last = run / "checkpoints" / "last.pt"
    assert text.splitlines() == [
        f"segtune train: Cannot write {last}: the file would be larger than allowed (File too large): look at the "
        "limit of this shell (ulimit -f) or of the file system, or write elsewhere.",
        "The old file is untouched.",
        f"The last save is good. To go on from it: python -m segtune train resume={run}",
    ]
    assert Checkpoint.load(last).state.epoch == 1
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.pt", "last.pt"]
    assert main(["train", f"resume={run}"]) == 0
    assert_same_end(run, first)


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.trains
def test_a_run_whose_checkpoint_holds_code_is_not_resumed(
    capsys: pytest.CaptureFixture[str], first: Path, tmp_path: Path
) -> None:
    last, target = first / "checkpoints" / "last.pt", tmp_path / "executed"
    torch.save(torch.load(last) | {"extra": Payload(target)}, last)
    before = everything_in(first)
    assert message(capsys, "train", f"resume={first}") == (
        f"segtune train: Cannot read the checkpoint {last}: it would run commands when loaded (posix.system). "
        "Nothing was run. Do not load it elsewhere.\n"
        "Expected a file that `segtune train` wrote, such as RUN/checkpoints/best.pt."
    )
    assert not target.exists()
    assert everything_in(first) == before
    torch.load(last, weights_only=False)
    assert target.exists()  # the payload was a real one


def test_resume_in_settings_of_ones_own_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nresume: runs/OLD\n")
    arguments = ("train", "--config-dir", str(tmp_path), "experiment=mine")
    assert message(capsys, *arguments) == (
        "segtune train: resume must be given on the command line: python -m segtune train resume=RUN"
    )
    assert message(capsys, "train", "++resume=nowhere").startswith("segtune train: resume=nowhere: no run found")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: [", "is damaged: "),
        ("a: 2001-99-99", "is damaged: "),
        ("a: 1", "does not contain the settings of a run."),
        ("", "does not contain"),
        ("freeze: 3", "cannot be used. "),
    ],
)
def test_a_config_that_is_none_of_a_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, expected: str
) -> None:
    (tmp_path / "config.yaml").write_text(content)
    start = f"segtune train: {tmp_path / 'config.yaml'} {expected}"
    assert message(capsys, "train", f"resume={tmp_path}").startswith(start)


def test_epochs_of_a_run_with_several_phases_need_the_phase(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, "train", f"resume={first}", "epochs=3") == (
        "segtune train: epochs: this run has 2 phases, and those that are finished cannot change. "
        "Set freeze.phases.one.epochs or freeze.phases.two.epochs."
    )


def test_a_hand_edited_file_is_checked_before_it_is_changed(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = first / "config.yaml"
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["freeze"]["phases"] = 3
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert "freeze.phases: got 3; expected: a valid dictionary." in message(
        capsys, "train", f"resume={first}", "freeze.phases.two.epochs=3"
    )
    config.write_bytes(b"\xff\xfe")
    assert message(capsys, "train", f"resume={first}").startswith(f"segtune train: {config} is damaged: ")


@pytest.mark.trains
def test_one_command_begins_goes_on_and_ends(
    capsys: pytest.CaptureFixture[str], first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With resume=auto it may be queued again and again: SIGUSR1 stops it, and when all is done it does nothing."""
    run, save = tmp_path / "run", Checkpoint.save
    again = ["train", *TRAINING, f"run_dir={run}", "resume=auto"]

    def then_warn(content: Checkpoint, path: Path) -> None:
        save(content, path)
        if path.name == "last.pt" and content.state.rows:
            os.kill(os.getpid(), signal.SIGUSR1)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", then_warn)
        assert main(again) == 130
    resume = f"Stopped; everything is saved. To resume: python -m segtune train resume={run}"
    assert resume in capsys.readouterr().err
    (run / "failure.json").touch()  # of an attempt before
    assert main(again) == 0
    assert_same_end(run, first)
    assert not (run / "failure.json").exists()
    for name in EVALUATED:  # which is left out here
        shutil.copy(first / name, run)
    before = everything_in(run)
    (run / "failure.json").touch()
    capsys.readouterr()
    assert main(again) == 0
    assert f"The run in {run} is finished; there is nothing to do." in capsys.readouterr().out
    assert everything_in(run) == before
    shutil.rmtree(run / "checkpoints")  # as if it had ended before its first save
    assert main(again) == 0
    assert_same_end(run, first)


def test_a_sweep_of_an_earlier_version_goes_on_by_its_own_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "config.yaml").touch()
    assert message(capsys, "train", f"resume={tmp_path}") == (
        f"segtune train: resume={tmp_path}: this sweep has no sweep.json: it is of an earlier version. Give its own "
        f"command again, with -m run_dir={tmp_path} resume=auto: what is finished is kept."
    )


def test_auto_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, "train", *TRAINING, "resume=auto") == (
        "segtune train: resume=auto needs run_dir=…: the folder in which to begin the run, or to go on with it."
    )
