"""The command line as a user meets it: in processes of its own."""

import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from torch import nn

import segtune
from segtune.__main__ import COMMANDS, main
from segtune.cli import tasks
from segtune.cli.compose import quoted
from segtune.commands import probe as layer_commands
from segtune.commands import train as commands
from segtune.errors import UserError
from segtune.models import build
from segtune.models.backbones.registry import BACKBONES
from segtune.models.checkpoint import Checkpoint
from segtune.training import phase_summary as plan
from segtune.training.step_cost import StepCost

REPOSITORY = Path(segtune.__file__).parent.parent


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "segtune", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run in this process; return the error message, after checking the exit code and that there is no traceback."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert code == 2, out + err
    assert "Traceback" not in out + err
    return err.strip()


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_commands_are_listed_at_once(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    best = 9.0
    for _ in range(3):  # the machine may be busy; what counts is what it takes at best
        began = time.perf_counter()
        done = run(*arguments, cwd=tmp_path)
        best = min(best, time.perf_counter() - began)
    assert done.returncode == 0
    assert "train" in done.stdout
    assert "evaluate" in done.stdout
    assert best < 0.5


def test_help_and_version_import_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys; from segtune.__main__ import main; main(['--help']); main(['--version']); print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert f"segtune {segtune.__version__}" in out
    assert not {"torch", "hydra", "numpy", "pydantic", "rich"} & set(out.splitlines()[-1].split())


def test_help_on_hydra_offers_only_what_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # --info adds one that would outlive this test's output
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    assert main(["plan", "--hydra-help"]) == 0
    out = capsys.readouterr().out
    assert "as in python -m segtune plan [flag" in out
    assert "Hydra's shell completion does not work" in out
    assert "install=bash" not in out
    for flags in (
        ["--cfg", "job", "--resolve", "-p", "freeze"],
        ["-c", "job"],
        ["--info", "defaults"],
        ["-i", "config"],
    ):
        assert main(["plan", *flags]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 5


REQUIRED = {
    "evaluate": ("checkpoint=a.pt",),
    "predict": ("checkpoint=a.pt", "input=x"),
    "export": ("checkpoint=a.pt",),
    "report": ("folder=x",),
}
WRONG = {"export": "format=abc", "report": "output=[1]"}
FOLDER = ("data=folder", "data.root=nowhere")
ANSWERED_AT_ONCE = (
    *((command, *REQUIRED.get(command, ()), WRONG.get(command, "train.batch_size=abc")) for command in COMMANDS),
    *((command, *REQUIRED.get(command, ()), "no_such=1") for command in COMMANDS),
    *((command,) for command in REQUIRED),
    *((command, *arguments) for command, arguments in REQUIRED.items()),  # there are no such files
    *((command, *FOLDER) for command in ("train", "check", "probe")),
    ("train", "decoder.outputs=3"),
    ("train", "freeze=none", "freeze.phases.all.lr=-1"),
    ("train", "data=folder"),
    ("train", "-m", "seed=-1,-2"),
    ("train", "resume=nowhere"),
    ("train", "resume=run", "seed=1"),
    ("train", "resume=run", "train.workers=-1"),
    ("train", "resume=run"),  # its data are gone
)


def test_what_settings_and_paths_tell_is_answered_before_anything_heavy_is_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *FOLDER, "--cfg", "job", "--resolve"]) == 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(capsys.readouterr().out)
    code = """
import os, sys
from segtune.__main__ import main

for call in sys.stdin.read().splitlines():  # in one process, for what an answer has imported stays
    print(main(call.split()), call)
    if heavy := {"torch", "numpy", "cv2", "matplotlib", "rich", "timm"} & set(sys.modules):
        sys.exit(f"{call} has imported {heavy}")
"""
    calls = [" ".join(call) for call in ANSWERED_AT_ONCE]
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, input="\n".join(calls), cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"2 {call}" for call in calls]
    assert "Traceback" not in done.stderr


def test_the_console_script_is_the_module() -> None:
    import tomllib

    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"segtune": "segtune.__main__:main"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("trian",), "segtune: there is no command 'trian'. Did you mean train?"),
        (
            ("train", "backbone=xceptoin"),
            "segtune train: backbone=xceptoin: there is no such choice. Did you mean xception? "
            "Expected one of: resnet50, timm, vgg16, xception; or your own file with --config-dir.",
        ),
        (
            ("train", "bakcbone=vgg16"),
            "segtune train: bakcbone: there is no such setting. Did you mean backbone? "
            "`python -m segtune train --help` lists all.",
        ),
        (
            ("train", "train.bacth_size=4"),
            "segtune train: train.bacth_size: there is no such setting. Did you mean train.batch_size? "
            "`python -m segtune train --help` lists all.",
        ),
        (
            ("train", "train.batch_size=four"),
            "segtune train: One setting is wrong:\n  train.batch_size: got 'four'; expected: a valid integer.",
        ),
        (
            ("train", "data=folder"),
            "segtune train: data.root is required. Set data.root=…",
        ),
        (
            ("train", "-sc", "install=bash"),
            "segtune train: Hydra's shell completion does not work with segtune. "
            "`python -m segtune train --help` lists all settings.",
        ),
        (("train", "resume=nowhere"), "segtune train: resume=nowhere: no run found (no config.yaml)."),
        (("evaluate", "checkpoint=none.pt"), "segtune evaluate: No checkpoint at none.pt."),
        (("taps", "resume=x"), "segtune taps: resume is a setting of train, not of taps. Leave it out."),
        (("train", "train.device=cuda:77"), "segtune train: train.device=cuda:77 cannot be used here: "),
        (("train", "data=folder", "data.root=nowhere"), "segtune train: "),
    ],
)
def test_a_users_error_is_one_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message(capsys, *arguments).startswith(expected)
    assert not list(tmp_path.iterdir()) or not list((tmp_path / "runs").iterdir())  # nothing is left behind


@pytest.mark.parametrize(
    ("taps", "expected"),
    [
        (
            ("taps.low=block9_sepconv3_act", "taps.high=block4_sepconv1_act"),
            "segtune train: The taps of xception must be different layers, from shallow to deep in the order low, high",
        ),
        (
            ("taps.low=block4_sepconv1_atc",),
            "segtune train: xception has no layer 'block4_sepconv1_atc'. The nearest names: ",
        ),
        (("+taps.middle=block5",), "segtune train: The decoder deeplabv3plus reads the taps low, high; got "),
    ],
)
def test_impossible_taps_are_explained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taps, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    discs(tmp_path / "photos")
    arguments = ("train", "data=folder", "data.root=photos", "backbone.weights=none", *taps)
    assert message(capsys, *arguments).startswith(expected)


def test_a_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(UserError, match=r"data\.root is required") as caught:  # what Python ends with a traceback
        main(["train", "data=folder"])
    assert any(entry.name == "to_plain" for entry in caught.traceback)


LOOKS_FOR_DATA = [
    *((fault, command) for fault in ("no folder", "no masks") for command in ("train", "check", "probe", "evaluate")),
    # check loads no weights, and evaluate needs the data settings in its checkpoint to say more
    *(("a photo without mask", command) for command in ("train", "probe")),
]


@pytest.mark.parametrize(("fault", "command"), LOOKS_FOR_DATA)
def test_data_are_looked_for_before_weights_are_loaded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, command: str
) -> None:
    """By the commands themselves: the look that the command line has taken before is left out."""

    def refuse(*_: object) -> None:
        raise AssertionError("weights were to be loaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "find_data_folder", lambda _: None)
    for module in (build, layer_commands):
        monkeypatch.setattr(module, "load_weights", refuse)
    monkeypatch.setattr(Checkpoint, "load", refuse)
    (tmp_path / "a.pt").touch()
    if fault != "no folder":
        discs(tmp_path / "photos")
    if fault == "no masks":
        shutil.rmtree(tmp_path / "photos" / "masks")
    elif fault == "a photo without mask":
        (tmp_path / "photos" / "masks" / "d3.png").unlink()
    needed = ["checkpoint=a.pt"] if command == "evaluate" else []
    code = main([command, *needed, "data=folder", "data.root=photos"])
    out, err = capsys.readouterr()
    assert code == (1 if command == "check" and fault != "no folder" else 2), out + err
    expected = {
        "no folder": f"data.root=photos is not a folder (current folder: {tmp_path}). Set it to the folder of your data set.",
        "no masks": "No folder masks/ in photos. Expected images/ with the photos and masks/ with masks",
        "a photo without mask": "error: images/d3.jpg: photo without mask: no masks/d3.*",
    }
    assert expected[fault] in err


def discs(root: Path, count: int = 8) -> Path:
    import cv2
    import numpy as np

    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros((64, 64), np.uint8)
        cv2.circle(mask, (20 + 3 * i, 32), 12 + i, 255, -1)
        cv2.imwrite(str(root / "masks" / f"d{i}.png"), mask)
        cv2.imwrite(str(root / "images" / f"d{i}.jpg"), np.dstack([mask // 2 + 60, mask // 3 + 9 * i, 200 - mask // 2]))
    return root


SMALL = (
    "data=folder",
    "data.root=photos",
    "data.image_size=64",
    "backbone=resnet50",
    "backbone.weights=none",
    "taps.low=layer1.0.act2",
    "taps.high=layer1.2.act2",
    "decoder.channels=8",
    "freeze=none",
    "freeze.phases.all.epochs=1",
    "train.workers=0",
    "checkpoint.minutes=1",
)


@pytest.mark.parametrize(
    "value", ["Müller.jpg", "a (1).jpg", "it's (1)", "my photos/x", "C:\\x\\ü", "$HOME/é", "a=b", "plain"]
)
def test_paths_of_all_kinds_are_values(value: str) -> None:
    assert OverridesParser.create().parse_override(quoted(f"input={value}")).value() == value


def test_paths_in_a_list_are_values() -> None:
    parsed = OverridesParser.create().parse_override(quoted("checkpoint=[ä.pt,b (1).pt,c.pt]"))
    assert parsed.value() == ["ä.pt", "b (1).pt", "c.pt"]


@pytest.mark.parametrize("argument", ["a=[a,b]", "a={b: 1}", "a='ü'", 'a="ü"', "a=1,2", "~a", "a=null", "a=1e-3", "a="])
def test_values_that_mean_more_stay_as_they_are(argument: str) -> None:
    assert quoted(argument) == argument


PHOTOS = ("data=folder", "data.root=photos", "train.workers=0")


@pytest.mark.trains
def test_train_evaluate_resume_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training, of a whole ResNet50, in a process of its own; what is done with it then in this one."""
    monkeypatch.chdir(tmp_path)
    discs(tmp_path / "photos")
    done = run("train", *SMALL, "run_dir=first", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "phase 1/1: all" in done.stdout
    assert "Best validation Dice" in done.stdout
    assert main(["evaluate", "checkpoint=first/checkpoints/best.pt", *PHOTOS]) == 0
    assert list(tmp_path.glob("runs/*_evaluate/evaluation.json"))
    assert "mean over images, and pooled (micro-averaged over all pixels)" in capsys.readouterr().out
    assert "train.batch_size=2: a resumed run keeps its settings" in message(
        capsys, "train", f"resume={tmp_path}/first", "train.batch_size=2"
    )
    assert main(["train", "resume=first", "train.workers=1"]) == 0


@pytest.mark.trains
@pytest.mark.usefixtures("quick")
def test_a_sweep_and_a_config_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    discs(tmp_path / "photos")
    (tmp_path / "mine" / "augment").mkdir(parents=True)
    (tmp_path / "mine" / "augment" / "mirror.yaml").write_text("transforms: {HorizontalFlip: {p: 0.5}}\n")
    assert main(["train", "--config-dir", "mine", "-m", *SMALL, "augment=mirror", "seed=0,1", "run_dir=sweep"]) == 0
    assert (tmp_path / "sweep" / "0" / "summary.json").is_file()
    assert '<a href="1/report.html">1</a>' in (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    assert "Wrote sweep/report.html." in capsys.readouterr().out
    assert "seed: 1" in (tmp_path / "sweep" / "1" / "config.yaml").read_text(encoding="utf-8")
    assert "HorizontalFlip" in (tmp_path / "sweep" / "1" / "config.yaml").read_text(encoding="utf-8")


STEADY = ("optimizer.schedule=constant", "optimizer.warmup=0")  # a longer phase has then the same rates at the start
PHASES = (
    "~freeze.phases.all",
    "+freeze.phases.one={backbone: all, epochs: 2, lr: 1e-3}",
    "+freeze.phases.two={backbone: all, epochs: 1, lr: 1e-3}",
)
TRAINING = (*SMALL[:9], *SMALL[10:], "train.batch_size=2", *STEADY, *PHASES)


@pytest.fixture(scope="module")
def quick(network_of: Callable[[str], nn.Module]) -> Iterator[None]:
    """Leave out what takes longer than these trainings: building a whole ResNet50, estimating what a phase costs."""
    cost = StepCost(flops=0, activations=0, gradients=0, optimizer_tensors={}, weights=0, backward_stops="conv1")
    network_of("resnet50")  # kept from here on
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], build=lambda: network_of("resnet50")))
        patch.setattr(plan, "estimate", lambda *_: cost)
        yield


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


@pytest.mark.trains
@pytest.mark.parametrize(
    "change", ["freeze.phases.two.epochs=2", "+freeze.phases.late={backbone: all, epochs: 1, lr: 1e-3}"]
)
def test_a_finished_run_can_become_longer(first: Path, tmp_path: Path, change: str) -> None:
    """It ends as if it had been planned so: with a rate that does not depend on the length."""
    assert main(["train", *TRAINING, change, f"run_dir={tmp_path / 'planned'}"]) == 0
    assert main(["train", f"resume={first}", change]) == 0
    assert_same_end(first, tmp_path / "planned")


KEEPS = (
    "a resumed run keeps its settings, so that it ends as if it had not been interrupted. Only these may change: "
    "train.device, train.workers, checkpoint.minutes; the epochs, steps, patience of phases that are not finished, such as "
    "freeze.phases.all.epochs; and phases may be added: +freeze.phases.NAME={backbone: …, epochs: …, lr: …}."
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
        (("freeze.phases.tow.epochs=3",), "freeze.phases.tow.epochs: the run has no phase tow; it has one, two."),
        (
            ("freeze.phases.one.epochs=3",),
            "The finished phases (one) cannot change, and new ones come last: "
            "+freeze.phases.NAME={backbone: …, epochs: …, lr: …}.",
        ),
        (
            ("freeze.phases.two.epochs=null", "freeze.phases.two.steps=2"),
            "freeze.phases.two: the run has already made 3 steps of this phase; got a length of 2. Set 3 steps or more.",
        ),
        (
            ("freeze.phases.two.epochs=0",),
            "One setting is wrong:\n  freeze.phases.two.epochs: got 0; expected: greater than or equal to 1.",
        ),
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
    assert text.startswith(f"segtune train: Cannot write {last}: ")
    assert "File too large" in text.splitlines()[0]
    assert text.splitlines()[1] == (
        "The old file is untouched. If the disk is full, free some space; a run can then be resumed."
    )
    assert Checkpoint.load(last).state["epoch"] == 1
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
        f"segtune train: Cannot read the checkpoint {last}: it is damaged, or was written by another program (UnpicklingError).\n"
        "Expected a file that `segtune train` wrote, such as RUN/checkpoints/best.pt."
    )
    assert not target.exists()
    assert everything_in(first) == before
    torch.load(last, weights_only=False)
    assert target.exists()  # the payload was a real one


def test_a_misspelt_phase_is_not_a_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, "train", "freeze.phases.haed.epochs=2") == (
        "segtune train: freeze.phases.haed: there is no such phase; expected head, all. Did you mean head? "
        "To add one: +freeze.phases.haed={backbone: …, epochs: …, lr: …}."
    )


def test_resume_in_settings_of_ones_own_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nresume: runs/OLD\n")
    arguments = ("train", "--config-dir", str(tmp_path), "experiment=mine")
    assert message(capsys, *arguments) == (
        "segtune train: resume must be given on the command line: python -m segtune train resume=RUN"
    )
    assert message(capsys, "train", "++resume=nowhere").startswith("segtune train: resume=nowhere: no run found")


def test_a_sweep_under_torchrun_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert message(capsys, "train", "-m", "seed=0,1") == (
        "segtune train: A sweep (-m) is not supported under torchrun. Start its runs one after the other."
    )


def test_flags_may_stand_between_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "seed=3", "--cfg", "job", "optimizer=sgd", "-p", "optimizer"]) == 0
    assert "name: sgd" in capsys.readouterr().out


def test_a_word_that_sets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, "train", "foo") == (
        "segtune train: got foo; expected setting=value. `python -m segtune train --help` lists all."
    )
