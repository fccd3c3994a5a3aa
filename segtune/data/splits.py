"""Find, split and check a data set."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from segtune.config.data_settings import DataSettings
from segtune.config.training_settings import DeviceSettings
from segtune.config.types import Workers
from segtune.data.checks.integrity import report
from segtune.data.checks.once import check_once
from segtune.data.labels import foreground
from segtune.data.sources.base import Pair, Problem
from segtune.data.sources.folder import find_pairs, is_image_file
from segtune.data.sources.portraits import make_portraits
from segtune.errors import UserError, some
from segtune.runtime import distributed
from segtune.runtime.console import counting, say
from segtune.runtime.cores import worker_count
from segtune.runtime.paths import expanded, special_kind

Progress = Callable[[int, int], None]


def find_splits(
    settings: DataSettings, seed: int, progress: Progress | None = None, *, whole: bool = False
) -> tuple[dict[str, list[Pair]], list[Problem]]:
    """Return splits and problems of the data without reading the files. With `whole` there is one split, `all`.

    Raises:
        UserError: There is no data, or it cannot be split.
    """
    root = expanded(settings.root)
    if settings.name == "portraits":
        make_portraits(root, progress)
    pairs, problems = find_pairs(root, settings.mask_name)
    pairs = [replace(pair, channel=settings.mask_channel) for pair in pairs]
    splits = {"all": pairs}
    if not whole:
        fractions = settings.val_share, settings.test_share
        splits, more = split_pairs(pairs, root, seed=seed, fractions=fractions)
        problems += more
    if settings.limit and "train" in splits:
        splits["train"] = splits["train"][: settings.limit]
    return splits, problems


def build_splits(
    settings: DataSettings, seed: int, workers: Workers, progress: Progress | None = None, *, whole: bool = False
) -> dict[str, list[Pair]]:
    """Return checked splits of the data, with checksums, and print warnings. With `whole` there is one split, `all`.

    Files that have not changed since an earlier check are not read again; see `check_once`.

    Raises:
        UserError: The data has errors; all are listed.
    """
    splits, problems = find_splits(settings, seed, progress, whole=whole)
    checked, found = check_once(
        splits, foreground(settings), workers=worker_count(workers), max_value=settings.max_value, progress=progress
    )
    problems += found
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        root = expanded(settings.root)
        raise UserError(f"The data in {root} cannot be used:\n{report(errors)}")
    if problems:
        say(report(problems))
    return {split: [checked[pair.name] for pair in pairs] for split, pairs in splits.items()}


def look_for_data(settings: DataSettings, seed: int, workers: Workers, *, whole: bool = False) -> None:
    """Check that the data can be found and split, before weights are downloaded, and print its place and its size.

    The files are read only if something is wrong, so that all problems are listed at once.

    Raises:
        UserError: There is no data, it cannot be split, or it has errors.
    """
    with counting("preparing the data") as progress:
        splits, problems = find_splits(settings, seed, progress, whole=whole)
        say(data_line(settings, splits))
        if any(problem.level == "error" for problem in problems):
            build_splits(settings, seed, workers, progress, whole=whole)


def data_line(settings: DataSettings, splits: dict[str, list[Pair]]) -> str:
    """Return a line that names a data set and the number of its images, in all and by split."""
    root = expanded(settings.root).absolute()
    count = sum(map(len, splits.values()))
    sizes = ", ".join(f"{split} {len(pairs)}" for split, pairs in splits.items())
    return f"Data: {settings.name} {root}, {count} image{'' if count == 1 else 's'}" + (f" ({sizes})" if sizes else "")


def split_pairs(
    pairs: Sequence[Pair], root: Path, *, seed: int, fractions: tuple[float, float] = (0.15, 0.15)
) -> tuple[dict[str, list[Pair]], list[Problem]]:
    """Return pairs split by `root/train.txt`, `val.txt` and optionally `test.txt`, or else by seed.

    A list names one image per line, with or without extension; blank lines and lines that begin with # are skipped.
    Without lists, images are ranked by a hash of the seed and their name: the lowest are the test set, the highest the
    validation set, `round(fraction * images)` of each and at least one. So the split does not depend on the machine
    or on the order of the files, and added images move only a few others, never between test and validation.

    Args:
        pairs: What `find_pairs` found.
        root: The data set's folder.
        seed: The seed of the hash.
        fractions: Of validation and test, each above 0 and together below 1.

    Returns:
        `train`, `val` and `test`, each sorted by name, and the problems of the lists.

    Raises:
        UserError: Some lists are missing, or there are too few images.
    """
    found = [split for split in ("train", "val", "test") if os.path.lexists(root / f"{split}.txt")]
    if not found:
        return _split_by_seed(pairs, seed, *fractions), []
    missing = [f"{split}.txt" for split in ("train", "val") if split not in found]
    if missing:
        there = ", ".join(f"{split}.txt" for split in found)
        raise UserError(
            f"{root} has {there} but not {', '.join(missing)}. Add train.txt and val.txt (test.txt is "
            "optional), or remove all lists for a split by seed."
        )
    return _split_by_lists(pairs, root, found)


def _split_by_seed(pairs: Sequence[Pair], seed: int, val: float, test: float) -> dict[str, list[Pair]]:
    count = len(pairs)
    if count < 3:
        raise UserError(f"Got {count} pairs; expected at least 3, to split into train, val and test.")
    tests, vals = max(1, round(test * count)), max(1, round(val * count))
    if tests + vals >= count:
        raise UserError(f"data.val_share={val:g} and data.test_share={test:g} leave none of {count} pairs to train on.")
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(f"{seed}/{pair.name}".encode()).digest())
    splits = {"train": ranked[tests:-vals], "val": ranked[-vals:], "test": ranked[:tests]}
    return {split: sorted(chosen, key=lambda pair: pair.name) for split, chosen in splits.items()}


def _split_by_lists(
    pairs: Sequence[Pair], root: Path, found: Sequence[str]
) -> tuple[dict[str, list[Pair]], list[Problem]]:
    problems: list[Problem] = []
    by_name = {pair.name: pair for pair in pairs}
    lists = {split: _entries(root / f"{split}.txt", problems) for split in found}
    first: dict[str, tuple[str, str]] = {}  # image -> split and line that first name it
    for split in found:
        for where, entry in lists[split] or ():
            name = entry if entry in by_name or not is_image_file(Path(entry)) else Path(entry).stem
            if name not in by_name:
                text = f"no such pair: {entry[:100]!r} has no photo with a mask"
                problems.append(Problem("error", where, text))
            elif name not in first:
                first[name] = (split, where)
            elif first[name][0] == split:
                text = f"listed twice: {name!r} is also in {first[name][1]}"
                problems.append(Problem("warning", where, text))
            else:
                text = f"in two splits: {name!r} is also in {first[name][1]}"
                problems.append(Problem("error", where, text))
    splits: dict[str, list[Pair]] = {"train": [], "val": [], "test": []}
    for name in sorted(first):
        splits[first[name][0]].append(by_name[name])
    for split in found:
        if lists[split] is not None and not splits[split]:
            problems.append(Problem("error", f"{split}.txt", "empty list: it names no pair"))
    unlisted = [name for name in by_name if name not in first]
    if unlisted and None not in lists.values():
        problems.append(Problem("warning", str(root), f"pairs in no list, not used: {some(unlisted)}"))
    return splits, problems


def _entries(path: Path, problems: list[Problem]) -> list[tuple[str, str]] | None:
    """Return the entries of a list, each with its line; None if the file cannot be read as text."""
    if kind := special_kind(path):
        problems.append(Problem("error", path.name, f"not a list: it is {kind}; expected a text file of names"))
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        reason = f"not UTF-8: line {line} holds the byte 0x{byte:02x}; save the list as UTF-8"
        problems.append(Problem("error", path.name, reason))
        return None
    except OSError as error:
        problems.append(Problem("error", path.name, f"unreadable: {error.strerror or error}"))
        return None
    if "\0" in text:
        problems.append(Problem("error", path.name, "not a list: it holds zero bytes, so it is no text of names"))
        return None
    lines = enumerate((unicodedata.normalize("NFC", line.strip()) for line in text.splitlines()), start=1)
    return [(f"{path.name}, line {number}", entry) for number, entry in lines if entry and not entry.startswith("#")]


def load_splits(data: DataSettings, seed: int, train: DeviceSettings, *, whole: bool = False) -> dict[str, list[Pair]]:
    """Return checked splits of the data, found once for all processes."""

    def find() -> dict[str, list[Pair]]:
        with counting("preparing the data") as progress:
            return build_splits(data, seed, train.workers, progress, whole=whole)

    return distributed.on_rank_zero(find)
