"""Exceptions that end a command, and helpers for their messages."""

import difflib
import errno
import re
from collections.abc import Iterable


class UserError(Exception):
    """An error the user can fix: one message, no traceback, exit code 2."""


class LostError(UserError):
    """Another process of the run has ended or cannot be reached."""


class WriteError(UserError):
    """A file cannot be written."""


class FailedError(Exception):
    """A command ran, but its result is a failure: exit code 1."""


class DivergedError(FailedError):
    """The loss or its gradient is not finite."""


class Pruned(FailedError):  # noqa: N818 - it is no fault, like Interrupted
    """A search has ended a run early, because others were better at that epoch."""


class StoppedError(FailedError):
    """What a command needs has failed while it ran: a file, a worker process, memory."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the run; everything up to the last step is saved."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the sentence " Did you mean X?" with the known name closest to a wrong one, or "" if none is close."""
    near = close_matches(name, (each for each in known if each != name), 1)
    return f" Did you mean {near[0]}?" if near else ""


def close_matches(name: str, known: Iterable[str], most: int, cutoff: float = 0.6) -> list[str]:
    """Return up to `most` known names whose similarity to a wrong one is at least `cutoff` (0 to 1), closest first.

    Upper and lower case count as the same.
    """
    folded = {each.casefold(): each for each in known}
    return [folded[each] for each in difflib.get_close_matches(name.casefold(), folded, most, cutoff)]


def some(names: Iterable[str], most: int = 5) -> str:
    """Return the first few names as a list in words, with the number of those left out."""
    names = list(names)
    shown = ", ".join(names[:most]) or "none"
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


_TEXT = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|insufficient memory|ALLOC_FAILED"
    r"|failed to allocate \d+ bytes|unable to allocate [\d.]+ \w?i?B",
    re.IGNORECASE,
)
_REST = re.compile(r" (?:Process \d|Including non-PyTorch|Of the allocated|If reserved|Error code)")


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory has run out: the GPU's or the machine's."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, Exception) and bool(_TEXT.search(str(error)))


def reason_of(error: BaseException) -> str:
    """Return what the error says of sizes: its first sentences, without the advice of PyTorch's allocator."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[enforce fail at [^\]]*\]\s*\.?\s*|^OpenCV\([^)]*\)\s*\S*\s*", "", text)
    return _REST.split(text)[0].rstrip(".")
