"""`cache` as a command: what is listed, and what is removed."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from segtune.__main__ import main
from segtune.commands import cache as commands
from segtune.config.command_settings import CacheCommandSettings
from segtune.errors import FailedError
from segtune.training.feature_store import DESCRIPTION, FolderStore

FACTS = {
    "segtune": "0.1",
    "backbone": "vgg16",
    "frozen_to": "features.23",
    "of": "training",
    "size": [96, 64],
    "dtype": "bfloat16",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a cache: two images in two views, one image without a readable description; and a photo beside them."""
    for folder, days, names in (("one", 3, ("a-0", "a-1", "b-0", "b-1")), ("two", 8, ("c-0",))):
        store = FolderStore(tmp_path / folder, FACTS)
        for name in names:
            store.write(name, {"mask": torch.zeros(250_000)})
        if folder == "two":
            (tmp_path / folder / DESCRIPTION).write_text("no JSON")
        then = time.time() - 86_400 * days
        os.utime(tmp_path / folder / DESCRIPTION, (then, then))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    return tmp_path


def out_of(capsys: pytest.CaptureFixture[str], folder: Path | None, **more: Any) -> str:
    commands.cache(CacheCommandSettings(folder=str(folder) if folder else None, **more))
    return capsys.readouterr().out


def test_what_is_kept_is_listed_with_its_size(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, _, first, second, last = out_of(capsys, root).splitlines()
    assert head.split()[:3] == ["backbone", "frozen", "up"]
    assert first.split()[:-2] == [
        "vgg16",
        "features.23",
        "training",
        "96",
        "x",
        "64",
        "2",
        "x",
        "2",
        "bfloat16",
        "4.0",
        "MB",
    ]
    assert first.endswith(time.strftime("%Y-%m-%d %H:%M", time.localtime((root / "one" / DESCRIPTION).stat().st_mtime)))
    assert " ".join(second.split()[:-2]) == "? ? ? ? 1 x 1 ? 1.0 MB"
    assert last.startswith(f"5.0 MB in {root}. ")


def test_the_list_as_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(out_of(capsys, root, format="json", days=7))
    size = sum(path.stat().st_size for path in (root / "two").iterdir())
    assert (found["folder"], found["bytes"], found["freed"]) == (str(root), size, 0)
    assert [(each["folder"], each["images"], each["views"], each["bytes"]) for each in found["features"]] == [
        ("two", 1, 1, size)
    ]


def test_what_is_cleared_is_gone_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = out_of(capsys, root, clear=True, days=7)
    assert said == f"Removed features that were not used for 7 days from {root}: 1.0 MB are free again.\n"
    assert sorted(path.name for path in root.iterdir()) == ["one", "photos"]
    said = out_of(capsys, root, clear=True)
    assert said == f"Removed features from {root}: 4.0 MB are free again.\n"
    assert out_of(capsys, root, clear=True) == f"No features are kept in {root}.\n"
    assert [str(path.relative_to(root)) for path in root.rglob("*")] == ["photos", "photos/a.jpg"]


def test_what_cannot_be_removed_is_named(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "remove", lambda _: 0)
    with pytest.raises(FailedError) as raised:
        out_of(capsys, root, clear=True)
    assert str(raised.value) == f"2 folders in {root} could not be removed: one, two. Are they yours?"


def test_a_folder_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", f"folder={tmp_path}/gone"]) == 2
    assert f"folder={tmp_path}/gone is not a folder" in capsys.readouterr().err
    assert out_of(capsys, None).startswith("No features are kept in ")
