"""Tables as spreadsheets write them; `data.groups` and `data.pairs` test the rest."""

from pathlib import Path

import pytest

from segtune.errors import UserError
from segtune.runtime.tables import read_table


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_and_their_lines(tmp_path: Path, encoding: str, separator: str, end: str) -> None:
    path = tmp_path / "t.csv"
    rows = ["a,b", "", '1, "x', 'y"', " , ", "'=é,2"]
    path.write_bytes(end.join(rows).replace(",", separator).replace(' "', '"').encode(encoding))
    assert read_table(path, "data.x") == [(1, ["a", "b"]), (4, ["1", "x\ny"]), (6, ["=é", "2"])]


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.x=.*gone\.csv cannot be read: No such file or directory\.$"):
        read_table(tmp_path / "gone.csv", "data.x")
    with pytest.raises(UserError, match=r"cannot be read: it is a folder, not a file\.$"):
        read_table(tmp_path, "data.x")
    (tmp_path / "empty.csv").touch()
    assert read_table(tmp_path / "empty.csv", "data.x") == []
