"""Does `data.foreground` fit the values of all masks of a data set? If not: which settings would mean what."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np

from segtune.data.checks.scan import SampleStats
from segtune.data.checks.void_pixels import name_of, on_void, void_value
from segtune.data.file_formats import LOSSY
from segtune.data.labels import Colour, Foreground, Value, brightness, colour_of, grey_of, is_background, number_of
from segtune.data.sources.base import Problem
from segtune.errors import some

Counts = Mapping[Value, int]

# A mask with more distinct values than this has ids of objects rather than of a few classes.
_MOST_CLASSES = 16
_MOST_LISTED = 8
# The brightest values of blurred masks of one object, in 8 and 16 bits.
_WHITES = (*range(250, 256), *range(65000, 65536))


def value_problems(seen: Sequence[SampleStats], foreground: Foreground) -> list[Problem]:
    """Return where the foreground rule does not fit the values that occur in the data set, with what would fit.

    Under `auto` one value besides 0 and black is the object, whatever its number in each file: by its colour, or by its
    number where files without colours have the same. Anything else is an error that no guess decides. Values that
    `data.ignore` names are none of these.
    """
    masks = Counter(value for one in seen for value in one.values)
    if not masks:
        return []
    rule = foreground.rule
    if rule == "auto":
        return [] if _is_one_object(seen, _others(masks)) else [_error(_ambiguity(seen, masks))]
    if isinstance(rule, int):
        error = _of_threshold(rule, seen, masks)
    elif rule == "nonzero":
        error = _of_nonzero(masks)
    elif foreground.colours:
        error = _of_colours(foreground, masks)
    else:
        error = _of_numbers(foreground.numbers, masks)
    return [_error(error)] if error else _warnings(seen, masks, foreground)


def list_values(masks: Counts) -> str:
    """Return the most common values, each with the number of masks that have it."""
    common = sorted(sorted(masks, key=lambda value: (-masks[value], order(value)))[:_MOST_LISTED], key=order)
    listed = ", ".join(f"{value} in {masks[value]}" for value in common)
    return f"values (with the number of masks): {listed}" + (", ..." if len(masks) > _MOST_LISTED else "")


def _error(text: str) -> Problem:
    return Problem("error", "masks", text)


def order(value: Value) -> tuple[bool, int, int]:
    """Return the key that sorts values by their numbers, those without a number last, by colour."""
    number = number_of(value)
    return number is None, number or 0, value.rgb if isinstance(value, Colour) else -1


def _others(masks: Counts) -> dict[Value, int]:
    return {value: count for value, count in masks.items() if not is_background(value)}


def _is_one_object(seen: Sequence[SampleStats], others: Counts) -> bool:
    """Return whether all values besides the background are the same number, or the same colour and never together."""
    if len(others) < 2:
        return True
    numbers = {number_of(value) for value in others}
    if len(numbers) == 1 and not numbers & {0, None}:
        return len({value.rgb for value in others if isinstance(value, Colour)}) < 2
    colours = {colour_of(value) for value in others}
    return len(colours) == 1 and None not in colours and not _together(seen, others)


def _together(seen: Sequence[SampleStats], values: Iterable[Value]) -> bool:
    """Return whether any mask has two of the values."""
    chosen = set(values)
    return any(len(chosen.intersection(one.values)) > 1 for one in seen)


def _ambiguity(seen: Sequence[SampleStats], masks: Counts) -> str:
    others = _others(masks)
    if _numbered(masks):
        found = len({number_of(value) for value in others})
        needs = f"values: data.foreground=auto needs exactly one non-zero value, got {found}"
        advice = _advice_on_numbers(seen, masks)
    else:
        found = len({colour_of(value) or number_of(value) for value in others})
        needs = f"colours: data.foreground=auto needs black and exactly one other colour, got {found} others"
        advice = _advice_on_colours(seen, masks)
    return f"ambiguous mask {needs}; {list_values(others)}. {advice}{_strays(seen, others)}"


def _numbered(masks: Counts) -> bool:
    """Return whether a number means the same in all masks, and 0 the background."""
    fits = all((number_of(value) == 0) == is_background(value) for value in masks)
    return fits and not _differ({number_of(value) for value in masks}, masks)


def _advice_on_numbers(seen: Sequence[SampleStats], masks: Counts) -> str:
    others = _others(masks)
    if _has_edges(seen) and _halves(masks):
        most = max(len(one.values) for one in seen)
        white = max(map(brightness, masks)) in _WHITES
        unless = "" if white else ", unless they are ids, which only lossless masks keep apart"
        return (
            f"This looks like grey edges from JPEG or anti-aliasing ({most} values in one mask): take "
            f"the bright half with data.foreground={_half(masks)}{unless}."
        )
    void = void_value(seen, others, numbered=True)
    ids = [value for value in others if value != void]
    common = max(sorted(ids, key=order), key=others.__getitem__)
    named = f"as in data.foreground=[{number_of(common)}]"
    if len(ids) == len(others) == 2:
        named = _choices(others, numbered=True)
    if not _usually_background(seen):
        choices = f"{_choices(others, numbered=True)}. {_all_but(masks)}{_on_trimaps(masks)}"
        return f"{_without_background(seen, '0')}: {choices}"
    if len(others) == 2 and not _together(seen, others):
        return (
            f"No mask has both of them. If they mean the same object, as in masks of two tools, set "
            f"data.foreground=nonzero; if they are two classes, take one with {_choices(others, numbered=True)}."
        )
    if void is not None and len(ids) == 1:
        return f"With data.ignore={name_of(void)} the object is {number_of(common)}.{on_void(others, void)}"
    kind = "several classes"
    if max(len(one.values) for one in seen) > _MOST_CLASSES:
        kind = "objects or of many classes"
    return (
        f"This looks like ids of {kind}: name those you want, {named}, "
        f"or take all of them with data.foreground=nonzero.{'' if void is None else on_void(others, void)}"
    )


def _advice_on_colours(seen: Sequence[SampleStats], masks: Counts) -> str:
    others = _others(masks)
    void = void_value(seen, others, numbered=False)
    if void is None and _has_edges(seen):
        if _halves(masks):
            return f"This looks like blurred edges: take the bright half with data.foreground={_half(masks)}."
        return "This looks like blurred edges between colours: save the masks without anti-aliasing."
    if not _usually_background(seen):
        return f"{_without_background(seen, 'black')}: {_choices(others)}."
    start = "" if _together(seen, others) else "No mask has two of them. "
    named = _choices({value: count for value, count in others.items() if value != void})
    also = "" if void is None else on_void(others, void)
    return f"{start}Name those of the object: {named}; or take all but black with data.foreground=nonzero.{also}"


def _without_background(seen: Sequence[SampleStats], name: str) -> str:
    having = sum(any(map(is_background, one.values)) for one in seen)
    count = f"Only {having} of {len(seen)} masks have" if having else f"None of the {len(seen)} masks has"
    return f"{count} {name}, so none of these is the background by itself. Name those of the object"


def _usually_background(seen: Sequence[SampleStats]) -> bool:
    return 2 * sum(any(map(is_background, one.values)) for one in seen) >= len(seen)


def _choices(values: Counts, *, numbered: bool = False) -> str:
    """Return the settings that take one of the values each; of many values, of the most common one."""
    named: dict[str, int] = Counter()
    numbered = numbered or not any(isinstance(value, Colour) for value in values)
    for value in sorted(values, key=order):
        rgb = colour_of(value)  # a colour is right in every file, whatever its number there
        named[str(number_of(value)) if numbered or rgb is None else f"#{rgb:06x}"] += values[value]
    if len(named) > _MOST_LISTED:
        return f"as in data.foreground=[{max(named, key=named.__getitem__)}]"
    return " or ".join(f"data.foreground=[{name}]" for name in named)


def _all_but(masks: Counts) -> str:
    common = max(sorted(masks, key=order), key=masks.__getitem__)
    return f"All but one, such as {common}: data.foreground=[{number_of(common)}] data.invert=true."


def _on_trimaps(masks: Counts) -> str:
    if set(masks) != {1, 2, 3}:
        return ""
    return (
        " (In the trimaps of the Oxford-IIIT pets 1 is the animal, 2 the background and 3 the outline between them; "
        "data.foreground=[1] data.ignore=3 leaves the outline out.)"
    )


def _strays(seen: Sequence[SampleStats], others: Counts) -> str:
    """Return where the rarest values are, if that are few masks of many."""
    most = max(others.values())
    rare = {value for value, count in others.items() if count * 10 <= most}
    where = [str(one) for one in seen if rare.intersection(one.values)]
    return f" Rare values are in {some(where)}." if where and 10 * len(where) <= len(seen) else ""


def _has_edges(seen: Sequence[SampleStats]) -> bool:
    """Return whether the values between the darkest and the brightest lie on slopes, as in blurred or JPEG masks."""
    lossy = [one for one in seen if len(one.values) > 2 and one.pair.mask.suffix.lower() in LOSSY]
    if sum(one.edge_values for one in seen) > sum(one.area_values for one in seen):
        return True
    return 2 * sum(one.area_values for one in lossy) < sum(len(one.values) - 2 for one in lossy)


def _halves(masks: Counts) -> bool:
    """Return whether a threshold can tell bright from dark: in greys, or in shades of one colour without palette."""
    if all(grey_of(value) is not None for value in masks):
        return True
    if any(isinstance(value, Colour) and value.index >= 0 for value in masks):
        return False
    channels = np.array([list((colour_of(value) or 0).to_bytes(3, "big")) for value in masks])
    brightest = channels[channels.max(axis=1).argmax()]
    shades = np.outer(channels.max(axis=1) / brightest.max(), brightest)
    return bool(np.abs(channels - shades).max() <= 2)


def _half(masks: Counts) -> int:
    levels = [brightness(value) for value in masks]
    return (min(levels) + max(levels) + 1) // 2


def _of_threshold(rule: int, seen: Sequence[SampleStats], masks: Counts) -> str:
    levels = {value: brightness(value) for value in masks}
    if max(levels.values()) < rule:
        largest = f"the largest value is {max(levels.values())}"
        return f"no mask reaches data.foreground={rule}: {largest}; {list_values(masks)}"
    numbers = {value: value.index for value in masks if isinstance(value, Colour) and value.index >= 0}
    differ = [value for value, number in numbers.items() if (number >= rule) != (levels[value] >= rule)]
    if differ and max(numbers.values()) >= rule and not _has_edges(seen):
        text = f"data.foreground={rule} is ambiguous: palette indices and grey values of the masks differ"
        return f"{text}; {list_values(masks)}. Name those of the object: {_choices(_others(masks))}"
    compared = {value.index for value in numbers if grey_of(value) is None}
    return _of_palettes(compared, masks) if compared else ""


def _of_nonzero(masks: Counts) -> str:
    if len(masks) < 2 or any(map(is_background, masks)):
        return ""
    text = f"data.foreground=nonzero takes everything: no mask has 0 or black; {list_values(masks)}"
    return f"{text}. Name those of the object: {_choices(masks)}"


def _of_colours(foreground: Foreground, masks: Counts) -> str:
    unknown = sorted(foreground.colours - {colour_of(value) for value in masks})
    if not unknown:
        return ""
    named = ", ".join(f"#{rgb:06x}" for rgb in unknown)
    return f"colours of data.foreground that occur in no mask: {named}; {list_values(masks)}"


def _of_numbers(numbers: frozenset[int], masks: Counts) -> str:
    unknown = sorted(numbers - {number_of(value) for value in masks})
    if unknown:
        return f"ids of data.foreground that occur in no mask: {', '.join(map(str, unknown))}; {list_values(masks)}"
    return _of_palettes(numbers, masks)


def _of_palettes(numbers: Set[int], masks: Counts) -> str:
    if not _differ(numbers, masks):
        return ""
    return (
        "numbers of data.foreground do not mean the same in all masks, whose palettes or kinds differ; "
        f"{list_values(masks)}. Name colours instead: {_choices(_others(masks))}"
    )


def _differ(numbers: Set[int | None], masks: Counts) -> bool:
    """Return whether some of the numbers, or their colours, do not mean the same in all masks."""
    colours = [value for value in masks if isinstance(value, Colour)]
    looks = {value.rgb for value in colours if value.index in numbers}
    named = [value for value in colours if value.index in numbers or value.rgb in looks]
    indices = {value.index for value in named}
    # White is 1 in 1-bit masks and 255 in grey ones, for example.
    greys = [(value.index, grey) for value in colours if (grey := grey_of(value))]
    return (
        any(value.index < 0 for value in colours)  # masks without numbers
        or len({value.index for value in named}) != len(named)  # a number of two colours
        or not indices <= numbers  # a colour with another number too
        or any(grey in masks and numbers & {grey, index} for index, grey in greys)
    )


def _warnings(seen: Sequence[SampleStats], masks: Counts, foreground: Foreground) -> list[Problem]:
    others, rule = _others(masks), foreground.rule
    if len(others) < 2:
        return []
    if _has_edges(seen) and (isinstance(rule, int) or _halves(masks)):
        if isinstance(rule, int):
            return []
        text = f"grey edges: data.foreground={_half(masks)} would take the bright half of them; {list_values(others)}"
        return [Problem("warning", "masks", text)]
    if not (rule == "nonzero" or isinstance(rule, int)):
        return _void_taken(foreground, seen, masks)
    if full := [str(one) for one in seen if one.fraction == 1 and len(one.values) > 1]:
        text = f"everything taken: data.foreground={rule} takes all values of {len(full)} masks that have several: "
        return [Problem("warning", "masks", f"{text}{some(full)}; {list_values(masks)}")]
    return _void_taken(foreground, seen, masks)


def _void_taken(foreground: Foreground, seen: Sequence[SampleStats], masks: Counts) -> list[Problem]:
    """Return a warning if a value looks like void, and is foreground or background by a rule that does not name it."""
    others, rule = _others(masks), foreground.rule
    void = void_value(seen, others, numbered=_numbered(masks))
    if void is None or number_of(void) in foreground.numbers or colour_of(void) in foreground.colours:
        return []
    name = name_of(void)
    if isinstance(rule, int) and brightness(void) < rule:
        return []
    only = isinstance(rule, int) and sum(brightness(value) >= rule for value in others) == 1
    takes = f"takes {f'only {name}' if only else f'{name} too'}"
    text = f"perhaps void as {'object' if foreground.label_of(void) else 'background'}: data.foreground"
    text += f" does not name {name}" if isinstance(rule, tuple) else f"={rule} {takes}"
    return [Problem("warning", "masks", f"{text}; {list_values(others)}.{on_void(others, void)}")]
