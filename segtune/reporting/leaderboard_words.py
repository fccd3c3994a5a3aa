"""The leaderboard in sentences: how sure the best is, what mattered, what did not finish, and what to do next."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from segtune.reporting.effects import DEFAULT, Effect, Effects, Level, student
from segtune.reporting.leaderboard import Entry, Leaderboard
from segtune.reporting.run_results import FAILED, INTERRUPTED, NOT_STARTED, RunResult
from segtune.reporting.setting_texts import overrides_of
from segtune.reporting.wording import number, shortened
from segtune.runtime.console import shown

#: Characters of a value that a sentence shows.
_LONGEST = 60
#: How a job has ended that a resume of its sweep runs.
_MISSING = (FAILED, INTERRUPTED, NOT_STARTED)


@dataclass(frozen=True)
class Unfinished:
    """Runs that ended in the same way for the same reason: names, settings and commands of each."""

    status: str
    reason: str
    runs: Sequence[tuple[str, str, str]]


def unfinished(board: Leaderboard) -> list[Unfinished]:
    """Return the runs that are not finished, those that failed first, with all that failed for one reason as one."""
    alike: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for run in sorted(board.others, key=lambda run: run.status != FAILED):
        settings = board.chosen(run, board.varied) or [f"{name}={value}" for name, value in run.overrides.items()]
        told = board.names[run.folder], " ".join(settings), run.command
        alike.setdefault((run.status, run.reason.strip()), []).append(told)
    return [Unfinished(status, reason, runs) for (status, reason), runs in alike.items()]


def heading_of(board: Leaderboard) -> str:
    """Return what to call the runs that are not finished: "2 of 6 runs failed"."""
    failed = [run for run in board.others if run.status == FAILED]
    which, verb = (failed, "failed") if len(failed) == len(board.others) else (board.others, "did not finish")
    return f"{len(which)} of {len(board.runs)} runs {verb}"


def warnings_of_choice(board: Leaderboard) -> list[str]:
    """Return sentences on how little the first place may mean."""
    said = []
    if not board.same_images:
        said.append("Not all runs were validated on the same images and masks: their Dice cannot be compared directly.")
    ranked = [entry for entry in board.entries if entry.dice is not None]
    if len(ranked) < 2:
        return said
    said.append(
        f"The best of {len(ranked)} on the same validation images is optimistically biased, as is the best epoch of a "
        "run: confirm it on images that chose nothing, those of the test split."
    )
    if (within := board.within()) is not None:
        verb = "has" if within == 1 else "have"
        said.append(f"Of the other {len(ranked) - 1}, {within} {verb} a Dice within the best one's 95 % interval.")
    if board.choice:
        images, chance = len(board.entries[0].best.scores), board.best_in(board.entries[0]) or 0.0
        among = "" if len(board.judged) == len(ranked) else f" of the {len(board.judged)} on these images"
        said.append(
            f"In resamples of the {images} validation images with an object it is the best{among} in {chance:.0%}. The "
            f"best of a resample has a mean Dice of {number(board.choice.elsewhere)} on the images left out of it."
        )
    return [*said, *_of_seeds(board, ranked)]


def _of_seeds(board: Leaderboard, ranked: Sequence[Entry]) -> list[str]:
    """Return the sentence on how many entries seeds alone could have put behind the best; none without pooled seeds."""
    if (seeds := board.seeds()) is None:
        return []
    deviation, freedom = seeds
    (best, *others), factor = ranked, student(freedom) * deviation
    near = [
        each
        for each in others
        if (best.dice or 0) - (each.dice or 0) <= factor * math.sqrt(1 / len(best.dices) + 1 / len(each.dices))
    ]
    degrees = f"{freedom} degree{'s' * (freedom != 1)} of freedom"
    return [
        f"Between seeds the standard deviation is {number(deviation)} ({degrees}): by Student's t (95 %), {len(near)} "
        f"of the other {len(others)} could be behind the first by their seeds alone."
    ]


def sentence_of(effect: Effect) -> str:
    """Return the sentence on the effect of a setting."""
    best, worst = effect.best, effect.worst
    text = f"{effect.name}: {_mean(best)} against {_mean(worst)}, {effect.size:.4f} more"
    if effect.interval is None:
        return f"{text}."
    low, high = effect.interval
    sure = "" if low > 0 else ": it may be no difference at all"
    return f"{text} (95 %: {low:+.4f} to {high:+.4f}){sure}."


def _mean(level: Level) -> str:
    return f"{shortened(level.text or DEFAULT, _LONGEST)} {level.mean:.4f} ({level.runs} run{'s' * (level.runs != 1)})"


def notes_on(effects: Effects) -> list[str]:
    """Return sentences on how the effects were found, and what these runs cannot tell."""
    how = (
        "Every combination was run equally often: each mean is the plain mean of the runs with that value."
        if effects.balanced
        else "Not every combination was run equally often: each mean is adjusted for the other settings by an additive "
        "least-squares model, as if it had been."
    )
    said = [f"From the Dice of {effects.runs} finished runs. {how}"]
    if effects.residual is not None:
        said.append(f"Added up, the effects miss the Dice of a run by a standard deviation of {effects.residual:.4f}.")
    if effects.unclear:
        names = "; ".join(effects.unclear)
        said.append(f"Too few combinations were run to tell the effects of these settings from others: {names}.")
    return said


def next_commands(board: Leaderboard) -> list[tuple[str, str]]:
    """Return commands, each with what it does: evaluate the best run on the test split, train it again, go on."""
    found = []
    if board.entries and board.entries[0].dice is not None:
        best = board.entries[0].best
        checkpoint = best.folder / "checkpoints" / "best.pt"
        if checkpoint.is_file():
            words = ["python", "-m", "segtune", "evaluate", f"checkpoint={shown(checkpoint)}", "data.split=test"]
            found.append(("Evaluate the best run on the test split", shlex.join(words)))
        if command := repeated(best):
            found.append(("Train the best run again", command))
    for sweep in sorted({run.sweep for run in board.others if run.sweep and run.status in _MISSING}):
        words = ["python", "-m", "segtune", "train", f"resume={shown(sweep)}"]
        found.append(("Run what is missing of the sweep", shlex.join(words)))
    return found


def repeated(run: RunResult) -> str:
    """Return the command that trains a run anew: with what a resume has changed, in a folder of its own."""
    first, *resumes = run.command.split(" && ")
    try:
        words, more = shlex.split(first), [word for each in resumes for word in shlex.split(each) if "=" in word]
    except ValueError:
        return ""
    changed = overrides_of(more).keys()
    kept = [word for word in words if not {"run_dir", "resume", *changed} & {word.lstrip("+").partition("=")[0]}]
    return shlex.join([*kept, *(word for word in more if overrides_of([word]))])
