"""The command `check`: find errors in a data set before training on it, without changing anything in it."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from segtune.config.command_settings import CheckSettings
from segtune.data.checks.contact_sheet import choose, contact_sheet
from segtune.data.checks.integrity import findings, judge, report, small_objects
from segtune.data.checks.near_duplicates import NearDuplicate, near_duplicates
from segtune.data.checks.scan import SampleStats, scan
from segtune.data.checks.statistics import Facts, facts
from segtune.data.images import FULL_RANGE
from segtune.data.labels import foreground
from segtune.data.overlays import png
from segtune.data.sources.base import Problem
from segtune.data.splits import FoundSplits, data_line, find_splits
from segtune.errors import FailedError, UserError
from segtune.models.layer_info import LayerInfo
from segtune.models.tapped import build_tapped
from segtune.runtime.console import counting, print_table, say, set_up_logging, shown
from segtune.runtime.cores import worker_count
from segtune.runtime.files import write_atomically, write_json
from segtune.runtime.paths import expanded, find_data_folder, refuse_data_folder


def check(settings: CheckSettings, folder: Path) -> Facts:
    """Read every pair, show statistics of the data set, and list all problems.

    Writes `check.json` and `contact_sheet.png` to the folder, and nothing into the data set.

    Returns:
        The content of `check.json`.

    Raises:
        FailedError: There are errors, such as broken files or near-duplicates in two splits.
        UserError: The settings cannot be used.
    """
    set_up_logging()
    root = expanded(settings.data.root)
    refuse_data_folder(folder, root)
    if settings.data.name == "folder":
        find_data_folder(root)
    deepest = _deepest(settings)
    with counting("reading the data") as progress:
        looked = _find(settings, root, progress)
        splits, problems = looked.splits, looked.problems
        say(data_line(settings.data, looked))
        sizes = {name: _input_size(settings, name) for name in splits}
        rule, workers = foreground(settings.data), worker_count(settings.train.workers)
        white = settings.data.max_value
        stats, wrong = scan(splits, rule, workers=workers, max_value=white, sizes=sizes, progress=progress)
    near, within, counts = ([], [], {}) if settings.near is None else near_duplicates(stats, settings.near)
    problems += wrong + judge(stats, rule, white) + findings(stats, near)
    found: Facts = {"data": str(root), "tap": deepest.name, "max_value": white or FULL_RANGE}
    found |= facts(stats, deepest.stride)
    problems += small_objects(found["objects"], deepest.name)
    found |= {"near": [_plain(each) for each in near], "near_within_split": counts}
    found["near_within_split_pairs"] = [_plain(each) for each in within]
    found["problems"] = [asdict(problem) for problem in problems]
    write_json(folder / "check.json", found)
    _draw(settings, folder, stats, _suspects(stats, near, problems))
    _show(found, near, within)
    return _conclude(found, problems, folder, root)


def _deepest(settings: CheckSettings) -> LayerInfo:
    """Return the deepest tap: an object smaller than its stride shares a feature pixel with its surroundings."""
    with torch.device("meta"):
        tapped = build_tapped(settings, settings.data.size)
    return max(tapped.layers.values(), key=lambda layer: layer.stride)


def _input_size(settings: CheckSettings, split: str) -> tuple[int, int] | None:
    """Return the height and width to which images of a split are resized for the network; None for their own."""
    data = settings.data
    if split == "train":
        return None if settings.augment.at_own_scale else data.size
    return None if data.eval_tile is not None else data.evaluation_size


def _find(settings: CheckSettings, root: Path, progress: Callable[[int, int], None]) -> FoundSplits:
    """Return what is found; where splitting fails, all pairs as one split, so that they are checked too."""
    reasons: list[str] = []
    for whole in (False, True):
        try:
            found = find_splits(settings.data, settings.seed, progress, whole=whole)
        except UserError as error:
            reasons.append(str(error))
        else:
            unsplit = [Problem("error", str(root), f"no split: {text}") for text in reasons]
            return replace(found, problems=unsplit + found.problems)
    return FoundSplits({}, [Problem("error", str(root), f"no pairs: {reasons[0]}")], settings.data)


def _plain(each: NearDuplicate) -> dict[str, Any]:
    return {
        "first": f"{each.first.split}/{each.first.pair.name}",
        "second": f"{each.second.split}/{each.second.pair.name}",
        "distance": each.distance,
        "mirrored": each.mirrored,
    }


def _suspects(stats: Sequence[SampleStats], near: Sequence[NearDuplicate], problems: Sequence[Problem]) -> set[str]:
    """Return the names of images with a problem, a near-duplicate, an empty or full mask, or a turn of one file."""
    where = {problem.where for problem in problems}
    where |= {"/".join(os.path.splitext(each)[0].split("/")[-2:]) for each in where}
    named = {one.pair.name for one in stats if where & {one.pair.name, *map(_place, (one.pair.photo, one.pair.mask))}}
    pairs = {each.pair.name for two in near for each in (two.first, two.second)}
    return named | pairs | {one.pair.name for one in stats if one.fraction in (0, 1) or one.turned_apart}


def _place(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _draw(settings: CheckSettings, folder: Path, stats: Sequence[SampleStats], suspects: set[str]) -> None:
    chosen = choose(stats, suspects, settings.sheet)
    if chosen:
        sheet = contact_sheet(chosen, suspects, foreground(settings.data), settings.data.max_value)
        write_atomically(folder / "contact_sheet.png", png(sheet))


def _show(found: Facts, near: Sequence[NearDuplicate], within: Sequence[NearDuplicate]) -> None:
    if not found["splits"]:
        return
    print_table(_splits_table(found))
    print_table(_facts_table(found))
    for where, alike, most in (("in two splits", near, 20), ("within a split", within, 5)):
        if alike:
            title = f"near-duplicates {where}"
            table = Table("", "", "different bits of 64", title=title)
            for each in alike[:most]:
                table.add_row(str(each.first), str(each.second), f"{each.distance}{' (mirrored)' * each.mirrored}")
            if len(alike) > most:
                table.add_row("…", "the others are in check.json", "")
            print_table(table)


def _splits_table(found: Facts) -> Table:
    table = Table(title="foreground in the masks")
    for heading in ("split", "pairs", "mean", "median", "empty", "full", "images by share:\n0 to 100 %"):
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left", no_wrap=True)
    for split, row in found["splits"].items():
        shares = [f"{row[f'foreground_{name}']:.1%}" for name in ("mean", "median")]
        counts = (str(row["empty"]), str(row["full"]))
        table.add_row(split, str(row["pairs"]), *shares, *counts, _bars(row["foreground_histogram"]))
    return table


_NUMBERS = ("pairs", "mean", "median", "empty", "full")


def _bars(counts: Sequence[int]) -> str:
    """Return a histogram as one line of text, in which every non-empty bin has a bar."""
    most = max(counts)
    bars = ("▁▂▃▄▅▆▇█"[-(-count * 8 // most) - 1] * 2 if count else "  " for count in counts)
    return f"|{''.join(bars)}|"


def _facts_table(found: Facts) -> Table:
    photos, objects, values = found["photos"], found["objects"], found["mask_values"]
    table = Table(show_header=False)
    sizes = ", ".join(f"{name} {photos[name][0]} x {photos[name][1]}" for name in ("smallest", "median", "largest"))
    table.add_row("images (height x width)", f"{sizes}; {photos['different_sizes']} different sizes")
    if "16" in found["photo_values"]:
        table.add_row("values of 16-bit photos", _depth_text(found))
    turned = found["orientation"]
    if turned["photos"] or turned["masks"]:
        alone = len(turned["photos_without_their_masks"])
        table.add_row(
            "turned by EXIF",
            f"{_count(turned['photos'], 'photo')}, {alone} of them without {'its' if alone == 1 else 'their'} mask; "
            f"{_count(turned['masks'], 'mask')}",
        )
    common = sorted(values, key=lambda value: -values[value])[:8]
    listed = ", ".join(f"{value} in {values[value]}" for value in values if value in common)
    table.add_row("mask values", listed + (f", … ({len(values)} values)" if len(values) > len(common) else ""))
    if found["void"]["share"]:
        table.add_row("void, which counts nowhere", _void_text(found["void"]))
    if found["near_within_split"]:
        pairs = ", ".join(f"{split} {count}" for split, count in found["near_within_split"].items())
        table.add_row("near-duplicates within a split", f"{pairs} (pairs of images, in the same split)")
    if objects["objects"]:
        for row in _object_rows(objects, found["tap"]):
            table.add_row(*row)
    return table


def _void_text(void: Facts) -> str:
    listed = ", ".join(f"{value} in {masks}" for value, masks in void["values"].items())
    whole = f"; {_count(void['masks'], 'mask')} wholly" if void["masks"] else ""
    return f"{void['share']:.1%} of the pixels" + (f"; values {listed}" if listed else "") + whole


def _depth_text(found: Facts) -> str:
    deep, white = found["photo_values"]["16"], found["max_value"]
    largest = deep["largest"]
    return (
        f"{_count(deep['photos'], 'photo')}; up to {largest} ({largest.bit_length()} bits); "
        f"white is {white} (data.max_value)"
    )


def _object_rows(objects: Facts, tap: str) -> Iterator[tuple[str, str]]:
    area, side, cell = (objects[name] for name in ("smallest_area", "smallest_side", "cell"))
    text = f"{area} pixels, longer side {side} ({objects['smallest_in']}); median {objects['median_area']:.0f} pixels"
    yield "objects at the network's input size", f"{objects['objects']}; smallest {text}"
    share = f"{objects['small_objects'] / objects['objects']:.0%} of the objects"
    amount = f"{objects['small_foreground']:.1%} of the foreground"
    alone = f"{objects['pictures_of_small_only']} of {objects['pictures']} images have no larger one"
    yield f"smaller than {cell} x {cell} pixels", f"{share}, {amount}; {alone} (stride of the deepest tap, {tap})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _conclude(found: Facts, problems: Sequence[Problem], folder: Path, root: Path) -> Facts:
    errors = [problem for problem in problems if problem.level == "error"]
    warnings = [problem for problem in problems if problem.level == "warning"]
    if warnings:
        say(report(warnings))
    names = "check.json and contact_sheet.png" if (folder / "contact_sheet.png").exists() else "check.json"
    say(f"Wrote {names} to {shown(folder)}.")
    if errors:
        raise FailedError(f"data check failed: {_count(len(errors), 'error')} in {root}:\n{report(errors)}")
    say("Data check passed: no errors.")
    return found
