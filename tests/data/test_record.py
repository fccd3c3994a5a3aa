"""The record of what a run learns from: contents decide, not names."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtune.config.data_settings import DataSettings
from segtune.data import record as module
from segtune.data.record import DataRecord, is_unchanged, with_checksums, with_stamp
from segtune.data.sources.base import Pair
from segtune.data.splits import build_splits
from segtune.errors import UserError


def write(root: Path, name: str, number: int, suffix: str = "png") -> None:
    photo = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
    for part, array in (("images", photo), ("masks", np.eye(16, k=number, dtype=np.uint8))):
        (root / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / part / f"{name}.{suffix}")


def checked(root: Path) -> dict[str, list[Pair]]:
    return build_splits(DataSettings("folder", str(root), val_share=0.3, test_share=0.2), 0, 1)


@pytest.fixture
def record(tmp_path: Path) -> DataRecord:
    for number in range(10):
        write(tmp_path / "first", f"p{number}", number)
    return DataRecord.of(checked(tmp_path / "first"))


def test_names_and_checksums_of_train_and_val(record: DataRecord, tmp_path: Path) -> None:
    assert {split: len(files) for split, files in record.splits.items()} == {"train": 5, "val": 3}
    name, checksums = next(iter(record.splits["train"].items()))
    files = [(tmp_path / "first" / part / f"{name}.png").read_bytes() for part in ("images", "masks")]
    assert checksums.split()[:2] == [hashlib.blake2b(content, digest_size=16).hexdigest() for content in files]
    assert len(checksums.split()[2]) == 32
    assert DataRecord.parse(record.plain(), "a.pt") == record


def test_images_are_known_by_their_contents(record: DataRecord, tmp_path: Path) -> None:
    """As copies under other names, in another lossless format, or with another mask; not by their names."""
    trained, chosen = sorted(record.splits["train"]), sorted(record.splits["val"])
    write(tmp_path / "other", "copy", int(trained[0][1:]))
    write(tmp_path / "other", "bitmap", int(trained[1][1:]), "bmp")
    write(tmp_path / "other", "chosen", int(chosen[0][1:]))
    Image.fromarray(np.tri(16, dtype=np.uint8)).save(tmp_path / "other" / "masks" / "chosen.png")
    for number, name in enumerate((trained[2], "new1", "new2"), start=20):
        write(tmp_path / "other", name, number)
    pairs = [pair for split in checked(tmp_path / "other").values() for pair in split]
    known = {split: sorted(names) for split, names in record.known(pairs).items()}
    assert known == {"train": ["bitmap", "copy"], "val": ["chosen"]}


@pytest.mark.parametrize("damage", [{"folder": 1}, {"train": None}, {"val": {"a": 1}}, {"train": {1: "a"}}])
def test_a_damaged_record_is_an_error(damage: dict) -> None:
    with pytest.raises(UserError, match=r"a\.pt: the record of its data is damaged: expected checksums"):
        DataRecord.parse({"folder": "/home", "train": {"a": "x"}, "val": {}} | damage, "a.pt")


def test_a_pair_is_unchanged_while_both_files_hold_what_they_held(record: DataRecord, tmp_path: Path) -> None:
    pair, other = checked(tmp_path / "first")["train"][:2]
    assert is_unchanged(pair)
    pair.photo.touch()
    assert is_unchanged(pair)
    assert not is_unchanged(Pair(pair.name, pair.photo, pair.mask))  # it was never read
    content = pair.mask.read_bytes()
    pair.mask.write_bytes(other.mask.read_bytes())
    assert not is_unchanged(pair)
    pair.mask.write_bytes(content)
    assert is_unchanged(pair)
    pair.photo.unlink()
    assert not is_unchanged(pair)
    assert not is_unchanged(with_checksums(pair, b""))


def test_files_that_have_their_stamp_are_not_read_again(
    record: DataRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content decides as before once a stamp is another, or there is none."""
    monkeypatch.setattr(module, "_SETTLED", -1)
    read, of_file = list[Path](), module._of_file
    monkeypatch.setattr(module, "_of_file", lambda path: read.append(path) or of_file(path))
    pair = with_checksums(with_stamp(checked(tmp_path / "first")["train"][0]), b"")
    read.clear()
    assert is_unchanged(pair)
    assert read == []
    assert not is_unchanged(replace(pair, checksums=""))  # it was stamped but never read
    assert not is_unchanged(replace(pair, checksums=f"{module._UNREADABLE} {pair.checksums.partition(' ')[2]}"))
    for path in (pair.photo, pair.mask):
        read.clear()
        content, facts = path.read_bytes(), os.stat(path)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as if it had not been written
        assert not is_unchanged(pair)
        path.write_bytes(content)
        assert is_unchanged(pair)
        assert read == 2 * [pair.photo, pair.mask]
        path.rename(tmp_path / "away")
        assert not is_unchanged(pair)
        (tmp_path / "away").rename(path)


def test_files_that_have_just_changed_get_no_stamp(record: DataRecord, tmp_path: Path) -> None:
    """A second change within a tick of the disk's clock would leave the same one."""
    pair = checked(tmp_path / "first")["train"][0]
    assert with_stamp(pair).stamp == ""
    assert with_stamp(Pair("a", tmp_path / "none.png", pair.mask)).stamp == ""
    for path in (pair.photo, pair.mask):  # the time of writing can be set, that of the change cannot
        os.utime(path, (0, 0))
    assert with_stamp(pair).stamp == ""
