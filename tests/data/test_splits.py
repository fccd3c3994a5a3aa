"""Finding, splitting and checking a data set."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtune.config.data_settings import DataSettings
from segtune.data.sources.base import Pair
from segtune.data.splits import build_splits, find_splits, look_for_data
from segtune.errors import UserError


def names(splits: dict[str, list[Pair]]) -> dict[str, list[str]]:
    return {split: [pair.name for pair in pairs] for split, pairs in splits.items()}


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
    found = find_splits(settings, 0)
    assert {split: len(pairs) for split, pairs in found.splits.items()} == {"train": 5, "val": 3, "test": 2}
    limited = find_splits(replace(settings, limit=2), 0)
    assert limited.splits == found.splits | {"train": found.splits["train"][:2]}
    whole = find_splits(settings, 0, whole=True)
    assert names(whole.splits) == {"all": [f"p{number}" for number in range(10)]}
    assert (found.problems, found.words) == ([], "images/ with masks/; split by seed 0")
    assert found.settings == replace(settings, images="images", masks="masks", mask_name="*")


def test_one_fold_is_the_validation_and_the_test_stays(folder: Path) -> None:
    settings = DataSettings("folder", root=str(folder), test_share=0.2, folds=4)
    folds = [find_splits(replace(settings, fold=fold), 0) for fold in range(4)]
    test = names(find_splits(replace(settings, folds=None), 0).splits)["test"]
    assert {tuple(names(found.splits)["test"]) for found in folds} == {tuple(test)}
    vals = [name for found in folds for name in names(found.splits)["val"]]
    assert sorted([*vals, *test]) == [f"p{number}" for number in range(10)]
    for number, found in enumerate(folds):
        assert sorted(name for split in found.splits.values() for name in names({"": split})[""]) == sorted(
            [*vals, *test]
        )
        assert found.words == f"images/ with masks/; split by seed 0, fold {number} of 4"
    (folder / "train.txt").write_text("p0\np1\np2\n")
    (folder / "val.txt").write_text("p3\n")
    (folder / "test.txt").write_text("p4\n")
    listed = find_splits(settings, 0)
    assert names(listed.splits)["test"] == ["p4"]
    assert sorted(names(listed.splits)["train"] + names(listed.splits)["val"]) == ["p0", "p1", "p2", "p3"]
    assert listed.words.endswith("; split by lists, fold 0 of 4")


def test_groups_stay_in_one_split(folder: Path) -> None:
    for path in [*(folder / "images").iterdir(), *(folder / "masks").iterdir()]:
        path.rename(path.with_name(f"g{int(path.stem[1]) // 3}_{path.name}"))
    settings = DataSettings("folder", root=str(folder), group="g[0-9]")
    found = find_splits(settings, 0)
    assert found.words == "images/ with masks/; split by seed 0, with groups whole"
    groups = [{name[:2] for name in chosen} for chosen in names(found.splits).values()]
    assert sum(map(len, groups)) == 4
    (folder / "train.txt").write_text("g0_p0\ng1_p3\n")
    (folder / "val.txt").write_text("g0_p1\ng2_p6\n")
    assert [str(each) for each in find_splits(settings, 0).problems if each.level == "error"] == [
        "error: split by lists: group in several splits: 'g0' is in train and val; data.group keeps it in one"
    ]


def test_folders_may_lack_validation_or_training_images(folder: Path) -> None:
    for part in ("images", "masks"):
        for split in ("train", "test"):
            (folder / part / split).mkdir()
        for number in range(10):
            split = "test" if number > 7 else "train"
            (folder / part / f"p{number}.png").rename(folder / part / split / f"p{number}.png")
    settings = DataSettings("folder", root=str(folder), val_share=0.25)
    found = find_splits(settings, 3)
    assert {split: len(pairs) for split, pairs in found.splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert names(found.splits)["test"] == ["p8", "p9"]
    assert found.words.endswith("; split by folders, val by seed 3 from train")
    assert find_splits(replace(settings, val_share=0.5), 3).splits["test"] == found.splits["test"]
    (folder / "train.txt").touch()
    assert [str(each) for each in find_splits(settings, 3).problems] == [
        f"warning: {folder}: lists are not used: the split is fixed by folders"
    ]
    shutil.rmtree(folder / "images/train")
    shutil.rmtree(folder / "masks/train")
    with pytest.raises(UserError) as caught:
        find_splits(settings, 3)
    assert str(caught.value).startswith(
        f"The split is fixed by folders, but {folder} has no images to train on, only test. data.split=all evaluates"
    )
    assert names(find_splits(settings, 3, whole=True).splits) == {"all": ["p8", "p9"]}


def test_too_few_pairs_are_told_with_what_is_wrong_with_others(folder: Path) -> None:
    for number in range(2, 10):
        (folder / f"masks/p{number}.png").unlink()
    with pytest.raises(UserError) as caught:
        find_splits(DataSettings("folder", root=str(folder)), 0)
    first, second, *_ = str(caught.value).splitlines()
    assert first == "Got 2 pairs; expected at least 3, to split into train, val and test."
    assert second == "error: images/p2.png: photo without mask: no masks/p2.*; data.missing=skip leaves it out"


def test_all_errors_are_listed_and_found_before_the_files_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = DataSettings("folder", root=str(folder))
    found = look_for_data(settings, 0, 1)
    layout = f"Data: folder {folder}, 10 pairs: images/ with masks/"
    assert capsys.readouterr().out == f"{layout}; split by seed 0 (train 6, val 2, test 2)\n"
    assert found == replace(settings, images="images", masks="masks", mask_name="*")
    look_for_data(settings, 0, 1, whole=True)
    assert capsys.readouterr().out == f"{layout} (all 10)\n"
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
