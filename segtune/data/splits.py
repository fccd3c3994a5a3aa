"""Find, split and check a data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from segtune.config.data_settings import DataSettings
from segtune.config.training_settings import DeviceSettings
from segtune.config.types import Workers
from segtune.data.checks.integrity import report
from segtune.data.checks.once import check_once
from segtune.data.labels import foreground
from segtune.data.partition import (
    divided_groups,
    folds_of,
    groups_by_pattern,
    in_order,
    ranked_units,
    split_units,
    take_units,
)
from segtune.data.sources.base import Found, Pair, Problem
from segtune.data.sources.folder import find_pairs
from segtune.data.sources.portraits import make_portraits
from segtune.data.split_lists import SPLITS, find_lists, split_by_lists
from segtune.errors import UserError
from segtune.runtime import distributed
from segtune.runtime.console import counting, say
from segtune.runtime.cores import worker_count
from segtune.runtime.paths import expanded

Progress = Callable[[int, int], None]
Splits = dict[str, list[Pair]]


@dataclass(frozen=True)
class FoundSplits:
    """A data set whose files have not been read.

    Attributes:
        splits: Pairs by split, sorted by name.
        problems: What is wrong, as far as names tell.
        settings: The settings, completed by those that were found: with them nothing has to be found again.
        words: How photos and masks are kept, and what fixes the split.
    """

    splits: Splits
    problems: list[Problem]
    settings: DataSettings
    words: str = ""


def find_splits(
    settings: DataSettings, seed: int, progress: Progress | None = None, *, whole: bool = False
) -> FoundSplits:
    """Return splits and problems of the data without reading the files. With `whole` there is one split, `all`.

    Raises:
        UserError: There is no data, or it cannot be split.
    """
    if settings.name == "portraits":
        make_portraits(expanded(settings.root), progress)
    found = find_pairs(settings)
    problems, words = list(found.problems), found.layout
    if settings.name != "portraits":
        settings = replace(settings, **found.settings)  # type: ignore[arg-type]
    if whole:
        splits = {"all": list(found.pairs)}
    else:
        try:
            splits, split_by = _divided(found, settings, seed, problems)
        except UserError as error:
            if errors := [problem for problem in problems if problem.level == "error"]:
                raise UserError(f"{error}\n{report(errors)}") from error
            raise
        words = f"{words}; split by {split_by}"
    if settings.limit and "train" in splits:
        splits["train"] = splits["train"][: settings.limit]
    return FoundSplits(splits, problems, settings, words)


def _divided(found: Found, settings: DataSettings, seed: int, problems: list[Problem]) -> tuple[Splits, str]:
    """Return pairs by split, and what divides them, in words; problems are added."""
    groups = found.groups
    if groups is None and settings.group is not None:
        groups = groups_by_pattern((pair.name for pair in found.pairs), settings.group)
    lists = find_lists(expanded(settings.root), settings.images)
    if found.splits is not None:
        if lists:
            problems.append(
                Problem("warning", str(lists), f"lists are not used: the split is fixed by {found.split_by}")
            )
        splits, split_by = _by_source(found, settings, seed, groups)
    elif lists:
        splits, more = split_by_lists(found.pairs, lists, found.skipped)
        problems += more
        split_by = "lists"
    else:
        splits = split_units(ranked_units(found.pairs, seed, groups), settings.val_share, settings.test_share)
        split_by = f"seed {seed}"
    if settings.folds:
        pool = ranked_units([*splits["train"], *splits["val"]], seed, groups)
        folds = folds_of(pool, settings.folds)
        splits["val"] = folds.pop(settings.fold)
        splits["train"] = in_order(folds)
        split_by += f", fold {settings.fold} of {settings.folds}"
    if groups is not None:
        for group, places in divided_groups(splits, groups).items():
            text = f"group in several splits: {group!r} is in {' and '.join(places)}; data.group keeps it in one"
            problems.append(Problem("error", f"split by {split_by}", text))
        split_by += ", with groups whole"
    return splits, split_by


def _by_source(found: Found, settings: DataSettings, seed: int, groups: Mapping[str, str] | None) -> tuple[Splits, str]:
    """Return the splits that the source fixes; without validation images some of those to train on take their place.

    Raises:
        UserError: There is none to train on.
    """
    by_name = {pair.name: pair for pair in found.pairs}
    given = found.splits or {}
    splits = {split: [by_name[name] for name in sorted(given.get(split, ()))] for split in SPLITS}
    if not splits["train"]:
        there = ", ".join(split for split in splits if splits[split])
        raise UserError(
            f"The split is fixed by {found.split_by}, but {settings.root} has no images to train on, only {there}. "
            "data.split=all evaluates on all; data.images and data.masks without {split} name folders that fix none."
        )
    if splits["val"] or settings.folds:
        return splits, found.split_by
    vals, train = take_units(
        ranked_units(splits["train"], seed, groups)[::-1], max(1, round(settings.val_share * len(splits["train"])))
    )
    if not train:
        raise UserError(f"Got {len(vals)} images to train on; expected at least 2, to take some for validation.")
    return splits | {
        "train": in_order(train),
        "val": in_order(vals),
    }, f"{found.split_by}, val by seed {seed} from train"


def build_splits(
    settings: DataSettings, seed: int, workers: Workers, progress: Progress | None = None, *, whole: bool = False
) -> dict[str, list[Pair]]:
    """Return checked splits of the data, with checksums, and print warnings. With `whole` there is one split, `all`.

    Files that have not changed since an earlier check are not read again; see `check_once`.

    Raises:
        UserError: The data has errors; all are listed.
    """
    found = find_splits(settings, seed, progress, whole=whole)
    splits, problems = found.splits, found.problems
    checked, more = check_once(
        splits, foreground(settings), workers=worker_count(workers), max_value=settings.max_value, progress=progress
    )
    problems = problems + more
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        root = expanded(settings.root)
        raise UserError(f"The data in {root} cannot be used:\n{report(errors)}")
    if problems:
        say(report(problems))
    return {split: [checked[pair.name] for pair in pairs] for split, pairs in splits.items()}


def look_for_data(settings: DataSettings, seed: int, workers: Workers, *, whole: bool = False) -> DataSettings:
    """Check that the data can be found and split, before weights are downloaded, and print how they are kept.

    The files are read only if something is wrong, so that all problems are listed at once.

    Returns:
        The settings, completed by those that were found.

    Raises:
        UserError: There is no data, it cannot be split, or it has errors.
    """
    with counting("preparing the data") as progress:
        found = find_splits(settings, seed, progress, whole=whole)
        say(data_line(settings, found))
        if any(problem.level == "error" for problem in found.problems):
            build_splits(settings, seed, workers, progress, whole=whole)
    return found.settings


def data_line(settings: DataSettings, found: FoundSplits) -> str:
    """Return a line that names a data set, how it is kept and split, and the number of its images by split."""
    root = expanded(settings.root).absolute()
    count = sum(map(len, found.splits.values()))
    sizes = ", ".join(f"{split} {len(pairs)}" for split, pairs in found.splits.items())
    words = f": {found.words}" if found.words else ""
    pairs = f"{count} pair{'' if count == 1 else 's'}"
    return f"Data: {settings.name} {root}, {pairs}{words}" + (f" ({sizes})" if sizes else "")


def load_splits(data: DataSettings, seed: int, train: DeviceSettings, *, whole: bool = False) -> dict[str, list[Pair]]:
    """Return checked splits of the data, found once for all processes."""

    def find() -> dict[str, list[Pair]]:
        with counting("preparing the data") as progress:
            return build_splits(data, seed, train.workers, progress, whole=whole)

    return distributed.on_rank_zero(find)
