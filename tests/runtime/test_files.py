"""Files written whole or not at all, and CSV; `test_checkpoint` has a disk that is full."""

import csv
import os
from pathlib import Path

import pytest

from segtune.runtime.files import csv_text, read_rows, write_atomically, write_csv


def test_a_file_keeps_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a.json", b"{}")
    finally:
        os.umask(old)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


FORMULAS = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "'=1",
    "''@x",
    '=HYPERLINK("http://x","y")',
    "=a,b",
)
HARMLESS = ("a", "'quoted'", "a=1", "1-2", " x", "", "é\rü", 'a "b", c')


def test_text_is_no_formula_to_a_spreadsheet_and_comes_back(tmp_path: Path) -> None:
    rows = [{"name": text, "layers": text or "x", "=head": -0.5, "n": -3} for text in (*FORMULAS, *HARMLESS)]
    write_csv(tmp_path / "a.csv", rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        header, *cells = csv.reader(file)
    assert header == ["name", "layers", "'=head", "n"]
    assert [row[0] for row in cells] == [*(f"'{text}" for text in FORMULAS), *HARMLESS]
    assert {tuple(row[2:]) for row in cells} == {("-0.5", "-3")}  # negative numbers are no formulas
    assert read_rows(tmp_path / "a.csv") == rows


def test_csv_has_one_line_a_row() -> None:
    assert csv_text([{"epoch": 1, "loss": -0.5}, {"epoch": 2, "loss": 0.25}]) == "epoch,loss\n1,-0.5\n2,0.25\n"


@pytest.mark.parametrize("text", ["a,b\n1\n", "a,b\n1,2,3\n"])
def test_rows_of_another_length_are_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(csv.Error, match=r"a\.csv: a row has more or fewer cells than the header"):
        read_rows(tmp_path / "a.csv")
