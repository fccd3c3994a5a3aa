"""Paths that a user names."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segtune.errors import UserError
from segtune.runtime.paths import (
    expanded,
    find_checkpoint,
    find_data_folder,
    find_folder,
    find_model_file,
    new_folder,
    refuse_data_folder,
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "best.pt").touch()
    return tmp_path


def test_what_is_there_is_found(here: Path) -> None:
    assert find_folder("folder", "~/there") == here / "there"
    assert find_data_folder("there") == Path("there")
    assert find_checkpoint("~/there/best.pt") == here / "there" / "best.pt"


def test_what_is_not_there_is_named(here: Path) -> None:
    for find, expected in (
        (lambda: find_folder("folder", "no"), f"folder=no is not a folder (current folder: {here})."),
        (
            lambda: find_data_folder("there/best.pt"),
            f"data.root=there/best.pt is not a folder (current folder: {here}). Set it to the folder of your data set.",
        ),
        (
            lambda: find_data_folder(""),
            "data.root is empty. Set it to a path; the current folder is a dot: data.root=.",
        ),
        (
            lambda: find_data_folder("~no_such_user_1/photos"),
            "data.root=~no_such_user_1/photos: there is no home folder of ~no_such_user_1.",
        ),
        (lambda: find_checkpoint("no.pt"), "No checkpoint at no.pt. Expected a file such as RUN/checkpoints/best.pt."),
        (lambda: find_checkpoint("there/last.pt"), "No checkpoint at there/last.pt. There are: there/best.pt."),
    ):
        with pytest.raises(UserError) as caught:
            find()
        assert str(caught.value) == expected


def test_a_new_folder_is_nobody_elses(tmp_path: Path) -> None:
    """Of 8 threads that want the same name at once each gets one of its own."""
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(new_folder, [tmp_path / "runs" / "now.d"] * 8))
    names = ["now.d", *(f"now.d_{number}" for number in range(2, 9))]
    assert sorted(folder.name for folder in folders) == names
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names


def test_a_folder_that_cannot_be_created_is_explained(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(UserError) as error:
        new_folder(tmp_path / "runs" / "now")
    assert str(error.value) == (
        f"Cannot create the folder {tmp_path / 'runs' / 'now'}: a part of the path is a file, not a folder "
        "(File exists): move it away, or choose another path."
    )


@pytest.mark.parametrize(
    "run_dir", ["there", "there/", "~/there/images", "there/masks/run", "linked", "linked/images/run"]
)
def test_results_are_not_written_among_the_data(here: Path, run_dir: str) -> None:
    (here / "linked").symlink_to("there")
    folder = Path(run_dir).expanduser()
    with pytest.raises(UserError) as caught:
        refuse_data_folder(folder, "~/there")
    assert str(caught.value) == (
        f"run_dir={folder} is inside the data set, which is never changed. Set another run_dir."
    )
    with pytest.raises(UserError, match=r"^cache\.folder=.* is inside the data set, .* Set another cache\.folder\.$"):
        refuse_data_folder(folder, "~/there", "cache.folder")
    refuse_data_folder(Path("there/runs"), "there")
    refuse_data_folder(Path("images"), "there")


def test_model_files_and_run_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "RUN" / "checkpoints" / "best.pt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert find_model_file("backbone.weights", weights, "none") == weights
    assert find_model_file("backbone.weights", tmp_path / "RUN", "none") == weights
    assert capsys.readouterr().err == f"backbone.weights={tmp_path / 'RUN'} is a folder: taking {weights}.\n"
    with pytest.raises(UserError, match=r"^nothing there$"):
        find_model_file("backbone.weights", "a" * 5000, "nothing there")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"Name one of the files below it: .*/hub/model\.safetensors\.$"):
        find_model_file("backbone.weights", tmp_path / "hub", "")


def test_a_home_folder_of_nobody() -> None:
    path = "~no_such_user_1/x"
    none = "there is no home folder of ~no_such_user_1."
    for call, begin in (
        (lambda: expanded(path), path),
        (lambda: expanded(path, "run_dir"), f"run_dir={path}"),
        (lambda: find_checkpoint(path), f"checkpoint={path}"),
        (lambda: find_model_file("backbone.weights", path, ""), f"backbone.weights={path}"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value) == f"{begin}: {none}"
    assert expanded("~") == Path.home()
