"""When data are checked again: after any change, and only then."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtune.config.data_settings import DataSettings
from segtune.data import exif, record
from segtune.data.checks import once
from segtune.data.sources.base import Pair
from segtune.data.splits import build_splits
from segtune.errors import UserError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten pairs, one without foreground, of which a warning tells; they count as settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(record, "_SETTLED", -1)
    exif._warn.cache_clear()
    for number in range(10):
        photo = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        mask = np.eye(16, dtype=np.uint8) * (number > 0)
        for part, array in (("images", photo), ("masks", mask)):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "data" / part / f"p{number}.png")
    return tmp_path / "data"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pairs that each check has read."""
    read: list[int] = []
    check = once.check_data

    def counting(splits, *rest, **options):
        read.append(sum(map(len, splits.values())))
        return check(splits, *rest, **options)

    monkeypatch.setattr(once, "check_data", counting)
    return read


def checked(root: Path, seed: int = 0, **settings) -> dict[str, list[Pair]]:
    return build_splits(DataSettings("folder", str(root), **settings), seed, 1)


def contents(splits: dict[str, list[Pair]]) -> dict[str, list[tuple[Pair, str]]]:
    return {split: [(pair, pair.checksums) for pair in pairs] for split, pairs in splits.items()}


def test_data_that_have_not_changed_are_not_read_again(root: Path, checks: list[int], capsys) -> None:
    first, said = checked(root), capsys.readouterr().out
    assert "no foreground: 1 of 10 masks" in said
    second = checked(root)
    assert capsys.readouterr().out == said
    assert contents(second) == contents(first)
    assert all(pair.checksums for pairs in second.values() for pair in pairs)
    assert checks == [10]
    for pair in [pair for splits in (first, second) for pairs in splits.values() for pair in pairs]:
        assert pair.stamp == record.with_stamp(pair).stamp != ""


def _touch(path: Path) -> None:
    os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 1))


def _overwrite(path: Path) -> None:
    """Write other content of the same size, at the same time as far as the file tells."""
    before, facts = path.read_bytes(), os.stat(path)
    Image.fromarray(np.roll(np.array(Image.open(path)), 1, 0)).save(path)
    path.write_bytes(path.read_bytes()[: len(before)].ljust(len(before), b"\0"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _replace(path: Path) -> None:
    """Put a copy in a file's place, with its size and times."""
    facts, copy = os.stat(path), path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.mark.parametrize("change", [_touch, _overwrite, _replace])
@pytest.mark.parametrize("name", ["images/p3.png", "masks/p7.png"])
def test_a_change_of_one_file_is_noticed(root: Path, checks: list[int], change, name: str) -> None:
    before = checked(root)
    change(root / name)
    after = checked(root)
    checked(root)
    assert checks == [10, 10]
    stamps = [[pair.stamp for pairs in splits.values() for pair in pairs] for splits in (before, after)]
    assert sum(one != other for one, other in zip(*stamps, strict=True)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"foreground": "nonzero"},
        {"invert": True},
        {"mask_channel": "red"},
        {"ignore": [7]},
        {"max_value": 4095},
        {"limit": 3},
        {"seed": 1},
    ],
)
def test_settings_that_decide_what_is_found_are_part_of_it(root: Path, checks: list[int], changes: dict) -> None:
    checked(root)
    checked(root, **changes)
    assert len(checks) == 2


def test_a_limit_of_megapixels_and_a_version_are_part_of_it(root: Path, checks: list[int], monkeypatch) -> None:
    checked(root)
    monkeypatch.setenv("SEGTUNE_MAX_MEGAPIXELS", "1000")
    checked(root)
    monkeypatch.setattr(once, "__version__", "99")
    checked(root)
    assert checks == [10, 10, 10]


def _records(root: Path) -> list[Path]:
    return list((root.parent / "cache/segtune/checks").glob("*"))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"checksums": {}, "warnings": []}', None])
def test_a_damaged_record_is_made_anew(root: Path, checks: list[int], damage: str | None) -> None:
    first = checked(root)
    (kept,) = _records(root)
    text = kept.read_text()
    kept.write_text(text.replace(first["train"][0].checksums, "unreadable") if damage is None else damage)
    assert contents(checked(root)) == contents(first)
    assert checks == [10, 10]
    assert kept.read_text() == text


def test_errors_are_never_kept(root: Path, checks: list[int]) -> None:
    (root / "masks/p3.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(UserError, match="the file is empty"):
            checked(root)
    assert checks == [10, 10]
    assert _records(root) == []


def test_files_that_have_just_changed_may_change_unnoticed(root: Path, checks: list[int], monkeypatch) -> None:
    monkeypatch.setattr(record, "_SETTLED", 60 * 10**9)
    checked(root)
    assert _records(root) == []


@pytest.fixture
def unreadable_exif() -> Iterator[None]:
    exif._warn(Path("a.jpg"), "damaged")
    yield
    exif._warn.cache_clear()


def test_a_check_that_has_logged_warnings_is_repeated(root: Path, unreadable_exif: None) -> None:
    checked(root)
    assert _records(root) == []


def test_only_the_latest_checks_are_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_MOST", 2)
    for seed in range(4):
        checked(root, seed)
    assert len(_records(root)) == 2


def test_without_a_folder_to_write_to_each_run_checks(root: Path, checks: list[int]) -> None:
    (root.parent / "cache").write_text("a file")
    assert contents(checked(root)) == contents(checked(root))
    assert checks == [10, 10]
