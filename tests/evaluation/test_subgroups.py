"""Groups of images: sizes by hand, tables good and bad."""

import os
from pathlib import Path

import numpy as np
import pytest

from segtune.errors import UserError
from segtune.evaluation.subgroups import groups_by_size, groups_by_tone, groups_of_table, order


def test_thirds_by_size() -> None:
    labels = groups_by_size(np.array([0.5, 0.0, 0.01, 0.02, 0.2, 0.3, 0.4]))
    assert [label.partition(":")[0] for label in labels] == ["large", "", "small", "small", "medium", "medium", "large"]
    assert order(labels) == ["small: up to 14.0%", "medium: to 33.3%", "large: over 33.3%"]


def test_too_few_images_have_no_thirds() -> None:
    assert groups_by_size(np.array([0.1, 0.2, 0.0])) == ["", "", ""]


def test_tones_are_ordered_from_the_lightest() -> None:
    labels = groups_by_tone(np.array([-40.0, 60.0, 20.0, np.nan, 45.0]))
    assert labels == ["dark", "very light", "tan", "", "light"]
    assert order(labels) == ["very light", "light", "tan", "dark"]


NAMES = ["a", "b", "c", "ü d"]


def table(folder: Path, text: str, names: list[str] | None = None) -> tuple[dict[str, list[str]], list[str]]:
    path, said = folder / "groups.csv", list[str]()
    path.write_text(text, encoding="utf-8")
    return groups_of_table(path, names or NAMES, said.append), said


def test_columns_become_groups(tmp_path: Path) -> None:
    found, said = table(tmp_path, "file,camera,place\na.jpg,x,in\nb,y,out\nc.png,x,\nother,z,in\nu\u0308 d.jpg,y,in\n")
    assert found == {"camera": ["x", "y", "x", "y"], "place": ["in", "out", "", "in"]}
    assert said == []


def test_neutralised_formulas_are_read_as_they_were(tmp_path: Path) -> None:
    """`per_image.csv` of another evaluation can be the table."""
    found, said = table(tmp_path, "name,group\n'=a,'-1\n-b,'@x\n'c',y\n", ["=a", "-b", "'c'"])
    assert found == {"group": ["-1", "@x", "y"]}
    assert said == []


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_missing_images(tmp_path: Path, separator: str) -> None:
    found, said = table(tmp_path, "\ufeff" + "name,camera\na,x\n".replace(",", separator))
    assert found == {"camera": ["x", "", "", ""]}
    assert said == [f"{tmp_path}/groups.csv lacks 3 of 4 images, which are in no group: b, c, ü d."]


def test_many_numbers_become_quarters(tmp_path: Path) -> None:
    names = [f"p{i}" for i in range(16)]
    found, _ = table(tmp_path, "name,age\n" + "".join(f"p{i},{i}\n" for i in range(16)), names)
    assert [found["age"].count(label) for label in order(found["age"])] == [4, 4, 4, 4]
    assert order(found["age"])[0] == "0 to 3.75"


def test_large_numbers_keep_their_quarters(tmp_path: Path) -> None:
    names = [f"p{i}" for i in range(20)]
    found, _ = table(tmp_path, "name,time\n" + "".join(f"p{i},{1_700_000_000 + i}\n" for i in range(20)), names)
    assert [found["time"].count(label) for label in order(found["time"])] == [5, 5, 5, 5]


def test_a_column_of_many_texts_is_left_out(tmp_path: Path) -> None:
    names = [f"p{i}" for i in range(60)]
    found, said = table(tmp_path, "name,who,side\n" + "".join(f"p{i},w{i},{i % 2}\n" for i in range(60)), names)
    assert list(found) == ["side"]
    assert said == [f"{tmp_path}/groups.csv: who has 60 distinct values, too many for groups; it is ignored."]


def test_quoted_values_other_images_and_equal_lines(tmp_path: Path) -> None:
    text = 'name,"where, roughly"\n\na,"in\nside"\na.jpg,"in\nside"\nother/0.jpg,x\nthird/0.png,y\n'
    assert table(tmp_path, text, ["a"])[0] == {"where, roughly": ["in\nside"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got the header (none: the file is empty); expected the column of image names"),
        ("name\na\n", "got the header name; expected the column of image names and at least one other"),
        ("name,x,x\na,1,2\n", "got the header name, x, x; expected the column of image names"),
        ("name,x\na\n", "line 2: got 1 values; expected 2, as in the header."),
        ("name,x\na,1,2\n", "line 2: got 3 values; expected 2, as in the header."),
        ("name,x\na,1\na,2\n", "line 3: a is in the table twice, with different values. Keep one line."),
        ("name,x\n\n\na,1\na,2\n", "line 5: a is in the table twice"),
        ("name,skin tone\na,1\n", "the column name skin tone is reserved for segtune's own groups. Rename the column."),
        ("name,x\naa,1\n", "has none of the 4 images. Its first column, name, must name them"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        table(tmp_path, text)
    assert message in str(caught.value)
    assert "groups.csv" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.groups=.*gone.csv cannot be read: No such file"):
        groups_of_table(tmp_path / "gone.csv", NAMES, print)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match=r"data.groups=.*pipe.csv cannot be read: it is a named pipe, not a file\."):
        groups_of_table(tmp_path / "pipe.csv", NAMES, print)
    (tmp_path / "latin.csv").write_bytes("name,ort\na,Köln\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.csv cannot be read: it is not UTF-8."):
        groups_of_table(tmp_path / "latin.csv", NAMES, print)
