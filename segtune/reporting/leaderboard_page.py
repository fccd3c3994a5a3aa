"""The page of a leaderboard: one self-contained HTML file."""

import math
from pathlib import Path

from segtune.reporting.effects import DEFAULT, Effects, main_effects
from segtune.reporting.html import render
from segtune.reporting.leaderboard import Entry, Leaderboard, front, link_to
from segtune.reporting.leaderboard_charts import COLOURS, CostPoint, cost_chart, curves_chart, effect_chart
from segtune.reporting.leaderboard_tables import COSTS, costs_of, dice_text
from segtune.reporting.leaderboard_words import (
    heading_of,
    next_commands,
    notes_on,
    sentence_of,
    unfinished,
    warnings_of_choice,
)
from segtune.reporting.run_results import RunResult, sweeps
from segtune.reporting.setting_texts import rounded
from segtune.reporting.wording import Facts, shortened
from segtune.runtime.console import shown
from segtune.runtime.files import write_atomically
from segtune.runtime.versions import versions

#: The effects that have a chart, the largest ones.
_MOST_EFFECTS = 8
#: What Dice is plotted against: a number of a summary, what to divide it by, and the label of the axis.
_COSTS = {"time": ("seconds", 60, "minutes"), "trained parameters": ("trained", 1e6, "trained parameters, million")}


def effects_of(board: Leaderboard) -> Effects | None:
    """Return the main effects of the varied settings except `seed`, among the runs on the images of the best one.

    None if these differ in no other setting.
    """
    best = board.entries[0].best if board.entries else None
    runs = [run for run in board.finished if best and run.dice is not None and run.comparable(best)]
    values = {name: [run.value(name) for run in runs] for name in board.varied if name != "seed"}
    values = {name: each for name, each in values.items() if len(set(each)) > 1}
    return main_effects(values, [run.dice or 0.0 for run in runs]) if values else None


def write_leaderboard(path: Path, board: Leaderboard, effects: Effects | None) -> None:
    """Write the page.

    Raises:
        UserError: The file cannot be written.
    """
    page = {
        "board": board,
        "folder": shown(board.folder),
        "headings": COSTS,
        "rows": [row for rank, entry in enumerate(board.entries, start=1) for row in _rows(board, rank, entry, path)],
        "best": board.entries[0] if board.entries and board.entries[0].dice is not None else None,
        "best_text": dice_text(board.entries[0]) if board.entries else "",
        "warnings": warnings_of_choice(board),
        "commands": next_commands(board),
        "heading_of_others": heading_of(board),
        "unfinished": unfinished(board),
        "effects": _effects(effects),
        "costs": _costs(board),
        "curves": _curves(board),
        "sweeps": sweeps(board.folder),
        "versions": versions(),
    }
    write_atomically(path, render("leaderboard.html", page).encode())


def _rows(board: Leaderboard, rank: int, entry: Entry, page: Path) -> list[Facts]:
    """Return the rows of an entry: its own, and of several seeds one for each run."""
    runs = [_row(board, Entry((run,)), page) for run in entry.runs]
    place = str(rank) if entry.dice is not None else ""
    chance = board.best_in(entry)
    told = {"rank": place, "seed": False, "best_in": "" if chance is None else f"{chance:.0%}"}
    if len(runs) == 1:
        return [runs[0] | told]
    mean = _row(board, entry, page) | {"name": f"{len(runs)} runs", "report": ""} | told
    below = {"settings": [""] * len(board.columns)}  # those of the line above
    return [mean, *(run | below | {"name": f"{run['name']}, seed {run['run'].value('seed')}"} for run in runs)]


def _row(board: Leaderboard, entry: Entry, page: Path) -> Facts:
    run: RunResult = entry.best
    return {
        "rank": "",
        "seed": True,
        "run": run,
        "name": board.names[run.folder],
        "report": link_to(run.folder / "report.html", page),
        "dice": dice_text(entry),
        "interval": entry.interval,
        "settings": [rounded(run.value(name)) for name in board.columns],
        "costs": costs_of(entry),
        "best_in": "",
    }


def _effects(effects: Effects | None) -> Facts | None:
    if effects is None:
        return None
    dices = [dice for effect in effects.found for _, dice in effect.points]
    dices += [level.mean for effect in effects.found for level in effect.levels]
    margin = 0.06 * (max(dices, default=1) - min(dices, default=0)) or 0.01
    limits = min(dices, default=0) - margin, max(dices, default=1) + margin
    return {
        "notes": notes_on(effects),
        "sentences": [sentence_of(effect) for effect in effects.found],
        "charts": [effect_chart(effect, limits) for effect in effects.found[:_MOST_EFFECTS]],
    }


def _costs(board: Leaderboard) -> list[Facts]:
    """Return a chart of Dice against each cost, with the sentence on what is not beaten at less."""
    found = []
    for what, (key, unit, label) in _COSTS.items():
        ranked = [(rank, entry.mean(key), entry.dice) for rank, entry in enumerate(board.entries, start=1)]
        known = [(rank, cost / unit, dice) for rank, cost, dice in ranked if cost is not None and dice is not None]
        if len(known) < 2 or len({cost for _, cost, _ in known}) < 2:
            continue
        on_front = front([(cost, dice) for _, cost, dice in known])
        points = [CostPoint(*each, on_front=index in on_front) for index, each in enumerate(known)]
        ranks = ", ".join(str(known[index][0]) for index in on_front)
        found.append(
            {"chart": cost_chart(points, label), "text": f"Orange: not beaten at less {what}, by rank: {ranks}."}
        )
    return found


def _curves(board: Leaderboard) -> str:
    """Return the chart of learning curves; empty if no run has finished an epoch."""
    best = []
    for rank, entry in enumerate(board.entries[: len(COLOURS)], start=1):
        values = [rounded(entry.best.value(name)) for name in board.columns] or [board.names[entry.best.folder]]
        name = shortened(f"{rank}: {', '.join(shortened(value or DEFAULT, 20) for value in values)}", 56)
        best.append((name, [run.dices for run in entry.runs]))
    rest = [run for entry in board.entries[len(COLOURS) :] for run in entry.runs]
    others = [run.dices for run in [*rest, *board.others]]
    dices = [dice for run in board.runs for dice in run.dices]
    return curves_chart(best, others) if any(not math.isnan(dice) for dice in dices) else ""
