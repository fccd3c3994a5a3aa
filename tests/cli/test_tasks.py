"""What runs for each command before and after the command itself."""

import gc
import shutil
from pathlib import Path

import pytest

from segtune.__main__ import COMMANDS, main
from segtune.cli import tasks
from segtune.commands import probe as probe_command
from segtune.commands import report as report_command
from segtune.commands import train as train_command
from segtune.config.command_settings import ReportSettings
from segtune.errors import UserError
from segtune.models import build
from segtune.models.checkpoint import Checkpoint
from tests.cli.conftest import discs

LOOKS_FOR_DATA = [
    *(("no folder", command) for command in ("train", "check", "probe", "evaluate")),
    # check loads no weights, and evaluate needs the data settings in its checkpoint to say more
    *(("no masks", command) for command in ("train", "check", "probe")),
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
    for module in (build, probe_command):
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
        "no folder": f"data.root=photos is not a folder (current folder: {tmp_path}). "
        "Set it to the folder of your data set.",
        "no masks": "No folder masks/ in photos. Expected images/ with the photos and masks/ with masks",
        "a photo without mask": "error: images/d3.jpg: photo without mask: no masks/d3.*",
    }
    assert expected[fault] in err


def test_what_is_imported_is_not_looked_through_for_garbage_but_an_earlier_network_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    discs(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    frozen = []

    def train(*_: object) -> dict[str, float]:
        frozen.append(gc.get_freeze_count())
        return {"val_dice": 0.5}

    monkeypatch.setattr(train_command, "train", train)
    gc.unfreeze()
    try:
        for _ in range(2):  # two jobs of a sweep
            assert main(["train", "data=folder", "data.root=photos", "run_dir=run"]) == 0
    finally:
        gc.unfreeze()
    assert 0 < frozen[1] <= frozen[0]


def test_a_home_folder_of_nobody_is_told_for_the_built_in_data_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "data=portraits", "data.root=~no_such_user_1/photos"]) == 2
    message = "data.root=~no_such_user_1/photos: there is no home folder of ~no_such_user_1."
    assert message in capsys.readouterr().err


def test_a_cache_below_the_home_folder_of_nobody_is_told_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "cache.folder=~no_such_user_1/c"]) == 2
    message = "cache.folder=~no_such_user_1/c: there is no home folder of ~no_such_user_1."
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_command_has_a_task() -> None:
    assert set(tasks.TASKS) == set(COMMANDS)


def test_a_sweep_is_ranked_by_the_command_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked: list[str] = []
    monkeypatch.setattr(report_command, "report", lambda settings: ranked.append(settings.folder))
    tasks.rank(tmp_path)
    assert ranked == [str(tmp_path)]


@pytest.mark.parametrize(("error", "said"), [(UserError("no run"), ""), (KeyError("x"), "KeyError: 'x'\n")])
def test_a_failed_ranking_does_not_replace_the_sweeps_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    def fail(_: ReportSettings) -> None:
        raise error

    monkeypatch.setattr(report_command, "report", fail)
    tasks.rank(tmp_path)
    assert capsys.readouterr().err == (f"The runs could not be ranked: {said}" if said else "")
