"""Parse plain nested values into validated settings; all problems are reported at once, by setting."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from segtune.config.renamed import with_new_names
from segtune.errors import UserError, nearest

S = TypeVar("S")


def parse(schema: type[S], values: Mapping[str, Any], noun: str = "setting") -> S:
    """Return plain nested values as an instance of a schema; `noun` is what its fields are called in messages.

    Raises:
        UserError: A value is invalid; the message lists every problem.
    """
    try:
        return TypeAdapter(schema).validate_python(with_new_names(values)[0])
    except ValidationError as error:
        problems: list[str] = list(_describe(error, TypeAdapter(schema).json_schema(), noun))
    raise wrong(problems, noun)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings by their dotted names; an empty mapping is a value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def wrong(problems: Sequence[str], noun: str = "setting") -> UserError:
    """Return the error that lists what is wrong with settings."""
    plural = "entries" if noun == "entry" else f"{noun}s"
    heading = f"One {noun} is wrong:" if len(problems) == 1 else f"{len(problems)} {plural} are wrong:"
    more = [f"and {len(problems) - _MOST} more."] if len(problems) > _MOST else []
    return UserError("\n".join([heading, *(f"  {problem}" for problem in [*problems[:_MOST], *more])]))


def _describe(error: ValidationError, schema: dict[str, Any], noun: str) -> Iterator[str]:
    properties = [part.get("properties", {}) for part in (schema, *schema.get("$defs", {}).values())]
    names = {name for part in properties for name in part}
    unions = [
        each["discriminator"]["mapping"] for part in properties for each in part.values() if "discriminator" in each
    ]
    expected: dict[str, tuple[Any, list[str]]] = {}
    for problem in _of_the_items(error.errors(include_url=False)):
        # Parts of the location that name a choice of type, not a setting, are left out; numbers are places in a list.
        parts = [
            f"[{p}]" if isinstance(p, int) else p
            for p in problem["loc"]
            if isinstance(p, int) or not ("[" in p or p in _TYPES.union(*unions))
        ]
        name, value, kind = ".".join(parts).replace(".[", "["), problem["input"], problem["type"]
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if kind == "unexpected_keyword_argument":
            elsewhere = next(_groups_with(parts[-1], schema), None)
            hint = f" Did you mean {elsewhere}.{parts[-1]}?" if elsewhere else nearest(parts[-1], names)
            yield f"{name}: there is no such {noun}.{hint}"
        elif kind in ("missing", "missing_argument"):
            yield f"{name} is required. Set {name}=…"
        elif kind == "union_tag_invalid":
            yield f"{name}.name: got {problem['ctx']['tag']!r}; expected: {problem['ctx']['expected_tags']}."
        elif kind == "value_error" and isinstance(value, Mapping):
            yield f"{name}: {message}." if name else f"{message}."
        else:
            of_choice = problem["loc"][-1] != parts[-1]
            if kind == "list_type" and noun == "setting" and isinstance(value, str | int | float) and not of_choice:
                message = f"a list, such as [{value!r}]"
            expected.setdefault(name, (value, []))[1].append(
                _LENGTH.sub(r"a list of \1", message.partition(", unable")[0])
            )
    for name, (value, messages) in expected.items():
        got = repr(value)
        got = got if len(got) <= _LONGEST else f"{got[:_LONGEST]}…"
        yield f"{name}: got {got}; expected: {', or '.join(dict.fromkeys(messages))}."


def _groups_with(name: str, schema: dict[str, Any]) -> Iterator[str]:
    """Yield the groups of settings that have one of this name."""
    for group, each in schema.get("properties", {}).items():
        kind = each.get("$ref", "").rpartition("/")[2]
        if name in schema.get("$defs", {}).get(kind, {}).get("properties", {}):
            yield group


def _of_the_items(problems: Sequence[Any]) -> Iterator[Any]:
    """Yield problems without those of a whole list of which items fail, and of items that some choice of type takes."""
    failing: dict[Any, dict[Any, set[int]]] = {}  # by a setting's location and its choices of type: the items
    for problem in problems:
        place = problem["loc"]
        if place and isinstance(place[-1], int):
            failing.setdefault(place[:-2], {}).setdefault(place[-2:-1], set()).add(place[-1])
    for problem in problems:
        place = problem["loc"]
        if place and isinstance(place[-1], int):
            of_all = set.intersection(*failing[place[:-2]].values())
            if not of_all or place[-1] in of_all:
                yield problem
        elif not (isinstance(problem["input"], list) and place[:-1] in failing):
            yield problem


_LENGTH = re.compile("List should have (.* items?) after validation")

#: Problems that a message shows, and characters of a wrong value.
_MOST, _LONGEST = 30, 200

_TYPES = {"int", "str", "list", "constrained-int"}
