"""What the names of folders and files say: words for photos, for masks, and for the three splits."""

import re
from collections.abc import Iterator

from segtune.config.types import SPLIT

_PHOTO_WORDS = """
image images img imgs photo photos picture pictures pic pics rgb input inputs original originals orig frame frames
source src raw stills
"""
_MASK_WORDS = """
mask masks msk msks label labels lbl lbls labeled labelled annotation annotations ann anns annot annots anno annos gt
gts groundtruth truth groundt segmentation segmentations segm seg segs segmap segmaps semantic target targets matte
mattes alpha alphas trimap trimaps silhouette silhouettes cutout cutouts manual
"""
#: Words of folders that lie beside the masks and show them in another way: they are taken only if nothing else is.
_ASIDE_WORDS = """
object objects instance instances npy color colors colour colours visualization visualizations visualisation viz vis
overlay overlays preview previews thumbnail thumbnails
"""
_PHOTO, _MASK, _ASIDE = (frozenset(words.split()) for words in (_PHOTO_WORDS, _MASK_WORDS, _ASIDE_WORDS))
_SPLITS = {"train": "training|train|tr", "val": "validation|valid|val", "test": "testing|test|te|ts"}
_JOINED = "|".join(_SPLITS.values())

#: A regular expression for the name of a split.
SPLIT_WORD = f"(?i:{_JOINED})"

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
_PREFIXED = re.compile(rf"(?:{_JOINED})(?=(?:{'|'.join(sorted(_PHOTO | _MASK))})$)")


def split_of(word: str) -> str | None:
    """Return the split that a word names: `train`, `val` or `test`."""
    return next((split for split, words in _SPLITS.items() if word.lower() in words.split("|")), None)


def role(name: str) -> str | None:
    """Return what the name of a folder says that is in it: `masks`, `photos`, or None."""
    words = {word.lower() for word, _ in _words(name)}
    return "masks" if words & _MASK else "photos" if words & _PHOTO else None


def is_aside(name: str) -> bool:
    """Return whether a folder shows masks in another way, as `SegmentationObject` beside `SegmentationClass` does."""
    return any(word.lower() in _ASIDE for word, _ in _words(name))


def says_mask(affix: str) -> bool:
    """Return whether what a mask's name has beside its photo's says that it is a mask, as in `_mask`."""
    return role(affix) == "masks"


def with_split(name: str) -> str:
    """Return a name with `{split}` in place of the first word that names a split; without one the name as it is."""
    for word, start in _words(name):
        if split_of(word):
            return f"{name[:start]}{SPLIT}{name[start + len(word) :]}"
    return name


def _words(name: str) -> Iterator[tuple[str, int]]:
    """Yield the words of a name and where they start: `JPEGImages` has two, and so has `trainannot`."""
    for match in _WORD.finditer(name):
        word, start = match[0], match.start()
        if joined := _PREFIXED.match(word.lower()):
            yield word[: joined.end()], start
            word, start = word[joined.end() :], start + joined.end()
        yield word, start
