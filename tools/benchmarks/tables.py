"""What is shown of the figures, and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measuring import Goal, Results


def show(facts: Mapping[str, Any], results: Results, goals: Sequence[tuple[str, Goal]]) -> dict[str, Any]:
    """Print the machine, the medians and the goals, and return all of it as plain values."""
    from rich.console import Console
    from rich.table import Table

    console, medians = Console(width=150), results.medians()
    title = ", ".join(f"{key} {value}" for key, value in facts.items() if key not in ("versions", "small"))
    title += "\n" + ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    table = Table(title=title + ("\nA small form: its figures mean nothing." if facts["small"] else ""))
    for heading in ("what", "images/s", "seconds", "peak memory, GB", "others", "rounds"):
        table.add_column(heading, justify="left" if heading in ("what", "others") else "right")
    first = ("images_per_second", "seconds", "peak_memory_gb")
    for name, figures in medians.items():
        main = [f"{figures[key]:.4g}" if key in figures else "" for key in first]
        others = ", ".join(f"{key} {value:.4g}" for key, value in figures.items() if key not in first)
        if figures.get("reached") == 0:
            others = f"not reached within {figures['seconds']:.0f} s; {others}"
        table.add_row(name, *main, others, str(len(results.measured[name])))
    for name, why in results.missing.items():
        table.add_row(name, "", "", "", f"left out: {why}", "0")
    console.print(table)
    rows = [_of_goal(part, goal, goal.value(results.measured)) for part, goal in goals]
    if rows:
        table = Table("part", "ratio", "measured", "goal", "met")
        for row in rows:
            measured = "not measured" if row["measured"] is None else f"{row['measured']:.3g}"
            met = "" if row["met"] is None else "yes" if row["met"] else "NO"
            table.add_row(row["part"], row["ratio"], measured, row["goal"], met)
        console.print(table)
    return {
        **facts,
        "medians": medians,
        "rounds": results.measured,
        "left_out": results.missing,
        "failed": results.failed,
        "goals": rows,
    }


def _of_goal(part: str, goal: Goal, value: float | None) -> dict[str, Any]:
    bound = f"{'at least' if goal.at_least else 'at most'} {goal.bound:g}"
    met = None if value is None else goal.met(value)
    return {"part": part, "ratio": goal.text, "measured": value, "goal": bound, "met": met}
