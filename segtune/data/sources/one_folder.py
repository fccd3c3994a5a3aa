"""Tell photos from masks by their names, where one folder holds both."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from segtune.data.file_formats import EXTENSIONS, LOSSY
from segtune.data.sources.folder_words import is_aside, role, says_mask

_SEPARATORS = "_-. "
#: The first word of a name, up to a number or with the sign behind it.
_FIRST = re.compile(r"[^\W\d_]+(?=\d)|[^_\-. ]*[_\-. ]")

#: Photos and masks as patterns of file names, "" for all, and the name of a mask.
Names = tuple[str, str, str]


def both_in_one(files: Collection[tuple[str, str]], *, sure: bool = True) -> Iterator[Names]:
    """Yield the ways in which masks may be named after the photos beside them, the likeliest first.

    Args:
        files: Folder and name of each file.
        sure: Only names that say that they are masks, as `a_mask.png` does and `a_1.png` does not.
    """
    stems = sorted({(folder, os.path.splitext(name)[0]) for folder, name in files})  # sorted, for equal counts
    found = Counter(_affixes(stems, sure=sure))
    yield from (("", "", pattern) for pattern, _ in found.most_common(3))
    yield from _two_words(stem for _, stem in stems)
    yield from _same_names(stems)
    yield from _extensions(files)


def _affixes(stems: Collection[tuple[str, str]], *, sure: bool) -> Iterator[str]:
    """Yield the pattern of each name that begins or ends with that of another file in its folder."""
    known = set(stems)
    for folder, stem in stems:
        for end in range(1, len(stem)):
            for photo, affix, pattern in (
                (stem[:end], stem[end:], f"*{stem[end:]}"),
                (stem[end:], stem[:end], f"{stem[:end]}*"),
            ):
                if (folder, photo) in known and (_is_mask(affix) if sure else not affix.isalnum()):
                    yield pattern


def _is_mask(affix: str) -> bool:
    """Return whether an affix says that a file is a mask; so does the photo's extension, as in `a.jpg.png`."""
    return says_mask(affix) or affix.lower() in EXTENSIONS


def _two_words(stems: Iterable[str]) -> Iterator[Names]:
    """Yield patterns of photos and masks that have words of their own, as `a_sat` and `a_mask`, `img_1` and `gt_1`."""
    ends, starts = Counter[str](), Counter[str]()
    for stem in stems:
        last = max(stem.rfind(sign) for sign in _SEPARATORS)
        ends[stem[last:] if last > 0 else ""] += 1
        starts[first[0] if (first := _FIRST.match(stem)) else ""] += 1
    for counts, pattern in ((ends, "*{}"), (starts, "{}*")):
        words = [word for word, _ in counts.most_common() if word]
        of_masks = [word for word in words if says_mask(word)]
        others = [word for word in words if not says_mask(word) and not any(sign.isdigit() for sign in word)]
        if of_masks:
            yield "", "", pattern.format(of_masks[0])  # names may differ in case or zeros
            if others:
                yield pattern.format(others[0]), pattern.format(of_masks[0]), "*"


def _same_names(stems: Collection[tuple[str, str]]) -> Iterator[Names]:
    """Yield the names of photos and masks that each image has in a folder of its own, as `a/image` and `a/mask`."""
    names = [
        name for name, count in Counter(stem for _, stem in stems).most_common() if count > 1 and not is_aside(name)
    ]
    photos, masks = ([name for name in names if role(name) == kind] for kind in ("photos", "masks"))
    if photos and masks:
        yield photos[0], masks[0], "*"


def _extensions(files: Iterable[tuple[str, str]]) -> Iterator[Names]:
    """Yield patterns of photos and masks that differ in the extension alone, as `a.jpg` and `a.png` do."""
    found: dict[tuple[str, str], set[str]] = {}
    for folder, name in files:
        stem, extension = os.path.splitext(name)
        found.setdefault((folder, stem), set()).add(extension.lower())
    both = Counter(tuple(sorted(each, key=lambda one: one not in LOSSY)) for each in found.values() if len(each) == 2)
    for (photo, mask), _ in both.most_common(1):
        if photo in LOSSY and mask not in LOSSY:
            yield f"*{photo}", f"*{mask}", "*"
