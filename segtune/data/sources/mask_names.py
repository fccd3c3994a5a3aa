"""Names of masks that differ from those of their photos by what stands before or behind: `a.jpg` and `a_mask.png`."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from segtune.data.sources.places import Key

#: Masks that are looked at to find what they share.
_LOOKED_AT = 300
#: Kinds of masks that a photo may have.
_KINDS = 8

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)


def photo_of(mask: str, pattern: str | None) -> str | None:
    """Return the stem of a mask's photo; None if the mask's stem does not fit the pattern.

    Args:
        mask: The stem of the mask's file; folders before it stay as they are.
        pattern: `data.mask_name`, in which `*` stands for the stem of the photo; None: the same stem.
    """
    if pattern is None:
        return mask
    folder, slash, name = mask.rpartition("/")
    before, _, behind = pattern.partition("*")
    fits = name.startswith(before) and name.endswith(behind) and len(name) > len(before) + len(behind)
    return f"{folder}{slash}{name[len(before) : len(name) - len(behind)]}" if fits else None


@dataclass
class Matches:
    """Which mask belongs to which photo.

    Attributes:
        pairs: The mask by its photo.
        photos: Photos without a mask.
        masks: Masks without a photo, with the key that it would have.
        strange: Masks whose names do not fit the pattern.
        notes: What was needed besides equal names, in words.
    """

    pairs: dict[Key, Key]
    photos: list[Key]
    masks: dict[Key, Key] = field(default_factory=dict)
    strange: list[Key] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def match(photos: Mapping[Key, str], masks: Collection[Key], pattern: str | None) -> Matches:
    """Return which mask belongs to which photo.

    Names must be equal, except for the pattern; a mask may be named after the whole file of its photo, as
    `a.jpg.png`. What is left is matched without regard to case, then to zeros before numbers, where only one photo and
    one mask come into question.

    Args:
        photos: The file of each photo.
        masks: The masks.
        pattern: `data.mask_name`, see `photo_of`.
    """
    named = {mask: photo_of(mask.name, pattern) for mask in masks}
    matches = Matches({}, [], strange=[mask for mask, name in named.items() if name is None])
    wanted = {mask: Key(mask.split, name) for mask, name in named.items() if name is not None}
    for mask in [mask for mask, photo in wanted.items() if photo in photos]:
        matches.pairs[wanted.pop(mask)] = mask
    rest = [photo for photo in photos if photo not in matches.pairs]
    for rule, note in ((_whole(photos), ""), (_folded, "in case"), (_unpadded, "in zeros before numbers")):
        if not (rest and wanted):
            break
        found = _unique(rest, wanted, rule)
        matches.pairs.update(found)
        for mask in found.values():
            del wanted[mask]
        rest = [photo for photo in rest if photo not in found]
        if found and note:
            names = "name differs" if len(found) == 1 else "names differ"
            matches.notes.append(f"{len(found)} {names} {note}")
    matches.photos, matches.masks = rest, wanted
    return matches


def _whole(photos: Mapping[Key, str]) -> Callable[[Key, bool], Key]:
    """Return the rule by which a mask is named after the file of its photo with its extension."""

    def rule(key: Key, of_photo: bool) -> Key:
        return Key(key.split, key.name + os.path.splitext(photos[key])[1]) if of_photo else key

    return rule


def _folded(key: Key, of_photo: bool) -> Key:
    return Key(key.split, key.name.casefold())


def _unpadded(key: Key, of_photo: bool) -> Key:
    return Key(key.split, re.sub(r"(?<!\d)0+(?=\d)", "", key.name.casefold()))


def _unique(photos: Iterable[Key], masks: Mapping[Key, Key], rule: Callable[[Key, bool], Key]) -> dict[Key, Key]:
    """Return the masks of photos that a rule makes equal, where it makes no others equal to them."""
    of_photos = _alone((rule(photo, True), photo) for photo in photos)
    of_masks = _alone((rule(wanted, False), mask) for mask, wanted in masks.items())
    return {of_photos[key]: of_masks[key] for key in of_photos.keys() & of_masks.keys()}


def _alone(named: Iterable[tuple[H, T]]) -> dict[H, T]:
    """Return what has a name for itself."""
    named = list(named)
    counts = Counter(name for name, _ in named)
    return {name: value for name, value in named if counts[name] == 1}


def shared_patterns(photos: Collection[str], masks: Collection[str]) -> list[str]:
    """Return the patterns by which masks are named after photos, that of most masks first.

    The first fits half of the fewer of both. There are several if photos have masks of several kinds, such as `a_ids`
    and `a_edges`: each fits half of the photos.
    """
    stems = set(photos)
    found: Counter[str] = Counter()
    for mask in sorted(masks)[:_LOOKED_AT]:
        inside = ((i, j) for i in range(len(mask)) for j in range(i + 1, len(mask) + 1) if mask[i:j] in stems)
        whole = [(j - i, i, j) for i, j in inside if i == 0 or j == len(mask) or not _joins(mask, i, j)]
        if whole:
            _, i, j = max(whole)
            found[f"{mask[:i]}*{mask[j:]}"] += 1
    pairs = {each: len({photo_of(mask, each) for mask in masks} & stems) for each, _ in found.most_common(_KINDS)}
    of_all = [each for each, count in pairs.items() if 2 * count >= len(stems)]
    first = [each for each, count in pairs.items() if 2 * count >= min(len(photos), len(masks))][:1]
    return of_all if "*" not in of_all and len(of_all) > 1 else first


def own_patterns(photos: Collection[str], masks: Collection[str]) -> tuple[str, str] | None:
    """Return the patterns of photos and masks that each share affixes of their own: `img_1` and `mask_1`.

    What masks have besides the affixes of photos is in the second pattern alone: `*` and `*_mask` for `img_1` and
    `IMG_001_mask`. None if there are none, or too few names to tell.
    """
    if min(len(photos), len(masks)) < 2:
        return None
    (before, behind), (mask_before, mask_behind) = map(_common, (photos, masks))
    if mask_before.casefold().endswith(before.casefold()):
        mask_before, before = mask_before[: len(mask_before) - len(before)], ""
    if mask_behind.casefold().startswith(behind.casefold()):
        mask_behind, behind = mask_behind[len(behind) :], ""
    found = f"{before}*{behind}", f"{mask_before}*{mask_behind}"
    return None if found == ("*", "*") else found


def own_affixes(names: Collection[str]) -> list[str]:
    """Return patterns of what all names end with, begin with, and both, up to a number or a whole word."""
    if len(names) < 2:
        return []
    before, behind = _common(names)
    patterns = dict.fromkeys((f"*{behind}", f"{before}*", f"{before}*{behind}"))
    return [each for each in patterns if each != "*"]


def _common(names: Collection[str]) -> tuple[str, str]:
    """Return what all names begin and end with, up to a number or a whole word."""
    before = _beginning(names)
    behind = _beginning([name[len(before) :][::-1] for name in names])[::-1]
    return before, behind


def _beginning(names: Collection[str]) -> str:
    found = os.path.commonprefix(list(names)).rstrip("0123456789")  # noqa: RUF071 - by characters
    following = {name[len(found) : len(found) + 1] for name in names}
    if any(map(str.isalpha, following)):
        found = found.rstrip("".join(each for each in set(found) if each.isalpha()))
    return found


def _joins(text: str, start: int, end: int) -> bool:
    """Return whether a letter or digit stands directly before or behind a part of a text."""
    return text[start - 1].isalnum() or text[end].isalnum()
