"""From plain nested values to checked settings; all that is wrong is reported at once, by setting."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from segtune.config.renamed import with_new_names
from segtune.errors import UserError, nearest

S = TypeVar("S")


def parse(schema: type[S], values: Mapping[str, Any]) -> S:
    """Check plain nested values against a schema.

    Raises:
        UserError: Something is wrong; the message lists every problem.
    """
    try:
        return TypeAdapter(schema).validate_python(with_new_names(values)[0])
    except ValidationError as error:
        problems: list[str] = list(_describe(error, TypeAdapter(schema).json_schema()))
    heading = "One setting is wrong:" if len(problems) == 1 else f"{len(problems)} settings are wrong:"
    raise UserError("\n".join([heading, *(f"  {problem}" for problem in problems)]))


def _describe(error: ValidationError, schema: dict[str, Any]) -> Iterator[str]:
    names = {name for part in (schema, *schema.get("$defs", {}).values()) for name in part.get("properties", {})}
    expected: dict[str, tuple[Any, list[str]]] = {}
    for problem in error.errors(include_url=False):
        # Parts of the location that name a choice of type, not a setting, are left out.
        parts = [str(p) for p in problem["loc"] if not ("[" in str(p) or str(p) in _CHOICES)]
        name, came, kind = ".".join(parts), problem["input"], problem["type"]
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if kind == "unexpected_keyword_argument":
            yield f"{name}: there is no such setting.{nearest(parts[-1], names)}"
        elif kind in ("missing", "missing_argument"):
            yield f"{name}: not set, and it has no default. Give {name}=…"
        elif kind == "value_error" and isinstance(came, Mapping):
            yield f"{name}: {message}." if name else f"{message}."
        else:
            expected.setdefault(name, (came, []))[1].append(message.partition(", unable")[0])
    for name, (came, messages) in expected.items():
        yield f"{name}: came {came!r}; expected: {', or '.join(dict.fromkeys(messages))}."


_CHOICES = {"fcn8s", "deeplabv3plus", "int", "str", "list", "constrained-int"}
