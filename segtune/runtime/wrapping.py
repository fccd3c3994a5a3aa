"""Wrap text at words for terminals; imports nothing heavy, so that errors can be shown early."""

import os
import shutil
import textwrap
from typing import TextIO


def terminal_width(stream: TextIO) -> int | None:
    """Return the width in columns of a stream's terminal; None for a file or a pipe."""
    if not stream.isatty():
        return None
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(stream.fileno()).columns)
    except (ValueError, OSError):
        return shutil.get_terminal_size().columns


def wrap(text: str, width: int | None) -> str:
    """Return text with its lines wrapped at words, keeping their indentation; None wraps nothing.

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
