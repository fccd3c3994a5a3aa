"""The command `report`: write a leaderboard of the runs in a folder."""

from segtune.config.command_settings import ReportSettings
from segtune.errors import UserError
from segtune.reporting.effects import Effects
from segtune.reporting.leaderboard import Leaderboard
from segtune.reporting.leaderboard_page import effects_of, write_leaderboard
from segtune.reporting.leaderboard_tables import csv_rows, leaderboard_tables
from segtune.reporting.leaderboard_words import (
    heading_of,
    next_commands,
    notes_on,
    sentence_of,
    unfinished,
    warnings_of_choice,
)
from segtune.reporting.run_results import find_runs
from segtune.runtime.console import print_table, say, set_up_logging, shown
from segtune.runtime.files import write_csv
from segtune.runtime.paths import expanded

#: The largest effects that are told on the terminal; the page has all.
_EFFECTS = 5


def report(settings: ReportSettings) -> Leaderboard:
    """Rank the runs in a folder by validation Dice, write `leaderboard.csv` and the page, and return the leaderboard.

    Raises:
        UserError: There is no run, or a file cannot be written.
    """
    set_up_logging()
    folder = expanded(settings.folder)
    runs = find_runs(folder)
    if not runs:
        raise UserError(
            f"folder={folder}: no run found (no config.yaml of a run, no failure.json, no sweep.json). Expected a "
            "folder such as multirun/2026-01-31_12-00-00 or runs."
        )
    board = Leaderboard(runs, folder)
    effects = effects_of(board)
    own = "leaderboard.html" if any(run.folder == folder for run in runs) else "report.html"  # that of the run is kept
    path = expanded(settings.output, "output") if settings.output else folder / own
    table = path.with_name("leaderboard.csv")
    write_csv(table, csv_rows(board))
    write_leaderboard(path, board, effects)
    _show(board, effects)
    say(f"Wrote {shown(path)} and {shown(table)}.")
    return board


def _show(board: Leaderboard, effects: Effects | None) -> None:
    say(f"{board.counts}.")
    if board.entries:
        print_table(*leaderboard_tables(board))
    if board.others:
        say(f"{heading_of(board)}:")
    for each in unfinished(board):
        for name, text, _ in each.runs:
            say(f"  {name}  {each.status}  {text}".rstrip())
        if each.reason:
            say("\n".join(f"      {line}" for line in each.reason.splitlines()))
    if effects and effects.found:
        say("What mattered, the other settings averaged:")
        for effect in effects.found[:_EFFECTS]:
            say(f"  {sentence_of(effect)}")
    for note in notes_on(effects) if effects else ():
        say(note)
    for warning in warnings_of_choice(board):
        say(warning)
    for what, command in next_commands(board):
        say(f"{what}:\n  {command}")
