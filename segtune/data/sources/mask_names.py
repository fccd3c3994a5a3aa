"""Names of masks that differ from those of their photos by what stands before or behind: `a.jpg` and `a_mask.png`."""

from collections import Counter
from collections.abc import Collection

#: Masks that are looked at to find what they share.
_LOOKED_AT = 300


def photo_of(mask: str, pattern: str | None) -> str | None:
    """Return the stem of a mask's photo; None if the mask's stem does not fit the pattern.

    Args:
        mask: The stem of the mask's file.
        pattern: `data.mask_name`, in which `*` stands for the stem of the photo; None: the same stem.
    """
    if pattern is None:
        return mask
    before, _, behind = pattern.partition("*")
    fits = mask.startswith(before) and mask.endswith(behind) and len(mask) > len(before) + len(behind)
    return mask[len(before) : len(mask) - len(behind)] if fits else None


def shared_pattern(photos: Collection[str], masks: Collection[str]) -> str | None:
    """Return the pattern by which most masks are named after a photo; None unless it fits half of the fewer of both."""
    stems = set(photos)
    found: Counter[str] = Counter()
    for mask in sorted(masks)[:_LOOKED_AT]:
        inside = ((i, j) for i in range(len(mask)) for j in range(i + 1, len(mask) + 1) if mask[i:j] in stems)
        whole = [(j - i, i, j) for i, j in inside if i == 0 or j == len(mask) or not _joins(mask, i, j)]
        if whole:
            _, i, j = max(whole)
            found[f"{mask[:i]}*{mask[j:]}"] += 1
    if not found:
        return None
    pattern = found.most_common(1)[0][0]
    pairs = {photo_of(mask, pattern) for mask in masks} & stems
    return pattern if 2 * len(pairs) >= min(len(photos), len(masks)) else None


def _joins(text: str, start: int, end: int) -> bool:
    """Return whether a letter or digit stands directly before or behind a part of a text."""
    return text[start - 1].isalnum() or text[end].isalnum()
