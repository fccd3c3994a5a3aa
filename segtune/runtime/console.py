"""Terminal output: log lines, progress bars, banners, tables."""

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
from segtune.runtime.paths import from_here
from segtune.runtime.wrapping import wrap

# Brackets and colons in file names and labels are neither markup nor emoji.
console = Console(stderr=False, highlight=False, soft_wrap=True, markup=False, emoji=False)

#: Width in columns of a file or pipe: so large that no line is broken.
_ENDLESS = 10_000


class LineHandler(logging.Handler):
    """Print log records as lines; warnings and errors are marked as such."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        try:
            level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            say(level + self.format(record))
        except Exception:  # as every handler does: logging must not end a run
            self.handleError(record)


def set_up_logging() -> None:
    """Print the package's log lines without date and place; of several processes only those of rank 0."""
    console.quiet = rank() > 0
    if console.quiet:
        warnings.simplefilter("ignore")  # rank 0 shows the same
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # so that a log file grows during the run
    root = logging.getLogger("segtune")
    root.handlers[:] = [LineHandler()]
    root.setLevel(logging.INFO)
    root.propagate = False


@contextmanager
def bar(description: str, total: int | None, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Show a progress bar with the time left while the block runs; `total` None: unknown.

    Yields:
        A function of (units done, a short note) that updates the bar.
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
    """Print lines: wrapped at words on a terminal, unchanged into a file or a pipe."""
    console.print(wrap(text, console.width if console.is_terminal else None))


def say_without_bar(text: str) -> None:
    """Print lines where no progress bar shows the same: into a file or a pipe only."""
    if not console.is_terminal:
        say(text)


def banner(title: str, lines: Sequence[str]) -> None:
    """Print a panel with a title and a few lines."""
    _print(Panel("\n".join(lines), title=title, title_align="left", expand=False))


def print_table(*layouts: Table) -> None:
    """Print a table: on a terminal in the first of its layouts that fits, or else the last; elsewhere in the first."""
    endless = console.options.update(width=_ENDLESS)
    fitting = (each for each in layouts if console.measure(each, options=endless).maximum <= console.width)
    table = next(fitting, layouts[-1]) if console.is_terminal else layouts[0]
    for column in table.columns:
        column.overflow = "fold"  # where even the last is too wide, names are wrapped, not truncated
    if title := table.title:  # rich would wrap it to the width of the table
        say(str(title))
        table.title = None
    _print(table)


def compact_table(*, leading: int = 0) -> Table:
    """Return an empty table without a frame; `leading` is the number of blank lines between rows."""
    return Table(box=SIMPLE_HEAD, show_edge=False, padding=0, leading=leading)


def _print(renderable: Table | Panel) -> None:
    """Print a renderable fitted to the terminal; at its full width into a file or a pipe."""
    if console.is_terminal:
        console.print(renderable, soft_wrap=False)
    else:
        Console(width=_ENDLESS, highlight=False, markup=False, emoji=False, quiet=console.quiet).print(renderable)


def shown(path: Path) -> Path:
    """Return a path relative to the current folder if it is inside it, otherwise unchanged."""
    return Path(from_here(path))
