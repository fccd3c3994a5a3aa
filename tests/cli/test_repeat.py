"""Repeating a run: which settings the new one has, and that it ends with the same bits."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml

from segtune.__main__ import main
from segtune.cli import tasks
from segtune.cli.compose import command_line, to_plain
from segtune.cli.help import config_folder
from segtune.commands import train as commands
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.models.checkpoint import Checkpoint
from segtune.training.run_folder import write_settings
from tests.cli.conftest import SMALL, discs, message

RUN = (*SMALL, "optimizer=sgd", "seed=7", "freeze.phases.all.lr=0.01", "restore.rename={encoder.: backbone.}")


def composed(*arguments: str) -> list[tuple[Settings, str]]:
    """Return what `train` gets for arguments: settings and command, of each job of a sweep."""
    found: list[tuple[Settings, str]] = []

    def train(config: Any) -> None:
        found.append((parse(Settings, to_plain(config, Settings)), command_line("train")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "train", train)
        assert main(["train", *arguments]) == 0
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` and what is recorded of the runs `old`, of RUN, and `other`, with other phases."""
    home = tmp_path_factory.mktemp("home")
    discs(home / "photos", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        layout = ("data.images=pictures", "data.masks=labels", "data.mask_name=*_m")  # as a run that has found it
        for name, more in (("old", ()), ("other", ("seed=8", "freeze=head_only")), ("found", ("seed=9", *layout))):
            arguments = [each for each in RUN if not (more and each.startswith(("freeze", "seed")))]
            ((settings, line),) = composed(*arguments, *more)
            (home / name).mkdir()
            write_settings(home / name, asdict(replace(settings, run_dir=name)), line)
            (home / name / "data.json").write_text(f'{{"folder": "{home}"}}')
    shutil.copytree(home / "old", home / "sweep" / "0")
    return home


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def settings_in(folder: Path) -> Settings:
    return replace(parse(Settings, yaml.safe_load((folder / "config.yaml").read_text())), run_dir=None)


def test_a_repeated_run_has_the_settings_of_the_first_and_those_given(home: Path) -> None:
    old = settings_in(home / "old")
    ((same, line),) = composed("repeat=old")
    assert replace(same, repeat=None) == old
    assert line == "python -m segtune train repeat=old"
    ((changed, line),) = composed(
        *("seed=1", "optimizer.momentum=0.5", "repeat=old/config.yaml", "+freeze.phases.late={epochs: 2, lr: 1e-3}"),
        *("epochs=3", "loss=bce", "data.root=elsewhere", "run_dir=new"),
    )
    assert (changed.seed, changed.optimizer.momentum, changed.loss.name) == (1, 0.5, "bce")
    assert [(each.epochs, each.lr) for each in changed.freeze.phases.values()] == [(3, 0.01), (2, 0.001)]
    assert (changed.data, changed.taps) == (replace(old.data, root="elsewhere"), old.taps)
    assert changed.run_dir == "new"
    ((found, _),) = composed("repeat=found")
    assert (found.data.images, found.data.mask_name) == ("pictures", "*_m")
    ((moved, _),) = composed("repeat=found", "data.root=elsewhere", "data.masks=m")
    assert (moved.data.images, moved.data.masks, moved.data.mask_name) == (None, "m", None)  # they are found there
    assert line.startswith("python -m segtune train seed=1 optimizer.momentum=0.5 repeat=old/config.yaml ")
    assert "_repeated" not in line
    jobs = composed("-m", "repeat=old,other", "backbone=vgg16", "run_dir=jobs")
    assert [(job.seed, list(job.freeze.phases)) for job, _ in jobs] == [(7, ["all"]), (8, ["head"])]
    taps = yaml.safe_load((config_folder() / "taps" / "vgg16_deeplabv3plus.yaml").read_text())
    assert all((job.backbone.name, job.taps) == ("vgg16", taps) for job, _ in jobs)  # they follow
    assert jobs[1][1].startswith("python -m segtune train repeat=other backbone=vgg16")
    assert "_repeated" not in jobs[1][1]


def test_what_is_relative_to_where_the_run_began_is_found_from_elsewhere(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "below").mkdir()
    (home / "none").mkdir()  # weights=none is no file
    monkeypatch.chdir(home / "below")
    ((settings, _),) = composed("repeat=../old")
    assert (settings.data.root, settings.backbone.weights) == (str(home / "photos"), "none")


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("train", ("repeat=old", "experiment=first"), "experiment=first sets what repeat sets too. Leave one of them"),
        ("train", ("repeat=photos",), "repeat=photos: no run found (no config.yaml). Expected the folder of a run"),
        ("train", ("repeat=sweep",), "repeat=sweep is a sweep. Name one of its runs, such as "),
        ("train", ("repeat=old", "optimizer.no=1"), "optimizer.no: there is no such setting."),
        ("plan", ("repeat=old",), "repeat is a setting of train, not of plan. Leave it out."),
        ("train", ("resume=old", "repeat=old"), "repeat=old: a resumed run keeps its settings"),
    ],
)
def test_what_cannot_be_repeated(
    capsys: pytest.CaptureFixture[str], command: str, arguments: tuple[str, ...], expected: str
) -> None:
    assert message(capsys, command, *arguments).startswith(f"segtune {command}: {expected}")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return Checkpoint.load(folder / "checkpoints" / "best.pt").model


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.usefixtures("quick")
def test_a_job_of_a_sweep_is_repeated_from_another_folder_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "_conclude", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    discs(tmp_path / "photos")
    assert main(["train", "-m", *SMALL, "train.batch_size=2", "seed=3,4", "run_dir=sweep"]) == 0
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    capsys.readouterr()
    assert main(["train", "repeat=../sweep/1", "run_dir=again"]) == 0
    job = tmp_path / "sweep" / "1"
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("warning: ") and str(job) in line] == []
    assert f"The weights of best.pt are those of {job}, bit for bit." in out
    torch.testing.assert_close(weights_of(Path("again")), weights_of(job), rtol=0, atol=0)
    assert (Path("again") / "metrics.csv").read_bytes() == (job / "metrics.csv").read_bytes()
    first, again = (settings_in(folder) for folder in (job, Path("again")))
    assert replace(again, data=first.data) == first
    assert Path(again.data.root).samefile(tmp_path / "photos")
    # With another photo and another version, of which it says so, and another rate.
    moved = shutil.copytree(tmp_path / "photos", tmp_path / "moved")
    name = next(iter(json.loads((job / "data.json").read_text())["train"]))
    photo = moved / "images" / f"{name}.jpg"
    cv2.imwrite(str(photo), 255 - cv2.imread(str(photo)))
    (job / "environment.json").write_text('{"torch": "1.0"}')
    assert main(["train", f"repeat={job}", f"data.root={moved}", "lr=1e-4", "run_dir=other"]) == 0
    out = capsys.readouterr().out
    assert f"warning: The data are not those of {job}:\n  " in out
    assert f"1 with another photo ({name})" in out
    assert f"warning: {job} was trained with torch 1.0, now {torch.__version__}. The results may differ." in out
    assert f"The weights of best.pt are not those of {job}." in out
