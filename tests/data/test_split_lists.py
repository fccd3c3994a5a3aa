"""Splitting pairs by lists written by hand."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from segtune.data.sources.base import Pair, Problem
from segtune.data.split_lists import find_lists, split_by_lists
from segtune.errors import UserError
from tests.data.test_partition import pairs_named


def error(pairs: Sequence[Pair], folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        split_by_lists(pairs, folder)
    return str(caught.value)


def names(splits: dict[str, list[Pair]]) -> dict[str, list[str]]:
    return {split: [pair.name for pair in pairs] for split, pairs in splits.items()}


def test_lists_are_read_as_people_write_them(tmp_path: Path) -> None:
    pairs = pairs_named("a", "b", "c.jpg", "d")
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfb\r\n\r\n# held back: d\r\na.PNG\r\n")
    (tmp_path / "val.txt").write_text("  c.jpg  ")
    splits, problems = split_by_lists(pairs, tmp_path)
    assert names(splits) == {"train": ["a", "b"], "val": ["c.jpg"], "test": []}
    assert problems == [Problem("warning", str(tmp_path), "pairs in no list, not used: d")]


def test_problems_of_lists_name_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\n\nx.jpg\na\n")
    (tmp_path / "val.txt").write_text("b\na.png\n")
    (tmp_path / "test.txt").write_text("# nothing yet\n")
    splits, problems = split_by_lists(pairs_named("a", "b"), tmp_path)
    assert names(splits) == {"train": ["a"], "val": ["b"], "test": []}
    assert [str(problem) for problem in problems] == [
        "error: train.txt, line 3: no such pair: 'x.jpg' has no photo with a mask",
        "warning: train.txt, line 4: listed twice: 'a' is also in train.txt, line 1",
        "error: val.txt, line 2: in two splits: 'a' is also in train.txt, line 1",
        "error: test.txt: empty list: it names no pair",
    ]


def test_half_a_set_of_lists_is_refused(tmp_path: Path) -> None:
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).touch()
    assert error(pairs_named("a"), tmp_path) == (
        f"{tmp_path} has train.txt, test.txt but not val.txt. Add train.txt and val.txt (test.txt is "
        "optional), or remove all lists for a split by seed."
    )


def test_lists_that_are_no_files_are_refused(tmp_path: Path) -> None:
    """And nothing waits for a pipe."""
    root = tmp_path / "root"
    for what, make in {
        "it is a folder": lambda path: path.mkdir(),
        "it is a named pipe": os.mkfifo,
        "it is a link to nothing": lambda path: path.symlink_to("gone.txt"),
        "it is a link that leads back to itself": lambda path: path.symlink_to(path),
        "it is a device": lambda path: path.symlink_to("/dev/zero"),
        "it holds zero bytes": lambda path: path.write_bytes("a\n".encode("utf-16-le")),
    }.items():
        for name in ("train", "val", "test"):
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            for split, entry in (("train", "a"), ("val", "b"), ("test", "c")):
                if split == name:
                    make(root / f"{split}.txt")
                else:
                    (root / f"{split}.txt").write_text(entry)
            problems = split_by_lists(pairs_named("a", "b", "c"), root)[1]
            assert [(one.level, one.where) for one in problems] == [("error", f"{name}.txt")]
            assert problems[0].text.startswith(f"not a list: {what}")


def test_a_link_to_a_list_is_one(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("a")
    (tmp_path / "train.txt").symlink_to("all.txt")
    (tmp_path / "val.txt").write_text("b")
    splits, problems = split_by_lists(pairs_named("a", "b"), tmp_path)
    assert (names(splits), problems) == ({"train": ["a"], "val": ["b"], "test": []}, [])
    (tmp_path / "val.txt").unlink()
    (tmp_path / "train.txt").unlink()
    (tmp_path / "val.txt").mkdir()  # alone, it is no reason for a split by seed
    assert "has val.txt but not train.txt" in error(pairs_named("a", "b"), tmp_path)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("images/b.jpg", "b"),
        (".\\images\\b.jpg", "b"),
        ("/home/me/set/images/b", "b"),
        ("images/p1/a.jpg", "p1/a"),
        ("p1/a", "p1/a"),
        ("images/b.jpg masks/b_mask.png", "b"),
        ("c d.jpg", "c d"),
        ("e.v2", "e.v2"),
    ],
)
def test_an_entry_may_be_a_path(tmp_path: Path, entry: str, name: str) -> None:
    (tmp_path / "train.txt").write_text(entry)
    (tmp_path / "val.txt").write_text("v")
    splits, problems = split_by_lists(pairs_named("b", "p1/a", "c d", "e.v2", "v"), tmp_path)
    assert names(splits)["train"] == [name]
    assert [problem.level for problem in problems] == ["warning"]  # of the pairs in no list


def test_images_that_are_left_out_may_be_listed(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\nimages/new.jpg\n")
    (tmp_path / "val.txt").write_text("b")
    splits, problems = split_by_lists(pairs_named("a", "b"), tmp_path, ["new"])
    assert (names(splits), problems) == ({"train": ["a"], "val": ["b"], "test": []}, [])


def test_where_lists_are(tmp_path: Path) -> None:
    assert find_lists(tmp_path, "set/images") is None
    places = ["set/ImageSets/Segmentation", "set", ""]  # the later ones come first
    for place in places:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "train.txt").touch()
        assert find_lists(tmp_path, "set/images") == tmp_path / place
    (tmp_path / "train.txt").unlink()
    assert find_lists(tmp_path, "{split}/images") is None
