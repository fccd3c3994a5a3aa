"""The layout of a folder: what the settings say, completed by what the names below `data.root` tell."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from segtune.config.data_settings import DataSettings
from segtune.data.file_formats import EXTENSIONS
from segtune.data.sources.folder_words import role
from segtune.data.sources.layouts import Layout, find_layouts, likely_layouts, places_of
from segtune.data.sources.listing import Listing, check_readable, walk
from segtune.data.sources.places import Place, fixed_part, is_pattern
from segtune.data.sources.recognise import looks_like, recognise
from segtune.errors import UserError, nearest, some
from segtune.runtime.paths import expanded

#: The usual folders, which come before any other layout.
_USUAL = ("images", "masks")
#: How many layouts are listed where several are possible.
_SHOWN = 5


def find_layout(root: Path, settings: DataSettings) -> tuple[Listing, Layout, Mapping[str, object]]:
    """Return the names of files, how photos and masks are kept, and which settings were chosen for that.

    Raises:
        UserError: A folder is missing, no photo has a mask, or there are several ways to read the folder.
    """
    base, images, masks = _anchored(root, settings.images, settings.masks)
    given = {"images": images, "masks": masks, "mask_name": settings.mask_pattern}
    if images and masks:
        listing, layout = _as_given(base, images, masks, settings.mask_pattern)
    else:
        listing, layout = _as_found(base, images, masks, settings.mask_pattern)
    for folder in listing.unreadable:
        if any(Place(each).covers(folder) for each in (layout.images, layout.masks)):
            check_readable(listing, [folder])
    chosen = {name: value for name, value in asdict(layout).items() if value != given[name]}
    if base != root:
        chosen |= {name: str(base / chosen[name]) for name in ("images", "masks") if name in chosen}
    return listing, layout, chosen


def _as_given(base: Path, images: str, masks: str, mask_name: str | None) -> tuple[Listing, Layout]:
    listing = walk(base, [_folder(base, "images", images), _folder(base, "masks", masks)])
    found = [Layout(images, masks, mask_name)] if mask_name else find_layouts(listing, images, masks)
    if len(found) > 1:
        raise UserError(_several(listing, found))
    layout = found[0] if found else Layout(images, masks, "*")
    if not layout.pairs(listing):
        raise UserError(_no_pair(listing, layout))
    return listing, layout


def _as_found(base: Path, images: str | None, masks: str | None, mask_name: str | None) -> tuple[Listing, Layout]:
    found: list[Layout] = []
    for name, text in (("images", images), ("masks", masks)):
        if text:
            _folder(base, name, text)
    if not (images or masks) and all((base / name).is_dir() for name in _USUAL):
        listing = walk(base, _USUAL)
        found = find_layouts(listing, mask_name=mask_name)
        if not found and (usual := Layout(*_USUAL, mask_name or "*")).pairs(listing):
            found = [usual]  # the pairs that there are show what is wrong with the others
    if not found:
        listing = walk(base)
        found = find_layouts(listing, images, masks, mask_name)
    if len(found) != 1:
        raise UserError(_several(listing, found) if found else _none(listing, images, masks, mask_name))
    return listing, found[0]


def _anchored(root: Path, images: str | None, masks: str | None) -> tuple[Path, str | None, str | None]:
    """Return the folder that holds both places, and these relative to it: `data.root`, unless one lies outside.

    Raises:
        UserError: One lies outside, and the other is not given.
    """
    top = os.path.abspath(root)
    paths = [
        each and os.path.normpath(os.path.join(top, expanded(each.replace("\\", "/")))) for each in (images, masks)
    ]
    outside = [each for each in paths if each and not Path(each).is_relative_to(top)]
    if not outside:
        inside = [each and Path(each).relative_to(top).as_posix() for each in paths]
        return root, inside[0], inside[1]
    if images is None or masks is None:
        raise UserError(
            f"{outside[0]} is outside of data.root={root}. Set data.{'masks' if images else 'images'}, too."
        )
    base = Path("/", fixed_part(os.path.commonpath([str(each) for each in paths])))
    first, second = (Path(str(each)).relative_to(base).as_posix() for each in paths)
    return base, first, second


def _folder(base: Path, setting: str, text: str) -> str:
    """Return the folder that has to be listed for a place.

    Raises:
        UserError: It does not exist.
    """
    folder = fixed_part(text)
    if (base / folder).is_dir():
        return folder
    parent = next(each for each in (base / folder).parents if each.is_dir())
    there = sorted(each.name + "/" * each.is_dir() for each in parent.iterdir())
    raise UserError(
        f"data.{setting}={text}: there is no such folder in {base}. Set it to a folder or a pattern relative to "
        f"data.root; {parent} has {some(there)}.{nearest(Path(text).name, [each.rstrip('/') for each in there])}"
    )


def _several(listing: Listing, found: Sequence[Layout]) -> str:
    """Return the message that a folder can be read in several ways, with the settings of each."""
    lines = [f"  {each.settings()} ({len(each.pairs(listing))} pairs)" for each in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"  … and {len(found) - _SHOWN} more")
    return "\n".join(
        [f"{listing.root} can be read in several ways. Add the settings of the one that is meant:", *lines]
    )


def _no_pair(listing: Listing, layout: Layout) -> str:
    """Return the message that no photo has a mask in the folders that hold both."""
    images, masks = layout.images, layout.masks
    text = (
        f"No photo in {listing.root} has a mask: {images}/ contains {_contents(listing, images)}; {masks}/ contains "
        f"{_contents(listing, masks)}."
    )
    for other in find_layouts(listing, images, masks):
        if (other.images, other.masks) == (images, masks):
            name = other.mask_name
            value = "null" if name == "*" else f"'{name}'"
            return f"{text} Masks are named {name}, where * is the name of the photo: set data.mask_name={value}"
        return f"{text} Set {other.settings()}"
    return (
        f"{text} Photo and mask must have the same name up to the extension, such as {images}/a.jpg and {masks}/a.png, "
        "or masks must share what they have besides, such as a_mask.png: data.mask_suffix=_mask. "
        f"Extensions: {' '.join(sorted(EXTENSIONS))}.{_advice(listing)}"
    )


def _advice(listing: Listing) -> str:
    """Return sentences on files that are not read: on one of each kind."""
    files = ((folder, file) for folder in listing.files for file in listing.unread(folder).values())
    kinds = {file.text: f"{folder}/{file.name}" for folder, file in files}
    return "".join(f" {name} is {text}." for text, name in kinds.items())


def _none(listing: Listing, images: str | None, masks: str | None, mask_name: str | None) -> str:
    """Return the message that nothing tells which files are photos and which are masks."""
    check_readable(listing, listing.unreadable)
    root = listing.root
    of_photos, of_masks = places_of(listing, images, masks)
    if not (images or masks) and all(name in listing.files for name in _USUAL):
        of_photos, of_masks = ([name] for name in _USUAL)  # though they may be empty
    if of_photos and of_masks:
        return _no_pair(listing, Layout(of_photos[0], of_masks[0], mask_name or "*"))
    there = some(listing.contents("")) if listing.contents("") else "nothing"
    if not any(map(listing.images, listing.files)):
        expected = f"Expected files that end in {' '.join(sorted(EXTENSIONS))}."
        return f"{root} has no images: got {there}. {expected}{_advice(listing)}"
    name = "images" if of_masks else "masks"
    text = (
        f"No folder {name}/ in {root}. Expected images/ with the photos and masks/ with masks of the same names; got "
        f"{there}."
    )
    hints = [recognise(root) or looks_like(listing), _parent(root)]
    if likely := likely_layouts(listing):
        choices = ", or ".join(each.settings() for each in likely[:_SHOWN])
        hints.append(f"Names of files match: if these are photos and their masks, set {choices}")
    elif not any(hints):
        hints.append("Other folders and names: data.images=…, data.masks=…, data.mask_suffix=… or data.pairs=FILE.csv.")
    return " ".join([text, *filter(None, hints)])


def _parent(root: Path) -> str:
    """Return the hint that the folder above may be meant, where this one is its folder of photos or masks."""
    try:
        above = [each.name for each in root.absolute().parent.iterdir() if each.is_dir()]
    except OSError:
        above = []
    here = role(root.absolute().name)
    return (
        f"Perhaps data.root={root.parent} is meant."
        if here and {here, *map(role, above)} >= {"photos", "masks"}
        else ""
    )


def _contents(listing: Listing, place: str) -> str:
    """Return a few names of what a place holds."""
    if is_pattern(place):
        names = [path.rpartition("/")[2] for _, path in Place(place).files(listing)]
    else:
        names = listing.contents("" if place == "." else place)
    return some(names) if names else "nothing"
