"""The command `report`: write a leaderboard of the runs in a folder."""

from segtune.config.command_settings import ReportSettings
from segtune.errors import UserError, some
from segtune.reporting.charts import leaderboard_chart
from segtune.reporting.html import render
from segtune.reporting.leaderboard import RunResult, differing, find_runs, leaderboard_tables, link_to
from segtune.runtime.console import print_table, say, set_up_logging, shown
from segtune.runtime.files import write_atomically
from segtune.runtime.paths import expanded
from segtune.runtime.versions import versions


def report(settings: ReportSettings) -> list[RunResult]:
    """Rank the finished runs in a folder by validation Dice, write the page, and return the runs.

    Raises:
        UserError: There is no finished run.
    """
    set_up_logging()
    folder = expanded(settings.folder)
    runs, unfinished, damaged = find_runs(folder)
    if not runs:
        more = f" Unfinished: {some(map(str, unfinished))}." if unfinished else ""
        raise UserError(
            f"folder={folder}: no finished run found (no summary.json beside a config.yaml).{more} Expected a "
            "folder such as multirun/2026-01-31_12-00-00 or runs."
        )
    names_of_settings = differing([run.settings for run in runs])
    path = expanded(settings.output, "output") if settings.output else folder / "report.html"
    names = {run.folder: str(run.folder.relative_to(folder)) for run in runs}
    page = {
        "folder": folder,
        "runs": [
            {
                "name": names[run.folder] if run.folder != folder else folder.name,
                "report": link_to(run.folder / "report.html", path),
                "run": run,
                "settings": [run.settings.get(key, "") for key in names_of_settings],
            }
            for run in runs
        ],
        "differing": names_of_settings,
        "chart": leaderboard_chart([(names[run.folder], run.dices) for run in runs]),
        "same_images": len({run.images for run in runs if run.images}) < 2,
        "unfinished": [str(each.relative_to(folder)) for each in unfinished],
        "damaged": [str(each.relative_to(folder)) for each in damaged],
        "versions": versions(),
    }
    write_atomically(path, render("leaderboard.html", page).encode())
    print_table(*leaderboard_tables(runs, names, names_of_settings))
    for what, others in (("unfinished", unfinished), ("not readable", damaged)):
        if others:
            say(f"Not ranked ({what}): {some(map(str, others))}.")
    say(f"Wrote {shown(path)}.")
    return runs
