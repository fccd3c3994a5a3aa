"""Tables of an evaluation for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from segtune.evaluation.summary import Facts
from segtune.reporting.wording import interval_text, number, score_names, sentences
from segtune.runtime.console import print_table, say


def show(facts: Facts) -> None:
    """Print the scores, the groups and the sentences of an evaluation."""
    empty = facts["empty_images"]
    title = (
        f"{facts['split']}: {facts['images']} images, {empty} without foreground; "
        "mean over images, and pooled (micro-averaged over all pixels)"
    )
    table = Table(title=title)
    for heading in ("", "mean", "95 % interval", "pooled", "95 % interval"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, pair in score_names(facts).items():
        cells = [text for key in pair for text in (number(facts[key]), interval_text(facts["intervals"][key]))]
        table.add_row(name, *cells)
    print_table(table)
    for name, rows in facts["groups"].items():
        print_table(_group_table(name, rows))
        if gap := facts["gaps"].get(name):
            ends = f"from the best group ({gap['best']}) to the worst ({gap['worst']})"
            say(f"Gap in mean Dice {ends}: {gap['gap']:.4f}")
    say("\n".join(sentences(facts)))
    for warning in facts["warnings"]:
        say(f"warning: {warning}")


def _group_table(name: str, rows: Sequence[Facts]) -> Table:
    table = Table(title=f"by {name}")
    for heading in (name, "images", "mean Dice", "95 % interval", "pooled"):
        table.add_column(heading, justify="left" if heading == name else "right")
    for row in rows:
        cells = (number(row["dice_mean"]), interval_text(row["interval"]), number(row["dice_pooled"]))
        table.add_row(row["group"], str(row["images"]), *cells)
    return table
