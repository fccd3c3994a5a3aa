"""Text settings: quoted for Hydra's grammar, so that any path is a value and stays as it was typed; checked afterwards.

Hydra reads a bare `2026_11_28` as the number 20261128, `1e3` as 1000.0 and `true` as a bool. For a setting of text this
loses what the user wrote, so such values are put in quotes before Hydra sees them.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from segtune.config.parse import wrong
from segtune.config.types import SPLIT

#: Text that is no field of a schema: the recipe of a run, and where Hydra writes a sweep.
_ALSO_TEXT = ("experiment", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
#: A prefix may be renamed to none; the arguments of transforms are albumentations'.
_MAY_BE_EMPTY = ("restore.rename.", "augment.")
_FUNCTION = re.compile(r"\w+\(.*\)")


def for_hydra(argument: str, schema: type) -> str:
    """Return an override of a command's settings as Hydra must get it."""
    return quoted(keep_text(argument, schema))


def as_typed(override: str, schema: type) -> str:
    """Return an override without the quotes that `for_hydra` would add again."""
    name, _, value = override.partition("=")
    plain = f"{name}={value[1:-1]}".replace("\\'", "'")
    return plain if value[:1] == "'" and for_hydra(plain, schema) == override else override


def keep_text(argument: str, schema: type) -> str:
    """Return an override whose value is quoted if it is text that Hydra would read as a number, a bool or null.

    `null` stays null where the setting may be null. In sweeps and lists each element is looked at.

    Args:
        argument: The override, such as `run_dir=2026_11_28`.
        schema: The dataclass of the command's settings.
    """
    name, equals, value = argument.partition("=")
    types = _types(schema, name.lstrip("+"))
    elements = _split(value)
    return name + equals + ",".join(_element(each, types, alone=len(elements) == 1) for each in elements)


def quoted(argument: str) -> str:
    """Return an override, its value quoted if Hydra's grammar cannot parse it, such as a path with accents."""
    name, _, value = argument.partition("=")
    if value.startswith(SPLIT):  # the beginning of a path, not a mapping
        return f"{name}={_in_quotes(value)}"
    if not value or value[0] in "{'\"":
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        if value[0] == "[":
            parts = [quoted(f"x={part}").removeprefix("x=") for part in value.strip("[]").split(",")]
            return argument if value.count("[") > 1 else f"{name}=[{','.join(parts)}]"
        return f"{name}={_in_quotes(value)}"
    return argument


def check_texts(values: Mapping[str, Any], schema: type) -> None:
    """Check composed settings for texts that YAML has read as numbers, and for empty ones.

    Raises:
        UserError: There are some; the message lists all.
    """
    problems = []
    for name, value in _leaves(values):
        types = _types(schema, name)
        if isinstance(value, list):
            types = {kind for each in types if get_origin(each) is list for kind in _options(get_args(each)[0])}
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, int | float | Mapping) and _is_text(types):
                also = ""
                if isinstance(value, list) and isinstance(each, int) and each >= 60:  # a range without quotes
                    also = f", which YAML makes of {each // 60}:{each % 60:02} too"
                problems.append(f"{name}: got {each!r}{also}; expected text. In a YAML file put it in quotes: '…'.")
            elif isinstance(each, str) and not each.strip() and not name.startswith(_MAY_BE_EMPTY):
                problems.append(f"{name}: got ''; expected text that is not empty.")
    if problems:
        raise wrong(problems)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _element(value: str, types: Collection[Any], *, alone: bool) -> str:
    bare = value.strip()
    if bare[:1] == "[" and bare[-1:] == "]":
        inner = {kind for each in types if get_origin(each) is list for kind in _options(get_args(each)[0])}
        return f"[{','.join(_element(part, inner, alone=False) for part in _split(bare[1:-1]))}]"
    if not _is_text(types) or not bare or bare[0] in "{'\"" or _FUNCTION.fullmatch(bare):
        return value
    try:
        read = OverridesParser.create().parse_override(f"x={bare}").value()
    except HydraException:
        return value  # see `quoted`
    if read is None and NoneType in types:
        return value
    if isinstance(read, str):
        return _in_quotes(value) if alone and value != bare and read == bare else value
    return _in_quotes(bare)


def _in_quotes(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _split(value: str) -> list[str]:
    """Return the elements of a value, which commas outside brackets and quotes separate."""
    parts, depth, closing = [""], 0, ""
    for before, character in zip(" " + value, value, strict=False):
        if closing:
            closing = "" if character == closing and before != "\\" else closing
        elif character in "'\"" and not parts[-1].strip("[{( "):
            closing = character
        elif character == "," and depth == 0 and before != "\\":
            parts.append("")
            continue
        else:
            depth += (character in "[{(") - (character in "]})")
        parts[-1] += character
    return parts


def _types(schema: type, name: str) -> set[Any]:
    """Return the types that a setting may have, None for a group of settings among them; empty if it is not known."""
    if name in _ALSO_TEXT:
        return {str, NoneType}
    found: set[Any] = {schema}
    for key in name.split("."):
        found = {option for each in found for option in _inside(each, key)}
    is_group = any(is_dataclass(each) or get_origin(each) is dict for each in found)
    return found | {str, NoneType} if is_group else found  # a group's choice is the name of a file


def _inside(kind: Any, key: str) -> Iterator[Any]:
    if is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        yield from _options(hints[key]) if key in hints else ()
    elif get_origin(kind) is dict:
        yield from _options(get_args(kind)[1])


def _options(kind: Any) -> Iterator[Any]:
    """Yield the types of an annotation, without unions and metadata."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _options(get_args(kind)[0])
    elif origin in (Union, UnionType):
        for part in get_args(kind):
            yield from _options(part)
    else:
        yield kind


def _is_text(types: Collection[Any]) -> bool:
    return str in types and not {int, float, bool} & set(types)
