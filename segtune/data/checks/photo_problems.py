"""Problems of photos as their files hold them: the range of values, orientation, several images in one file."""

from collections import Counter
from collections.abc import Sequence
from functools import reduce
from operator import add

from segtune.data.checks.scan import SampleStats
from segtune.data.orientation import NAMES
from segtune.data.sources.base import Problem, place
from segtune.data.value_range import DARK, NEARLY_BLACK, ValueRange, depth_of
from segtune.errors import some


def photo_problems(seen: Sequence[SampleStats], max_value: int | None) -> list[Problem]:
    """Return the problems of photos; `max_value` is the value that is white in 16 bits, None for 65535."""
    return _range_problems(seen, max_value) + _orientation_problems(seen) + _page_problems(seen)


def _range_problems(seen: Sequence[SampleStats], max_value: int | None) -> list[Problem]:
    deep = [(str(one), one.range) for one in seen if one.range and one.range.depth == 16]
    black = [str(one) for one in seen if one.range and one.range.depth == 8 and one.range.is_nearly_black]
    problems = []
    if black:
        text = f"nearly black: {len(black)} photos of 8 bits have no value above {256 // NEARLY_BLACK - 1} of 255"
        problems.append(Problem("warning", "images", f"{text}: {some(black)}; brighten them, or leave them out"))
    if deep:
        return problems + _deep_problems(deep, max_value)
    if max_value is not None and seen:
        text = f"data.max_value={max_value} has no effect: it is for photos of 16 bits, and all have 8"
        problems.append(Problem("warning", "images", text))
    return problems


def _deep_problems(deep: Sequence[tuple[str, ValueRange]], max_value: int | None) -> list[Problem]:
    """Return problems of photos of 16 bits, of which cameras and microscopes often fill 8, 10, 12 or 14."""
    whole = reduce(add, (found for _, found in deep))
    white = whole.white
    used = f"the values of {len(deep)} photos of 16 bits go up to {whole.largest}, and {white} is white"
    advice = f"set data.max_value={depth_of(whole.largest)}"
    dark = [(name, found.largest) for name, found in deep if found.is_nearly_black]
    problems = []
    if whole.is_nearly_black:
        keep = f", or data.max_value={white} to keep them so" if max_value is None else ""
        problems.append(Problem("warning" if max_value else "error", "images", f"nearly black: {used}; {advice}{keep}"))
    elif whole.is_within(DARK):
        problems.append(Problem("warning", "images", f"dark: {used}; {advice}"))
    elif (whole.usual + 1) * NEARLY_BLACK <= white + 1:
        text = f"nearly black but for outliers: {used}, but 99.9 % are at most {whole.usual}"
        advice = f"if brighter ones are faults or markers, set data.max_value={whole.usual}"
        problems.append(Problem("warning", "images", f"{text}; {advice}"))
    elif dark:
        text = f"nearly black: {used}, but those of {len(dark)} only to {max(largest for _, largest in dark)}"
        names = some([name for name, _ in dark])
        problems.append(Problem("warning", "images", f"{text}: {names}; save all photos with one range of values"))
    if whole.beyond:
        clipped = [name for name, found in deep if found.beyond]
        text = f"values above data.max_value={white}: {whole.beyond / whole.count:.2%} of all, up to {whole.largest}"
        text += f", become white, in {len(clipped)} of {len(deep)} photos of 16 bits: {some(clipped)}"
        problems.append(Problem("warning", "images", text))
    return problems


def _orientation_problems(seen: Sequence[SampleStats]) -> list[Problem]:
    """Return where the orientations of their files turn photo and mask differently, and sizes cannot tell."""
    problems = []
    photos = [one for one in seen if one.turned_apart and one.orientations[1] == 1]
    if photos:
        turns = Counter(NAMES[one.orientations[0]] for one in photos)
        fitting = sum(one.orientations[0] > 1 and one.orientations[1] == 1 and not one.turned_apart for one in seen)
        text = (
            f"turned by EXIF: {len(photos)} photos ({', '.join(f'{turns[name]} {name}' for name in sorted(turns))}), "
        )
        text += f"but not their masks: {some(list(map(str, photos)))}. That is right if the masks were drawn on the "
        text += "photos as displayed, which sizes cannot tell here"
        text += f" ({fitting} other masks have the size of their turned photo)" if fitting else ""
        text += (
            "; `check` marks them on its contact sheet. If the masks were drawn on the pixels as stored, remove the "
        )
        text += "turn from the photos: `exiftool -Orientation= FILE`"
        problems.append(Problem("warning", "images", text))
    masks = [str(one) for one in seen if one.turned_apart and one.orientations[1] > 1]
    if masks:
        text = (
            f"turned by EXIF: {len(masks)} masks, but their photos not in the same way: {some(masks)}; `check` marks "
        )
        text += "them on its contact sheet. If they do not fit, remove the turn: `exiftool -Orientation= FILE`"
        problems.append(Problem("warning", "masks", text))
    return problems


def _page_problems(seen: Sequence[SampleStats]) -> list[Problem]:
    problems = []
    for number in range(2):
        for one in seen:
            if (count := one.frames[number]) > 1:
                where = place((one.pair.photo, one.pair.mask)[number])
                text = f"several images in one file: only the first of {count} is used"
                problems.append(Problem("warning", where, text))
    return problems
