"""The example of CONTRIBUTING.md, followed to the letter: a copy of the package gets a decoder and trains it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
GUIDE = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLE = GUIDE.partition("## Example: a decoder\n")[2].partition("\n## ")[0]
STEP = re.compile(r"(?P<text>(?:[^\n]+\n)+)\n```(?P<language>\w+)\n(?P<block>.*?)^```$", re.MULTILINE | re.DOTALL)

#: One process, as PyTorch takes seconds to import: the example's test, then its command on few images.
RUN = """
import sys
import pytest
from segtune.__main__ import main
from segtune.data.sources import portraits
portraits.SPLITS = {"train": 2, "val": 1, "test": 1}
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests"]) or main(sys.argv[1:]))
"""
SMALL = (
    "data.image_size=64 train.batch_size=2 train.samples=1 train.device=cpu train.workers=0 train.precision=fp32 "
    "backbone.weights=none freeze=none freeze.phases.all.epochs=null freeze.phases.all.steps=1 run_dir=run"
)


def apply(folder: Path, text: str, block: str) -> None:
    """Do in a copy what a step says: write a block into new files, behind a line or in a line's place."""
    if new := re.search(r"New files?\s(`.+`):$", text, re.DOTALL):
        for name in re.findall(r"`([^`]+)`", new[1]):
            path = folder / name
            assert not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block, encoding="utf-8")
        return
    step = re.search(r"In `(.+)`, (after the line|in place of the line that begins with) `(.+)`:$", text)
    assert step, f"no step: {text}"
    path, replaces = folder / step[1], step[2].startswith("in place")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (place,) = (i for i, line in enumerate(lines) if (line.startswith(step[3]) if replaces else line == f"{step[3]}\n"))
    lines[place : place + 1] = [block] if replaces else [lines[place], block]
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what the example touches, with all its steps done."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("segtune", "conf"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    steps = [step for step in STEP.finditer(EXAMPLE) if step["language"] != "sh"]
    assert len(steps) == EXAMPLE.count("```") // 2 - 1
    for step in steps:
        apply(folder, step["text"].strip(), step["block"])
    return folder


def test_the_example_is_formatted_and_linted(copy: Path) -> None:
    for check in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        files = ["segtune/config/model_settings.py", "segtune/models/decoders", "tests"]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, *files], cwd=copy, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_example_trains(copy: Path) -> None:
    (command,) = (step["block"].strip() for step in STEP.finditer(EXAMPLE) if step["language"] == "sh")
    words = command.removeprefix("python -m segtune ").split() + SMALL.split()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "name: lraspp" in (copy / "run" / "config.yaml").read_text(encoding="utf-8")
    assert (copy / "run" / "summary.json").is_file()


def test_a_wrong_setting_of_the_example_is_named(copy: Path) -> None:
    words = ["train", "decoder=lraspp", "decoder.channels=0"]
    env = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "segtune", *words]
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "  decoder.channels: " in done.stderr
