"""CSV files of pairs, as people write them."""

from pathlib import Path

import pytest

from segtune.config.data_settings import DataSettings
from segtune.data.sources.base import Found
from segtune.data.sources.folder import find_pairs
from segtune.errors import UserError
from tests.data.layouts.small_set import put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in "abc":
        put(tmp_path, f"x/{name}.jpg")
        put(tmp_path, f"y/{name}_z.png")
    return tmp_path


def found(root: Path, text: str | bytes, **settings: object) -> Found:
    put(root, "pairs.csv", text)
    return find_pairs(DataSettings("folder", str(root), pairs="pairs.csv", **settings))  # type: ignore[arg-type]


def refusal(root: Path, text: str | bytes, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        found(root, text, **settings)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "image,mask\nx/a.jpg,y/a_z.png\nx/b.jpg,y/b_z.png\n",
        '\ufeffMask Path;"Image Path"\r\ny\\a_z.png;x\\a.jpg\r\n\r\n y\\b_z.png ;x\\b.jpg',
        "x/a.jpg\ty/a_z.png\nx/b.jpg\ty/b_z.png",
        "file,ground_truth,notes\n./x/a.jpg,../{root}/y/a_z.png,\nx/b.jpg,y/b_z.png,new\n",
        "img,label\na.jpg,a_z.png\nb.jpg,b_z.png\n".encode("utf-16"),
    ],
)
def test_pairs_are_read_however_they_are_written(root: Path, text: str | bytes) -> None:
    text = text.replace("{root}", root.name) if isinstance(text, str) else text
    result = found(root, text, images="x", masks="y")
    assert [(pair.name, pair.photo.resolve(), pair.mask.resolve()) for pair in result.pairs] == [
        (name, root / f"x/{name}.jpg", root / f"y/{name}_z.png") for name in "ab"
    ]
    assert (result.problems, result.splits, result.settings) == ([], None, {"pairs": str(root / "pairs.csv")})


def test_splits_and_what_has_none(root: Path) -> None:
    text = "image,mask,Set\nx/a.jpg,y/a_z.png,Train\nx/b.jpg,y/b_z.png,validation\nx/c.jpg,y/c_z.png,\n"
    result = found(root, text)
    assert (result.splits, result.split_by) == ({"train": ["a"], "val": ["b"]}, "column Set")
    assert result.layout == "pairs.csv (columns image, mask, Set)"
    assert [pair.name for pair in result.pairs] == ["a", "b"]
    assert [str(problem) for problem in result.problems] == ["warning: pairs.csv: pairs without a split, not used: c"]


def test_groups_are_a_column_where_images_are_still_to_be_divided(root: Path) -> None:
    rows = [f"x/{name}.jpg,y/{name}_z.png,{who}" for name, who in zip("abc", ("p1", "p1", ""), strict=True)]
    text = "\n".join(["image,mask,Patient ID", *rows])
    result = found(root, text)
    assert (result.groups, result.settings["group"]) == ({"a": "p1", "b": "p1", "c": "c"}, "Patient ID")
    assert found(root, text, group="^[a-z]").groups is None  # a pattern of names
    assert found(root, text.replace("Patient ID", "camera"), group="camera").groups == result.groups
    split = "\n".join(f"{line},{'split' if not number else 'train'}" for number, line in enumerate(text.splitlines()))
    assert found(root, split).groups is None
    assert found(root, split, folds=2).groups == result.groups
    two = text.replace("Patient ID", "patient,video").replace(",p1", ",p1,v").replace("_z.png,\n", "_z.png,,\n")
    assert refusal(root, two).endswith("patient and video might be the column group; set data.group=patient.")


def test_names_are_unique_and_keep_their_folders(root: Path) -> None:
    put(root, "x/a.png")
    put(root, "x/p/a.jpg")
    rows = ["x/a.jpg,y/a_z.png", "x/a.png,y/b_z.png", "x/p/a.jpg,y/c_z.png"]
    assert [pair.name for pair in found(root, "\n".join(["image,mask", *rows])).pairs] == ["a.jpg", "a.png", "p/a"]


def test_problems_name_their_line(root: Path) -> None:
    rows = ["x/a.jpg,y/a_z.png,train", "x/q.jpg,y/a_z.png,train", "x/b.jpg,,train", "x/b.jpg,y/q.png,train"]
    rows += ["x/a.jpg,y/a_z.png,train", "x/a.jpg,y/b_z.png,train", "x/c.jpg,y/c_z.png,maybe", ",,"]
    text = "\n".join(["image,mask,split", *rows])
    skip = "data.missing=skip leaves it out"
    assert [str(problem) for problem in found(root, text).problems] == [
        f"error: pairs.csv, line 3: no such image: got 'x/q.jpg'; it is not in {root}",
        f"error: pairs.csv, line 4: photo without mask: it names none; {skip}",
        f"error: pairs.csv, line 5: photo without mask: got 'y/q.png'; it is not in {root}; {skip}",
        "warning: pairs.csv, line 6: listed twice: 'x/a.jpg' is also in line 2",
        "error: pairs.csv, line 7: listed twice: 'x/a.jpg' is also in line 2",
        "error: pairs.csv, line 8: unknown split: got 'maybe'; expected train, val or test",
    ]
    left = found(root, "image,mask\nx/a.jpg,y/a_z.png\nx/b.jpg,\n", missing="skip")
    assert (left.layout, left.skipped) == ("pairs.csv (columns image, mask), 1 photo without mask left out", ["b"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column image and none mask; got an empty file. Expected a header with image and mask"),
        ("image,x\n1,2\n", "no column mask; got image, x. Expected"),
        ("photo,file,mask\n", "photo and file might be the column image; rename that to image."),
        ("image,mask\n", "names no image and mask that are there."),
        (
            "image,mask\nq.jpg,r.png\n",
            "that are there.\nerror: pairs.csv, line 2: no such image: got 'q.jpg'; it is not in",
        ),
        ("image,mask\nä,b\n".encode("latin-1"), "pairs.csv cannot be read: it is not UTF-8."),
    ],
)
def test_tables_that_list_no_pairs(root: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(root, text)


def test_the_file_is_found_here_or_in_the_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "here/pairs.csv", "image,mask\nx/c.jpg,y/c_z.png\n")
    assert [pair.name for pair in found(root, "image,mask\nx/a.jpg,y/a_z.png\n").pairs] == ["a"]
    monkeypatch.chdir(root / "here")
    assert [pair.name for pair in found(root, "image,mask\nx/a.jpg,y/a_z.png\n").pairs] == ["c"]
