"""What a person at the terminal sees: log lines, progress bars, the banner of a phase, tables."""

import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from segtune.runtime.distributed import rank
from segtune.runtime.wrapping import wrap

# File names and labels are shown as they are: brackets and colons in them are neither markup nor emoji.
console = Console(stderr=False, highlight=False, soft_wrap=True, markup=False, emoji=False)

#: Columns of what is no terminal: nothing is as wide, so nothing is broken.
_ENDLESS = 10_000


class LineHandler(logging.Handler):
    """Prints log records as lines of their own; a warning or an error says that it is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        try:
            level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            say(level + self.format(record))
        except Exception:  # as in every handler: logging never ends a run
            self.handleError(record)


def set_up_logging() -> None:
    """Send the package's log lines to the terminal, without date and place; of several processes only the first's."""
    console.quiet = rank() > 0
    if console.quiet:
        warnings.simplefilter("ignore")  # the first gives the same
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file grows with the run, not at its end
    root = logging.getLogger("segtune")
    root.handlers[:] = [LineHandler()]
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
    """Print lines: on a terminal broken between words, into a file or a pipe as they are."""
    console.print(wrap(text, console.width if console.is_terminal else None))


def banner(title: str, lines: Sequence[str]) -> None:
    """Print a framed heading with a few lines under it."""
    _print(Panel("\n".join(lines), title=title, title_align="left", expand=False))


def print_table(*layouts: Table) -> None:
    """Print a table as wide as it is; on a terminal in the first of its layouts that fits, or else the last."""
    endless = console.options.update(width=_ENDLESS)
    fitting = (each for each in layouts if console.measure(each, options=endless).maximum <= console.width)
    table = next(fitting, layouts[-1]) if console.is_terminal else layouts[0]
    for column in table.columns:
        column.overflow = "fold"  # where even the last is too wide, names are broken, not cut
    if title := table.title:  # over a narrow table it would be broken
        say(str(title))
        table.title = None
    _print(table)


def compact_table(*, leading: int = 0) -> Table:
    """Return an empty table that spends no column on frames; `leading` is the blank lines between rows."""
    return Table(box=SIMPLE_HEAD, show_edge=False, padding=0, leading=leading)


def _print(renderable: Table | Panel) -> None:
    """Print what rich fits into the terminal; into a file or a pipe as wide as it is."""
    if console.is_terminal:
        console.print(renderable, soft_wrap=False)
    else:
        Console(width=_ENDLESS, highlight=False, markup=False, emoji=False, quiet=console.quiet).print(renderable)


def shown(path: Path) -> Path:
    """Return a path as it is read best: from the current folder, if it is in there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
