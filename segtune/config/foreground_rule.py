"""The setting `data.foreground`: which values of masks are the object."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator


def _colour(value: str) -> str:
    if not re.fullmatch("#[0-9a-fA-F]{6}", value):
        raise ValueError("a colour, such as '#ff8000'")
    return value.lower()


def _one_as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) and value.startswith("#") else value


# A rule, a threshold, numbers (grey values or palette indices), or colours.
ForegroundRule = Annotated[
    Literal["auto", "nonzero"] | int | list[int] | list[Annotated[str, AfterValidator(_colour)]],
    BeforeValidator(_one_as_list),
]
