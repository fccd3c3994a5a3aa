"""Breaks lines between words, for terminals; with nothing heavy imported, for error messages come before that."""

import shutil
import textwrap
from typing import TextIO


def terminal_width(stream: TextIO) -> int | None:
    """Return the columns of the terminal that a stream goes to; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrap(text: str, width: int | None) -> str:
    """Return text whose lines are broken between words, each under its own indentation; None breaks nothing.

    A word longer than a line, such as a path, stays whole.
    """
    if width is None:
        return text
    return "\n".join(broken for line in text.split("\n") for broken in _wrap(line, width))


def _wrap(line: str, width: int) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    broken = textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, tabsize=4
    )
    return broken or [line]
