"""The folder format: photos and masks as files, in whatever folders and by whatever names these tell apart."""

import os
from collections.abc import Iterable, Mapping, Sequence

from segtune.config.data_settings import DataSettings
from segtune.config.types import SPLIT
from segtune.data.sources.base import Found, Pair, Problem
from segtune.data.sources.find_layout import find_layout
from segtune.data.sources.layouts import Layout
from segtune.data.sources.listing import Listing
from segtune.data.sources.mask_names import Matches, match
from segtune.data.sources.pair_table import find_listed_pairs
from segtune.data.sources.places import Key, Place, is_pattern
from segtune.errors import some
from segtune.runtime.paths import find_data_folder


def find_pairs(settings: DataSettings) -> Found:
    """Return pairs of photos and masks, as the settings say or else as the names below `data.root` tell.

    Returns:
        The pairs, and the problems: files without a partner and two files with one name (errors), files of other types
        (warnings). Hidden files and those that systems leave in folders are skipped. The name of a pair is the path of
        its photo below the folder of images, without extension; where two splits share a name, with the split before.

    Raises:
        UserError: A folder is missing, there are no pairs, or nothing tells which files are the masks.
    """
    if settings.pairs is not None:
        return find_listed_pairs(settings)
    listing, layout, chosen = find_layout(find_data_folder(settings.root), settings)
    missing = settings.missing
    if missing is None and layout.images.rpartition("/")[2] == "JPEGImages":  # VOC has masks of a few of its images
        missing = "skip"
    problems: list[Problem] = []
    photos, masks = (_single(files, problems) for files in layout.files(listing))
    matches = match(photos, masks, layout.mask_name)
    problems += _ignored(listing, layout, matches)
    left_out = matches.photos if missing == "skip" else []
    problems += _without_partner(listing, layout, matches, photos, masks, [] if left_out else matches.photos)
    names = _names(photos)
    channel = settings.mask_channel
    pairs = [
        Pair(names[key], listing.root / photos[key], listing.root / masks[mask], channel=channel)
        for key, mask in matches.pairs.items()
    ]
    notes = [_words(layout, [masks[mask] for mask in matches.pairs.values()]), *matches.notes]
    if left_out:
        notes.append(f"{len(left_out)} photo{'' if len(left_out) == 1 else 's'} without mask left out")
        chosen = {**chosen, "missing": "skip"}
    return Found(
        sorted(pairs, key=lambda pair: pair.name),
        problems,
        ", ".join(notes),
        _splits(names, matches.pairs),
        settings=chosen,
        skipped=[names[key] for key in left_out],
    )


def _single(files: Mapping[Key, Sequence[str]], problems: list[Problem]) -> dict[Key, str]:
    """Return the path of each image; two files of one name, and names that are no text, are problems."""
    found = {}
    for key, (path, *others) in files.items():
        if not _is_text(path):
            folder, name = os.path.split(path)
            text = "not a UTF-8 name: results cannot be written under it; rename the file"
            problems.append(Problem("error", f"{folder}/{os.fsencode(name)!r}", text))
            continue
        for other in others:
            problems.append(Problem("error", other, f"two files of one name: {path} exists too; keep one"))
        found[key] = path
    return found


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of another encoding, which Python keeps as surrogates
        return False
    return True


def _names(photos: Iterable[Key]) -> dict[Key, str]:
    """Return the names of images: with the split where two splits share one."""
    photos = list(photos)
    unique = len({key.name for key in photos}) == len(photos)
    return {key: key.name if unique else f"{key.split}/{key.name}" for key in photos}


def _splits(names: Mapping[Key, str], pairs: Iterable[Key]) -> dict[str, list[str]] | None:
    """Return the names of pairs by split; None where folders do not tell it."""
    splits: dict[str, list[str]] = {}
    for key in pairs:
        splits.setdefault(key.split, []).append(names[key])
    return None if splits.keys() <= {"", "train"} else splits


def _ignored(listing: Listing, layout: Layout, matches: Matches) -> list[Problem]:
    """Return warnings of what is no image, and take subfolders without any pair out of the matches.

    Only where pairs lie directly in the folders is a subfolder without any something else.
    """
    problems = []
    with_pairs = {key.name.partition("/")[0] for key in matches.pairs if "/" in key.name}
    flat = any("/" not in key.name for key in matches.pairs)
    for text in dict.fromkeys((layout.images, layout.masks)):
        others = Place(text).others(listing)
        if flat and not is_pattern(text):
            here = text if text != "." else ""
            unpaired = {name.partition("/")[0] for _, name in (*matches.photos, *matches.masks.values()) if "/" in name}
            inside = {name[:-1] for name in listing.contents(here) if name.endswith("/")} - with_pairs
            inside.discard(layout.masks.removeprefix(f"{here}/").split("/")[0])  # the masks in images/masks/
            others += [f"{name}/" for name in inside if here or name in unpaired]
            _take_out(matches, inside)
        if others:
            what = f"ignored: {len(others)} that are not images ({some(sorted(others))})"
            problems.append(Problem("warning", f"{text}/", what))
    return problems


def _take_out(matches: Matches, folders: Iterable[str]) -> None:
    """Take what lies in folders out of what has no partner."""
    inside = tuple(f"{folder}/" for folder in folders)
    if inside:
        matches.photos = [key for key in matches.photos if not key.name.startswith(inside)]
        matches.masks = {mask: key for mask, key in matches.masks.items() if not key.name.startswith(inside)}
        matches.strange = [mask for mask in matches.strange if not mask.name.startswith(inside)]


def _without_partner(
    listing: Listing,
    layout: Layout,
    matches: Matches,
    photos: Mapping[Key, str],
    masks: Mapping[Key, str],
    lacking: Iterable[Key],
) -> list[Problem]:
    problems = []
    for mask in sorted(matches.strange):
        problems.append(Problem("error", masks[mask], f"data.mask_name={layout.mask_name} does not fit it"))
    for key in sorted(lacking):
        folder, slash, stem = key.name.rpartition("/")
        name = f"{folder}{slash}{layout.mask_name.replace('*', stem)}"
        text = f"photo without mask: {_missing(listing, layout.masks, key, name)}"
        problems.append(Problem("error", photos[key], f"{text}; data.missing=skip leaves it out"))
    for mask, key in sorted(matches.masks.items()):
        text = f"mask without photo: {_missing(listing, layout.images, key, key.name)}"
        problems.append(Problem("error", masks[mask], text))
    return problems


def _missing(listing: Listing, place: str, key: Key, name: str) -> str:
    """Return which file a place lacks; it may have one that is not read, such as a PDF document."""
    if is_pattern(place):
        return f"none in {place} is named {name}"
    folder, _, stem = (name if place == "." else f"{place}/{name}").rpartition("/")
    if file := listing.unread(folder).get(stem):
        return f"{folder}{'/' * bool(folder)}{file.name} is {file.text}"
    return f"no {folder}{'/' * bool(folder)}{stem}.*"


def _words(layout: Layout, masks: Sequence[str]) -> str:
    """Return a layout in words, such as `images/ with masks/*_mask.png`."""
    extensions = {os.path.splitext(mask)[1] for mask in masks}
    extension = extensions.pop() if len(extensions) == 1 else ".*"
    name = "" if layout.mask_name == "*" else f"{layout.mask_name}{extension}"
    if layout.images == layout.masks:
        where = "" if layout.images == "." else f"{layout.images}/ with "
        return f"{where}{name} beside the photos"
    images, of_masks = (f"{each}/" if _is_folder(each) else each for each in (layout.images, layout.masks))
    return f"{images} with {of_masks}{name}"


def _is_folder(place: str) -> bool:
    """Return whether a place names folders, not files."""
    last = place.rpartition("/")[2].replace(SPLIT, "")
    return "**" not in place and (not is_pattern(last) or last == "*")
