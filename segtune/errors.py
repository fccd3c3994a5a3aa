"""Errors for the user, and how their messages name things."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: one message, no traceback, exit code 2."""


class LostError(UserError):
    """Another process of the run has ended, or cannot be reached."""


class FailedError(Exception):
    """A command has done its work, but what it was asked for did not come out of it: exit code 1."""


class DivergedError(FailedError):
    """The loss or its gradient is not finite."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the run; everything up to the last step is saved."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask whether the known name closest to a wrong one was meant, as a sentence; nothing if none is close."""
    near = close_matches(name, known, 1)
    return f" Did you mean {near[0]}?" if near else ""


def close_matches(name: str, known: Iterable[str], most: int, cutoff: float = 0.6) -> list[str]:
    """Return up to `most` known names at least `cutoff` (0 to 1) like a wrong one, the closest first."""
    return difflib.get_close_matches(name, list(known), most, cutoff)


def some(names: Iterable[str], most: int = 5) -> str:
    """Name the first few of many, and say how many more there are."""
    names = list(names)
    shown = ", ".join(names[:most]) or "none"
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
