"""Find out how a folder keeps its photos and masks, from the names of its folders and files."""

import os
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from segtune.config.types import SPLIT
from segtune.data.sources.folder_words import is_aside, role, with_split
from segtune.data.sources.listing import Listing
from segtune.data.sources.mask_names import Matches, match, own_affixes, own_patterns, photo_of, shared_patterns
from segtune.data.sources.one_folder import both_in_one
from segtune.data.sources.places import Key, Place

#: Folders among which likely layouts are looked for.
_MOST_LIKELY = 12
#: Folders in a folder whose names differ in a number alone are named after images from here on.
_MANY = 3


@dataclass(frozen=True)
class Layout:
    """Where photos and masks are, and the name of a mask: `data.images`, `data.masks` and `data.mask_name`."""

    images: str
    masks: str
    mask_name: str

    def settings(self) -> str:
        """Return the settings that say it, as they are pasted behind a command."""
        given = [f"data.images={self.images}", f"data.masks={self.masks}"]
        if self.mask_name != "*":
            given.append(f"data.mask_name={self.mask_name}")
        return " ".join(map(shlex.quote, given))

    def files(self, listing: Listing) -> tuple[dict[Key, list[str]], dict[Key, list[str]]]:
        """Return the paths of photos and of masks by key; what is in both places is a mask if its name fits."""
        of_photos, of_masks = Place(self.images).files(listing), Place(self.masks).files(listing)
        both = {path for _, path in of_photos} & {path for _, path in of_masks}
        others = {path for key, path in of_masks if path in both and photo_of(key.name, self.mask_name) is None}
        of_masks = [each for each in of_masks if each[1] not in others]
        of_photos = [each for each in of_photos if each[1] not in both - others]
        return _by_key(of_photos), _by_key(of_masks)

    def pairs(self, listing: Listing) -> dict[Key, Key]:
        """Return the mask of each photo that has one."""
        return self._match(*self.files(listing)).pairs

    def fits(self, listing: Listing, *, all_masks: bool = False) -> bool:
        """Return whether masks are named after photos, for at least half of the fewer of both.

        With `all_masks` every mask, and several, as where only a number is compared: one number may be equal by chance.
        """
        photos, masks = self.files(listing)
        pairs = len(self._match(photos, masks).pairs)
        if all_masks:
            return pairs == len(masks) > 1
        return pairs > 0 and 2 * pairs >= min(len(photos), len(masks))

    def _match(self, photos: Mapping[Key, list[str]], masks: Collection[Key]) -> Matches:
        return match({key: paths[0] for key, paths in photos.items()}, masks, self.mask_name)


def _by_key(files: Iterable[tuple[Key, str]]) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {}
    for key, path in files:
        found.setdefault(key, []).append(path)
    return found


@dataclass(frozen=True)
class _Folders:
    """Folders whose names differ in the split and in parts that say nothing, as one place."""

    text: str
    role: str | None = None
    aside: bool = False


def find_layouts(
    listing: Listing, images: str | None = None, masks: str | None = None, mask_name: str | None = None
) -> list[Layout]:
    """Return the layouts in which masks are named after photos, for at least half of the fewer of both.

    Folders that say what they hold come before others, two folders before one that holds both, and masks before
    folders that show them in another way. If there are several layouts, nothing says which is meant.

    Args:
        listing: The names of folders and files.
        images: `data.images` if it is given.
        masks: `data.masks` if it is given.
        mask_name: `data.mask_name` if it is given.
    """
    places = _places(listing, splits=all(SPLIT in given for given in (images, masks) if given))
    of_photos = [_Folders(images)] if images else [each for each in places if each.role != "masks"]
    of_masks = [_Folders(masks, "masks")] if masks else [each for each in places if each.role == "masks"]
    two = [(one, other) for one, other in product(of_photos, of_masks) if _may_fit(one, other)]
    for aside, unsaid in ((False, False), (False, True), (True, False), (True, True)):
        chosen = [
            (one.text, other.text)
            for one, other in two
            if (one.aside or other.aside) == aside and (one.role is None and images is None) == unsaid
        ]
        found = [layout for each in chosen for layout in _in_two(listing, *each, mask_name)]
        if found:
            return found
    deeper = [
        layout
        for one, other in two
        for each in product(_and_below(listing, one.text), _and_below(listing, other.text))
        for layout in _in_two(listing, *each, mask_name)
    ]
    if deeper or (images and masks and images != masks):
        return deeper
    named = any(each.role == "photos" for each in places)  # then folders of masks hold no photos
    alone = [_Folders(images or masks or "")] if images or masks else [each for each in places if not each.aside]
    alone = [each for each in alone if not (named and each.role == "masks")]
    return [layout for each in alone if (layout := _in_one(listing, each.text, mask_name))]


def places_of(listing: Listing, images: str | None = None, masks: str | None = None) -> tuple[list[str], list[str]]:
    """Return the places whose names say that they hold photos, and those that say masks, or the given ones."""
    places = _places(listing)
    found = [[each.text for each in places if each.role == role and not each.aside] for role in ("photos", "masks")]
    return [images] if images else found[0], [masks] if masks else found[1]


def _and_below(listing: Listing, text: str) -> list[str]:
    """Return a place and the folders in it, as those of classes in a folder of masks."""
    below = {key.name.partition("/")[0] for key, _ in Place(text).files(listing) if "/" in key.name}
    return [text, *(f"{text}/{name}" for name in sorted(below) if text != "." and len(below) <= _MOST_LIKELY)]


def _may_fit(photos: _Folders, masks: _Folders) -> bool:
    return photos.text != masks.text and (SPLIT in photos.text) == (SPLIT in masks.text)


def _in_two(listing: Listing, images: str, masks: str, mask_name: str | None) -> list[Layout]:
    """Return the layouts of photos in one place and masks in another: several if there are several kinds of masks."""
    photos, of_masks = (_names(keys) for keys in Layout(images, masks, mask_name or "*").files(listing))
    if mask_name is not None:
        return _that_fit(listing, [Layout(images, masks, mask_name)])
    kinds = shared_patterns(photos, of_masks)
    if len(kinds) > 1:
        return _that_fit(listing, [Layout(images, _inside(masks, each, listing), "*") for each in _plain(kinds)])
    if found := _that_fit(listing, [Layout(images, masks, kinds[0] if kinds else "*")]):
        return found
    if own := own_patterns(photos, of_masks):
        layout = Layout(images, masks, own[1])
        if own[0] != "*":
            layout = Layout(_inside(images, own[0], listing), _inside(masks, own[1], listing), "*")
        if layout.fits(listing, all_masks=own[0] != "*"):
            return [layout]
    for pattern in own_affixes(photos):
        kinds = shared_patterns([name for each in photos if (name := photo_of(each, pattern))], of_masks)
        place = _inside(images, pattern, listing)
        layouts = [Layout(place, _inside(masks, each, listing), "*") for each in _plain(kinds)]
        if found := [layout for layout in layouts if layout.fits(listing, all_masks=True)]:
            return found
    return []


def _that_fit(listing: Listing, layouts: Iterable[Layout]) -> list[Layout]:
    return [layout for layout in layouts if layout.fits(listing)]


def _plain(kinds: list[str]) -> list[str]:
    """Return the kinds of masks without those that show others in another way, if there are others."""
    return [each for each in kinds if not is_aside(each)] or kinds


def _in_one(listing: Listing, text: str, mask_name: str | None, *, sure: bool = True) -> Layout | None:
    """Return the layout of a place that holds both photos and masks."""
    if mask_name is not None:
        layout = Layout(text, text, mask_name)
        return layout if layout.fits(listing) else None
    files = [os.path.split(path) for _, path in Place(text).files(listing)]
    for photos, masks, name in both_in_one(files, sure=sure):
        images, of_masks = (_inside(text, each, listing) if each else text for each in (photos, masks))
        if (layout := Layout(images, of_masks, name)).fits(listing):
            return layout
    return None


def likely_layouts(listing: Listing) -> list[Layout]:
    """Return layouts in which files are named after others, though nothing says that they are masks."""
    texts = {
        "/".join(with_split(part) for part in folder.split("/")) or "."
        for folder in listing.files
        if listing.images(folder)
    }
    if len(texts) > _MOST_LIKELY:
        return []
    found = [
        layout
        for one, other in product(sorted(texts), repeat=2)
        if _may_fit(_Folders(one), _Folders(other)) and role(one) != "masks" and role(other) != "photos"
        if not _lossy(listing, other)
        for layout in _in_two(listing, one, other, None)
    ]
    return found or [layout for each in sorted(texts) if (layout := _in_one(listing, each, None, sure=False))]


def _lossy(listing: Listing, text: str) -> bool:
    """Return whether all files in a place are JPEGs, as masks rarely are."""
    return all(path.lower().endswith((".jpg", ".jpeg")) for _, path in Place(text).files(listing))


def _inside(place: str, files: str, listing: Listing) -> str:
    """Return the place of the files of a pattern in a folder, and below it where it has files there."""
    if files == "*":
        return place
    begin = "" if place == "." else f"{place}/"
    nested = any(key.name.count("/") > place.count("*") for key, _ in Place(place).files(listing))
    return f"{begin}{'**/' if nested else ''}{files}"


def _names(keys: Iterable[Key]) -> list[str]:
    return [key.name.rpartition("/")[2] for key in keys]


def _places(listing: Listing, *, splits: bool = True) -> list[_Folders]:
    """Return the folders with images as places, by the words in their names; with `splits`, those of splits as one."""
    folders = [folder.split("/") if folder else [] for folder in sorted(listing.files) if listing.images(folder)]
    plain = _names_of_images(folders)
    found: dict[tuple[str, ...], list[list[str]]] = {}
    for parts in folders:
        said = [_says(part) and part not in plain for part in parts]
        end = max((i + 1 for i, each in enumerate(said) if each), default=0)
        texts = [with_split(part) if said[i] and splits else part for i, part in enumerate(parts[:end])]
        found.setdefault(tuple(text if said[i] else "*" for i, text in enumerate(texts)), []).append(texts)
    places = [_as_one(key, texts) for key, texts in found.items()]
    unsaid = [parts for parts in folders if parts and not any(_says(part) and part not in plain for part in parts)]
    if len(unsaid) == 1:
        places.append(_Folders("/".join(unsaid[0])))
    return places


def _as_one(said: tuple[str, ...], folders: list[list[str]]) -> _Folders:
    """Return folders that agree in all parts that say something as one place."""
    parts = [options.pop() if len(options := {each[i] for each in folders}) == 1 else "*" for i in range(len(said))]
    roles = [found for part in said if part != "*" and (found := role(part.replace(SPLIT, "")))]
    return _Folders("/".join(parts) or ".", roles[-1] if roles else None, any(map(is_aside, said)))


def _says(part: str) -> bool:
    return role(part) is not None or with_split(part) != part or is_aside(part)


def _names_of_images(folders: Iterable[Sequence[str]]) -> set[str]:
    """Return names of folders that are those of images, people or days, though they may hold a word for masks.

    They occur below folders of photos and below folders of masks, or many differ in a number alone, as `img_001` does.
    The name of a split is another thing.
    """
    below: dict[str, set[str]] = {}
    series: dict[tuple[str, ...], set[str]] = {}
    for parts in folders:
        roles: set[str] = set()
        for depth, part in enumerate(parts):
            below.setdefault(part, set()).update(roles)
            roles |= {found for found in [role(part)] if found}
            series.setdefault((*parts[:depth], re.sub(r"\d+", "0", part)), set()).add(part)
    plain = {part for part, roles in below.items() if len(roles) == 2}
    plain |= {part for alike in series.values() if len(alike) >= _MANY for part in alike}
    return {part for part in plain if with_split(part) == part}
