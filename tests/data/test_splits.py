"""Splitting pairs, by lists written by hand and by seed."""

import os
import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtune.config.data_settings import DataSettings
from segtune.data.sources.base import Pair, Problem
from segtune.data.splits import build_splits, find_splits, look_for_data, split_pairs
from segtune.errors import UserError


def pairs_named(*names: str) -> list[Pair]:
    return [Pair(name, Path(f"images/{name}.jpg"), Path(f"masks/{name}.png")) for name in names]


def error(*args: object, **named: object) -> str:
    with pytest.raises(UserError) as caught:
        split_pairs(*args, **named)  # type: ignore[arg-type]
    return str(caught.value)


def names(splits: dict[str, list[Pair]]) -> dict[str, list[str]]:
    return {split: [pair.name for pair in pairs] for split, pairs in splits.items()}


def test_lists_are_read_as_people_write_them(tmp_path: Path) -> None:
    pairs = pairs_named("a", "b", "c.jpg", "d")
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfb\r\n\r\n# held back: d\r\na.PNG\r\n")
    (tmp_path / "val.txt").write_text("  c.jpg  ")
    splits, problems = split_pairs(pairs, tmp_path, seed=0)
    assert names(splits) == {"train": ["a", "b"], "val": ["c.jpg"], "test": []}
    assert problems == [Problem("warning", str(tmp_path), "pairs in no list, not used: d")]


def test_problems_of_lists_name_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\n\nx.jpg\na\n")
    (tmp_path / "val.txt").write_text("b\na.png\n")
    (tmp_path / "test.txt").write_text("# nothing yet\n")
    splits, problems = split_pairs(pairs_named("a", "b"), tmp_path, seed=0)
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
    assert error(pairs_named("a"), tmp_path, seed=0) == (
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
            problems = split_pairs(pairs_named("a", "b", "c"), root, seed=0)[1]
            assert [(one.level, one.where) for one in problems] == [("error", f"{name}.txt")]
            assert problems[0].text.startswith(f"not a list: {what}")


def test_a_link_to_a_list_is_one(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("a")
    (tmp_path / "train.txt").symlink_to("all.txt")
    (tmp_path / "val.txt").write_text("b")
    splits, problems = split_pairs(pairs_named("a", "b"), tmp_path, seed=0)
    assert (names(splits), problems) == ({"train": ["a"], "val": ["b"], "test": []}, [])
    (tmp_path / "val.txt").unlink()
    (tmp_path / "train.txt").unlink()
    (tmp_path / "val.txt").mkdir()  # alone, it is no reason for a split by seed
    assert "has val.txt but not train.txt" in error(pairs_named("a", "b"), tmp_path, seed=0)


@pytest.mark.parametrize(("count", "sizes"), [(3, (1, 1, 1)), (10, (6, 2, 2)), (100, (70, 15, 15))])
def test_the_split_by_seed_has_exact_sizes_and_loses_nothing(
    tmp_path: Path, count: int, sizes: tuple[int, ...]
) -> None:
    pairs = pairs_named(*(f"p{i:03}" for i in range(count)))
    splits, problems = split_pairs(pairs, tmp_path, seed=3)
    assert tuple(len(splits[split]) for split in ("train", "val", "test")) == sizes
    assert sorted(chain(*splits.values()), key=lambda pair: pair.name) == pairs
    assert problems == []


def test_the_split_by_seed_follows_names_and_seed_alone(tmp_path: Path) -> None:
    pairs = pairs_named(*(f"p{i}" for i in range(60)))
    splits, _ = split_pairs(pairs, tmp_path, seed=0)
    assert split_pairs(pairs[::-1], tmp_path, seed=0)[0] == splits
    assert split_pairs(pairs, tmp_path, seed=1)[0] != splits


def test_added_images_move_few_and_none_between_val_and_test(tmp_path: Path) -> None:
    before, _ = split_pairs(pairs_named(*(f"p{i}" for i in range(100))), tmp_path, seed=0)
    after, _ = split_pairs(pairs_named(*(f"p{i}" for i in range(110))), tmp_path, seed=0)
    place = {pair.name: split for split, pairs in after.items() for pair in pairs}
    moves = [
        (split, place[pair.name]) for split, pairs in before.items() for pair in pairs if place[pair.name] != split
    ]
    assert len(moves) <= 4
    assert not {("val", "test"), ("test", "val")} & set(moves)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    assert error(pairs_named("a", "b"), tmp_path, seed=0) == (
        "Got 2 pairs; expected at least 3, to split into train, val and test."
    )
    assert error(pairs_named(*"abcd"), tmp_path, seed=0, fractions=(0.5, 0.5)) == (
        "data.val_share=0.5 and data.test_share=0.5 leave none of 4 pairs to train on."
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / f"images/p{number}.png")
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(tmp_path / f"masks/p{number}.png")
    return tmp_path


def test_found_splits_follow_the_settings(folder: Path) -> None:
    settings = DataSettings("folder", root=str(folder), val_share=0.3, test_share=0.2)
    splits, problems = find_splits(settings, 0)
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 5, "val": 3, "test": 2}
    limited, _ = find_splits(replace(settings, limit=2), 0)
    assert limited == splits | {"train": splits["train"][:2]}
    whole, _ = find_splits(settings, 0, whole=True)
    assert names(whole) == {"all": [f"p{number}" for number in range(10)]}
    assert problems == []


def test_all_errors_are_listed_and_found_before_the_files_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = DataSettings("folder", root=str(folder))
    look_for_data(settings, 0, 1)
    assert capsys.readouterr().out == f"Data: folder {folder}, 10 images (train 6, val 2, test 2)\n"
    look_for_data(settings, 0, 1, whole=True)
    assert capsys.readouterr().out == f"Data: folder {folder}, 10 images (all 10)\n"
    (folder / "masks/p3.png").write_bytes(b"")
    look_for_data(settings, 0, 1)  # it reads no file
    (folder / "images/p4.png").unlink()
    for call in (look_for_data, build_splits):
        with pytest.raises(UserError) as caught:
            call(settings, 0, 1)
        assert str(caught.value).splitlines() == [
            f"The data in {folder} cannot be used:",
            "error: masks/p4.png: mask without photo: no images/p4.*",
            "error: masks/p3.png: unreadable: the file is empty",
        ]


def test_warnings_are_printed_and_the_data_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("segtune.data.splits.say", said.append)
    (folder / "images/notes.txt").touch()
    splits = build_splits(DataSettings("folder", root=str(folder)), 0, 1)
    assert sum(map(len, splits.values())) == 10
    assert said == ["warning: images/: ignored: 1 that are not images (notes.txt)"]
