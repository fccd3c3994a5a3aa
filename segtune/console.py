"""What a person at the terminal sees: log lines, progress bars, the banner of a phase, tables."""

import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segtune.distributed import rank

# File names and labels are shown as they are: brackets and colons in them are neither markup nor emoji.
console = Console(stderr=False, highlight=False, soft_wrap=True, markup=False, emoji=False)


def set_up_logging() -> None:
    """Send the package's log lines to the terminal, without date and place; of several processes only the first's."""
    console.quiet = rank() > 0
    if console.quiet:
        warnings.simplefilter("ignore")  # the first gives the same
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file grows with the run, not at its end
    handler = RichHandler(console=console, show_time=False, show_path=False, show_level=True)
    root = logging.getLogger("segtune")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


@contextmanager
def bar(description: str, total: int | None, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Show a progress bar with the time left while the block runs; `total` None is an unknown number.

    Yields:
        A function of (units done, a short note) that moves the bar on.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total, completed=done, note="")
        yield lambda completed, note: progress.update(task, completed=completed, note=note)


@contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar whose total comes with the first call of (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def say(text: str) -> None:
    """Print a line."""
    console.print(text, markup=False)


def banner(title: str, lines: Sequence[str]) -> None:
    """Print a framed heading with a few lines under it."""
    console.print(Panel("\n".join(lines), title=title, title_align="left", expand=False), soft_wrap=False)


def shown(path: Path) -> Path:
    """Give a path as it is read best: from the current folder, if it is in there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
