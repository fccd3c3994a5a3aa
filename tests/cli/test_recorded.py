"""Finding an earlier run by any of its names; `test_resume.py` and `test_repeat.py` read settings."""

from pathlib import Path

import pytest

from segtune.cli.recorded import from_folder_of_run, run_folder
from segtune.errors import UserError


@pytest.mark.parametrize("named", ["", "config.yaml", "checkpoints", "checkpoints/best.pt", "checkpoints/last.pt"])
def test_a_run_is_found_by_its_folder_and_its_files(tmp_path: Path, named: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.yaml", "checkpoints/best.pt", "checkpoints/last.pt"):
        (tmp_path / name).touch()
    assert run_folder(str(tmp_path / named), "repeat") == tmp_path
    if named == "checkpoints/best.pt":
        with pytest.raises(UserError, match=r"a run is resumed from its last\.pt"):
            run_folder(str(tmp_path / named))


def test_paths_are_those_of_where_the_run_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, began = tmp_path / "run", tmp_path / "began"
    (began / "photos").mkdir(parents=True)
    run.mkdir()
    assert from_folder_of_run("photos", run) == "photos"  # not known where it began
    (run / "data.json").write_text(f'{{"folder": "{began}"}}')
    assert from_folder_of_run("photos", run) == str(began / "photos")
    assert from_folder_of_run("gone", run) == "gone"
    assert from_folder_of_run(None, run) is None
    monkeypatch.chdir(began)
    assert from_folder_of_run("photos", run) == "photos"
