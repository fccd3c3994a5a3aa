"""The leaderboard as text: tables for the terminal, and the rows of `leaderboard.csv`."""

from rich.table import Table

from segtune.reporting.leaderboard import Entry, Leaderboard
from segtune.reporting.run_results import RunResult
from segtune.reporting.setting_texts import rounded
from segtune.reporting.wording import number
from segtune.runtime.console import compact_table
from segtune.runtime.files import Row


def csv_rows(board: Leaderboard) -> list[Row]:
    """Return the rows of `leaderboard.csv`, one for each run: the ranked ones first, then the others."""
    rows = []
    for rank, entry in enumerate(board.entries, start=1):
        of_entry = {
            "rank": rank if entry.dice is not None else None,
            "runs": len(entry.runs),
            "mean_dice": entry.dice,
            "sd_dice": entry.deviation,
            "best_in": board.best_in(entry),
        }
        rows += [_row(board, run, of_entry) for run in entry.runs]
    return rows + [_row(board, run, {}) for run in board.others]


def _row(board: Leaderboard, run: RunResult, of_entry: Row) -> Row:
    low, high = run.interval or (None, None)
    row = {
        "rank": of_entry.get("rank"),
        "name": board.names[run.folder],
        "status": run.status,
        "reason": run.reason,
        "val_dice": run.dice,
        "low": low,
        "high": high,
        "val_dice_all": run.summary.get("val_dice"),
        **{key: of_entry.get(key) for key in ("runs", "mean_dice", "sd_dice", "best_in")},
        "best_epoch": run.summary.get("best_epoch"),
        "epochs_done": len(run.epochs),
        "seconds": run.summary.get("seconds"),
        "images_per_second": run.summary.get("images_per_second"),
        "parameters": run.summary.get("parameters"),
        "trained_parameters": run.trained_parameters,
        "peak_memory_bytes": run.summary.get("peak_memory_bytes"),
        "device": run.summary.get("device"),
        "command": run.command,
    }
    return row | {name: run.value(name) for name in board.varied}


def leaderboard_tables(board: Leaderboard) -> tuple[Table, Table]:
    """Return two tables: wide, with a column for each differing setting; narrow, with these settings under the run."""
    wide, narrow = Table(), compact_table(leading=1)
    for heading in ("", "run", "val Dice", "95 % interval", *board.columns, *COSTS):
        wide.add_column(heading)
    for heading in ("", "run", "val Dice,\n95 % interval", "epochs", "minutes"):
        narrow.add_column(heading, no_wrap=heading != "run")
    for rank, entry in enumerate(board.entries, start=1):
        name = ", ".join(board.names[run.folder] for run in entry.runs)
        place, costs = str(rank) if entry.dice is not None else "", costs_of(entry)
        values = [rounded(entry.best.value(each)) for each in board.columns]
        wide.add_row(place, name, dice_text(entry), entry.interval, *values, *costs)
        lines = [f"  {each}" for each in board.chosen(entry.best, board.columns)]
        within = "\n".join(filter(None, (dice_text(entry), entry.interval)))
        narrow.add_row(place, "\n".join([name, *lines]), within, *costs[:2])
    return wide, narrow


#: The columns of `costs_of`.
COSTS = ("epochs", "minutes", "images/s", "trained", "memory")


def costs_of(entry: Entry) -> list[str]:
    """Return what an entry took as text: epochs, minutes, images per second, trained parameters, peak memory.

    Of several runs, the means; of one, the best epoch and the number of epochs.
    """
    epochs, seconds, rate, trained, memory = (
        entry.mean(name) for name in ("epochs", "seconds", "images_per_second", "trained", "peak_memory_bytes")
    )
    best, alone = entry.best.summary, len(entry.runs) == 1
    of_epochs = f"{best['best_epoch']} of {len(entry.best.epochs)}" if alone else _short(epochs, ".3g")
    return [
        of_epochs,
        _short(None if seconds is None else seconds / 60, ".1f" if seconds is not None and seconds >= 60 else ".2g"),
        _short(rate, ".3g" if rate is not None and rate < 100 else ".0f"),
        count_text(trained),
        "–" if memory is None else f"{memory / 1e9:.2f} GB",
    ]


def _short(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def count_text(value: float | None) -> str:
    """Return a number of parameters as text, with three digits and a unit."""
    if value is None:
        return "–"
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def dice_text(entry: Entry) -> str:
    """Return the Dice of an entry: of several seeds the mean, the standard deviation and the number of runs."""
    spread = f" ± {entry.deviation:.4f}" if entry.deviation is not None else ""
    return f"{number(entry.dice)}{spread}" + (f" (n={len(entry.dices)})" if len(entry.runs) > 1 else "")
