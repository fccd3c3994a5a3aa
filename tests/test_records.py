import json
from pathlib import Path

from segtune.records import write_csv, write_json


def test_a_score_that_is_not_defined_is_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"dice_mean": float("nan"), "images": 3})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=str) == {"dice_mean": None, "images": 3}


def test_rows_are_written_in_order(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "a.csv").read_text() == "epoch,loss\n1,0.5\n2,0.25\n"
