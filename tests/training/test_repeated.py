"""What is said of a run that repeats another."""

import json
from pathlib import Path

from segtune.data.sources.base import Pair
from segtune.training.repeated import differences, outcome
from segtune.training.run_folder import write_settings

NOW = {"torch": "2.0", "threads": "2"}


def splits(*names: str) -> dict[str, list[Pair]]:
    pairs = [Pair(name, Path(name), Path(name), checksums=f"{name} mask pixels") for name in names]
    return {"train": pairs, "val": pairs[:1]}


def test_nothing_is_said_where_all_is_the_same_and_everything_where_it_is_not(tmp_path: Path) -> None:
    same = {pair.name: pair.checksums for pair in splits("a", "b")["train"]}
    record = {"folder": ".", "train": same, "val": {"a": same["a"]}}
    (tmp_path / "data.json").write_text(json.dumps(record))
    (tmp_path / "environment.json").write_text(json.dumps(NOW))
    write_settings(tmp_path, {"seed": 0}, "python -m segtune train")
    assert differences(tmp_path, splits("a", "b"), NOW) == []
    write_settings(tmp_path, {"seed": 0}, "python -m segtune train resume=a epochs=2")
    (tmp_path / "environment.json").write_text(json.dumps({"torch": "1.0", "threads": "2", "gone": "3"}))
    assert differences(tmp_path, splits("a", "c"), NOW | {"new": "1"}) == [
        f"The data are not those of {tmp_path}:\n  train: 1 added (c); 1 removed (b)",
        f"{tmp_path} was trained with torch 1.0, now 2.0. The results may differ.",
        f"{tmp_path} was resumed with other settings, which the new run has from its beginning.",
    ]


def test_a_run_without_records_is_repeated_all_the_same(tmp_path: Path) -> None:
    write_settings(tmp_path, {"seed": 0})
    expected = [
        f"{tmp_path} has no record of its data (data.json), so it is not checked that they are the same.",
        f"{tmp_path} has no record of versions and device (environment.json), so they are not compared.",
    ]
    assert differences(tmp_path, splits("a"), NOW) == expected
    for name in ("data.json", "environment.json"):
        (tmp_path / name).write_text("[1]")
    assert differences(tmp_path, splits("a"), NOW) == expected
    assert outcome(tmp_path, tmp_path) == f"{tmp_path} has no best.pt to compare the result with."
