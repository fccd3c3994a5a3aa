"""Settings as text: values in one form, however they were typed, and the overrides of a command line."""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

#: Settings that name where a run is written, which differ between any two runs.
LOCATIONS = ("run_dir", "resume")
_OVERRIDE = re.compile(r"\+*(~?[\w@/.:-]+)(?:=(.*))?", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings by dotted name, without those of locations."""
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{key}.")
        elif key not in LOCATIONS:
            found.append((f"{prefix}{key}", as_typed(value)))
    return found


def as_typed(value: Any) -> str:
    """Return the value of a setting as one would type it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_typed, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else plain(str(value))


def words_of(command: str) -> list[str]:
    """Return the overrides among the words of a command line; none if it cannot be parsed."""
    try:
        return [word for word in shlex.split(command) if "=" in word or word.startswith("~")]
    except ValueError:
        return []


def overrides_of(words: Iterable[str]) -> dict[str, str]:
    """Return overrides by name, without those of locations; of one given twice the last."""
    found = {}
    for word in words:
        match = _OVERRIDE.fullmatch(word)
        if match and match[1] not in LOCATIONS and (match[2] is not None or match[1].startswith("~")):
            found[match[1]] = "removed" if match[2] is None else plain(match[2])
    return found


def plain(value: str) -> str:
    """Return a value as text in one form: 1e-3 as 0.001, [1, 2] as [1,2], without quotes around it."""
    text = value.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if text[:1] in "[{":
        text = text.replace(", ", ",").replace(": ", ":")
    if not _NUMBER.fullmatch(text):
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def rounded(value: str) -> str:
    """Return a value for people: of a number with a fraction at most six digits."""
    return f"{float(value):.6g}" if _NUMBER.fullmatch(value) and re.search("[.e]", value) else value
