"""The command line as a user meets it: in processes of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import segtune
from segtune.__main__ import COMMANDS, main
from segtune.cli import main as cli
from segtune.errors import UserError
from tests.cli.conftest import SMALL, discs, message

REPOSITORY = Path(segtune.__file__).parent.parent


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "segtune", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


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
    calls = "".join(f"main({call}); " for call in (["--help"], ["train", "--help"], ["--version"]))
    code = f"import sys; from segtune.__main__ import main; {calls}print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert f"segtune {segtune.__version__}" in out
    assert "\n  train.batch_size: " in out
    assert not {"torch", "hydra", "omegaconf", "numpy", "pydantic", "rich"} & set(out.splitlines()[-1].split())


REQUIRED = {
    "evaluate": ("checkpoint=a.pt",),
    "predict": ("checkpoint=a.pt", "input=x"),
    "export": ("checkpoint=a.pt",),
    "report": ("folder=x",),
}
WRONG = {"export": "format=abc", "report": "output=[1]", "cache": "clear=maybe"}
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


@pytest.mark.slow
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
            "segtune train: One setting is wrong:\n  train.batch_size: got 'four'; expected: a valid integer, or "
            "'auto'.",
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


PHOTOS = ("data=folder", "data.root=photos", "train.workers=0")


@pytest.mark.slow
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
    assert "The run is in first" in done.stdout
    assert main(["evaluate", "checkpoint=first/checkpoints/best.pt", *PHOTOS]) == 0
    assert list(tmp_path.glob("runs/*_evaluate/evaluation.json"))
    assert "mean over images, and pooled (micro-averaged over all pixels)" in capsys.readouterr().out
    assert "train.batch_size=2: a resumed run keeps its settings" in message(
        capsys, "train", f"resume={tmp_path}/first", "train.batch_size=2"
    )
    assert main(["train", "resume=first", "train.workers=1"]) == 0


@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help"), ("train", "freeze=nope")])
def test_a_terminal_that_knows_ascii_only_is_no_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(*arguments, cwd=tmp_path, **ascii_only)
    shown = done.stdout + done.stderr
    assert "Traceback" not in shown
    assert done.returncode == (2 if "freeze=nope" in arguments else 0)
    assert shown.isascii()
    if "freeze=nope" not in arguments:
        assert "[setting=value ?]" in shown  # where there is an ellipsis


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "check", "probe", "plan", "taps", "export"])
def test_memory_that_runs_out_is_a_message_in_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    def full(*_: object, **more: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(cli, "compose", full)
    assert main([command]) == 1
    out, err = capsys.readouterr()
    assert "".join((out, err)).startswith(f"segtune {command}: Out of memory: CUDA error: out of memory. Try smaller")
