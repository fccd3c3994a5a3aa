"""The settings `data.foreground` and `data.ignore`: which values of masks are the object, and which are void."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator


def _colour(value: str) -> str:
    if not re.fullmatch("#[0-9a-fA-F]{6}", value):
        raise ValueError("a colour, such as '#ff8000'")
    return value.lower()


def _one_as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) and value.startswith("#") else value


def _any_as_list(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]


def _number_or_colour(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return value.lower()
    raise ValueError("a number, such as 255, or a colour, such as '#e0e0c0'")


def both_named(foreground: Any, ignore: Any) -> list[int | str]:
    """Return the numbers and colours that are named as foreground and as void."""
    return [each for each in ignore or () if isinstance(foreground, list) and each in foreground]


# A rule, a threshold, numbers (grey values or palette indices), or colours.
ForegroundRule = Annotated[
    Literal["auto", "nonzero"] | int | list[int] | list[Annotated[str, AfterValidator(_colour)]],
    BeforeValidator(_one_as_list),
]
# Numbers (grey values or palette indices) and colours; one of them stands for a list, None for nothing.
IgnoreRule = Annotated[
    list[Annotated[int | str, BeforeValidator(_number_or_colour)]] | None, BeforeValidator(_any_as_list)
]
