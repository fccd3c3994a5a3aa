"""The command line as a user meets it: in processes of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import segtune
from segtune.__main__ import main

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


def test_the_console_script_is_the_module() -> None:
    import tomllib

    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"segtune": "segtune.__main__:main"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("trian",), "segtune: there is no command 'trian'. Did you mean train?"),
        (
            ("train", "backbone=xceptoin"),
            "segtune train: backbone=xceptoin: there is no such choice. Did you mean xception? "
            "Expected one of: resnet50, vgg16, xception; or a file of your own with --config-dir.",
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
            "segtune train: One setting is wrong:\n  train.batch_size: came 'four'; expected: a valid integer.",
        ),
        (
            ("train", "data=folder"),
            "segtune train: data.root is not set, and it has no default. Give data.root=…",
        ),
        (("train", "resume=nowhere"), "segtune train: resume=nowhere: there is no run here (no config.yaml)."),
        (("evaluate", "checkpoint=none.pt"), "segtune evaluate: No checkpoint at none.pt."),
        (("train", "train.device=cuda:77"), "segtune train: train.device=cuda:77 cannot be used here: "),
        (("train", "data=folder", "data.root=nowhere"), "segtune train: "),
    ],
)
def test_a_users_error_is_one_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
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
        (("+taps.middle=block5",), "segtune train: The decoder deeplabv3plus reads the taps low, high; came "),
    ],
)
def test_impossible_taps_are_explained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taps, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    discs(tmp_path / "photos")
    arguments = ("train", "data=folder", "data.root=photos", "backbone.weights=none", *taps)
    assert message(capsys, *arguments).startswith(expected)


def test_a_traceback_on_request(tmp_path: Path) -> None:
    done = run("train", "data=folder", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


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
    "train.precision=fp32",
    "checkpoint.minutes=1",
)


def test_train_evaluate_resume_from_the_command_line(tmp_path: Path) -> None:
    discs(tmp_path / "photos")
    done = run("train", *SMALL, "run_dir=first", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "phase 1/1: all" in done.stdout
    assert "Best validation Dice" in done.stdout
    done = run("evaluate", "checkpoint=first/checkpoints/best.pt", "data=folder", "data.root=photos", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/*_evaluate/evaluation.json"))
    assert "all pixels pooled" in done.stdout
    done = run("train", "resume=first", "train.batch_size=2", cwd=tmp_path)
    assert done.returncode == 2
    assert "train.batch_size=2: a resumed run keeps its settings" in done.stderr
    done = run("train", "resume=first", "train.workers=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_sweep_and_a_config_folder_of_ones_own(tmp_path: Path) -> None:
    discs(tmp_path / "photos")
    (tmp_path / "mine" / "augment").mkdir(parents=True)
    (tmp_path / "mine" / "augment" / "mirror.yaml").write_text("transforms: {HorizontalFlip: {p: 0.5}}\n")
    done = run(
        "train", "--config-dir", "mine", "-m", *SMALL, "augment=mirror", "seed=0,1", "run_dir=sweep", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep" / "0" / "summary.json").is_file()
    assert "seed: 1" in (tmp_path / "sweep" / "1" / "config.yaml").read_text()
    assert "HorizontalFlip" in (tmp_path / "sweep" / "1" / "config.yaml").read_text()
