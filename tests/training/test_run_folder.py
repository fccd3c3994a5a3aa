import json
import math
import shutil
from pathlib import Path

import pytest
import yaml

from segtune.errors import FailedError
from segtune.runtime.files import read_rows, write_csv, write_json
from segtune.training.run_folder import TRAINED, check_run_folder, read_command, write_settings


def test_a_score_that_is_not_defined_is_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"dice_mean": float("nan"), "images": 3})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=str) == {"dice_mean": None, "images": 3}


def test_rows_are_written_in_order(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "a.csv").read_text() == "epoch,loss\n1,0.5\n2,0.25\n"


def test_the_command_stands_above_the_settings_and_a_resume_that_changes_some_follows(tmp_path: Path) -> None:
    for command in ("segtune train seed=1", "", "segtune train resume=x epochs=2"):
        write_settings(tmp_path, {"seed": 1}, command)
    assert read_command(tmp_path) == "segtune train seed=1 && segtune train resume=x epochs=2"
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"seed": 1}


def test_a_command_of_several_lines_is_not_kept(tmp_path: Path) -> None:
    write_settings(tmp_path, {"seed": 1}, "segtune train run_dir='a\nb'")
    assert (tmp_path / "config.yaml").read_text() == "seed: 1\n"


def test_numbers_come_back_and_names_stay_text(tmp_path: Path) -> None:
    row = {"name": "01", "phase": "1", "epoch": 3, "loss": math.inf, "dice": 0.25, "rate": 1e-05, "text": "e.x"}
    write_csv(tmp_path / "rows.csv", [row])
    assert read_rows(tmp_path / "rows.csv") == [row]


def test_json_has_no_nan_and_no_infinity(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": (1.5, "nan")})
    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert found == {"a": None, "b": [None, {"c": None}], "d": [1.5, "nan"]}


def test_a_folder_that_was_deleted_in_mid_run_is_said(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_settings(run, {"seed": 1})
    check_run_folder(run)
    with pytest.raises(FailedError) as error:
        check_run_folder(run, TRAINED)
    assert str(error.value) == (
        f"The run's folder {run} was deleted or moved while the run wrote to it: metrics.csv, summary.json, "
        "checkpoints/best.pt, checkpoints/last.pt are missing, so the run cannot be used or resumed. Start it again."
    )
    shutil.rmtree(run)
    with pytest.raises(FailedError, match=r"wrote to it: config\.yaml is missing, so the run cannot be used"):
        check_run_folder(run)
