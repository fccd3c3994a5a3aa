"""The runs in a folder: what each was set to, how it ended, and what came of it."""

import csv
import json
import math
import os
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.evaluation.selection import score_of
from segtune.reporting.wording import Facts
from segtune.runtime.console import shown
from segtune.runtime.files import read_rows
from segtune.runtime.paths import find_folder

#: How a run can have ended.
FINISHED, FAILED, INTERRUPTED, PRUNED = "finished", "failed", "interrupted", "pruned"
NOT_STARTED, DAMAGED = "not started", "not readable"
#: How what `failure.json` calls the kind of an error counts, unless as a failure.
_KINDS = {"Pruned": PRUNED, "TrialPruned": PRUNED, "Interrupted": INTERRUPTED, "KeyboardInterrupt": INTERRUPTED}

#: Settings that name where a run is written, which differ between any two runs.
LOCATIONS = ("run_dir", "resume")
#: What a run writes beside its config.yaml, and `probe` does not.
_OF_RUNS = {"metrics.csv", "data.json", "summary.json", "failure.json", "checkpoints"}
_OVERRIDE = re.compile(r"\+*(~?[\w@/.:-]+)(?:=(.*))?", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError, csv.Error)


@dataclass(frozen=True)
class RunResult:
    """A run: how it ended and why, its settings as on the command line and by dotted name, and its results.

    `summary` is empty for a run that is not finished, `settings` for one that ended before it began; `evaluation` and
    `scores`, the Dice of each validation image with an object by the image's name, also for runs of versions that
    wrote neither. `images` are the names of all validation images, `sweep` is the folder of the run's sweep.
    """

    folder: Path
    status: str = FINISHED
    reason: str = ""
    command: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    summary: Facts = field(default_factory=dict)
    epochs: Sequence[Facts] = ()
    evaluation: Facts = field(default_factory=dict)
    images: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    sweep: Path | None = None

    @property
    def dices(self) -> list[float]:
        """The validation Dice by epoch."""
        return [score_of(row) for row in self.epochs]

    @property
    def dice(self) -> float | None:
        """The validation Dice by which runs are compared; None without one: not finished, or no object to find."""
        score = score_of(self.summary) if self.summary else math.nan
        return None if math.isnan(score) else score

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of this Dice."""
        ends = self.evaluation.get("intervals", {})
        low, high = ends.get("dice_object", ends["dice_mean"]) if ends else (None, None)
        return None if low is None or high is None else (float(low), float(high))

    @property
    def trained_parameters(self) -> int | None:
        """The number of parameters that train in any phase: of each block the most that train at once."""
        phases = [phase.get("parts") for phase in self.summary.get("phases", {}).values()]
        if phases and all(phases):
            return sum(max(int(parts[block]["trainable"]) for parts in phases) for block in phases[0])
        return max(self.summary.get("trainable_parameters", {}).values(), default=None)

    def value(self, name: str) -> str:
        """Return the value of a setting, by its name on the command line or in the settings; "" if it is not known."""
        for values, key in ((self.overrides, name), (self.settings, name), (self.settings, f"{name}.name")):
            if key in values:
                return values[key]
        same_name = re.compile(rf"freeze\.phases\.\w+\.{re.escape(name)}")
        of_phases = {value for key, value in self.settings.items() if same_name.fullmatch(key)}
        return of_phases.pop() if len(of_phases) == 1 else ""


def find_runs(folder: Path) -> list[RunResult]:
    """Return all runs in a folder, at any depth, and the jobs of its sweeps that have not started, by their names.

    Damaged files never raise an error: they are the reason that a run is not readable.

    Raises:
        UserError: There is no such folder.
    """
    find_folder("folder", folder)
    planned: dict[Path, _Planned] = {}
    for place, folders, files in os.walk(folder):
        path = Path(place)
        if "sweep.json" in files:
            planned |= _jobs(path)
        if "failure.json" in files or ("config.yaml" in files and _OF_RUNS & {*files, *folders}):
            planned.setdefault(path, _Planned())
            folders[:] = set(folders) - {"checkpoints", "samples", "tensorboard"}
    return [_read(each, planned[each]) for each in sorted(planned, key=_natural)]


def sweeps(folder: Path) -> list[str]:
    """Return the commands of the sweeps in a folder, as far as they are known."""
    commands = [read_json(path).get("command") for path in sorted(folder.rglob("sweep.json"))]
    return [command for command in dict.fromkeys(commands) if isinstance(command, str) and command]


def read_json(path: Path) -> Facts:
    """Return the object in a JSON file; an empty one if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class _Planned:
    """What is known of a run before it is read: its sweep, and its overrides there."""

    sweep: Path | None = None
    overrides: Sequence[str] = ()


def _jobs(sweep: Path) -> dict[Path, _Planned]:
    """Return the jobs of a sweep by their folders."""
    jobs = read_json(sweep / "sweep.json").get("jobs")
    found = {}
    for job in jobs if isinstance(jobs, list) else ():
        if isinstance(job, dict) and isinstance(job.get("folder"), str):
            found[sweep / job["folder"]] = _Planned(sweep, _texts(job.get("overrides")))
    return found


def _texts(values: Any) -> list[str]:
    return [str(each) for each in values] if isinstance(values, list) else []


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return what sorts paths with numbers by their values."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _read(folder: Path, planned: _Planned) -> RunResult:
    """Return a run, or a job of a sweep as it was planned."""
    failure = read_json(folder / "failure.json")
    status, reason = _status(folder, failure)
    text = _text(folder / "config.yaml")
    first = text.partition("\n")[0]
    command = first[2:] if first.startswith("# ") else ""
    words = _words(command) or _texts(failure.get("overrides")) or planned.overrides
    if not command and isinstance(failure.get("command"), str):
        command = failure["command"]
    run = RunResult(folder, status, reason, command, overrides_of(words), sweep=planned.sweep)
    try:
        run = replace(run, settings=_settings(text))
        epochs = read_rows(folder / "metrics.csv") if (folder / "metrics.csv").is_file() else []
        _ = [score_of(row) for row in epochs]  # raises an error where a column is missing
        run = replace(run, epochs=epochs)
        return _finished(run) if status == FINISHED else run
    except _DAMAGE as error:
        why = f"{type(error).__name__}: {error}"
        return replace(run, status=DAMAGED, reason=why) if status == FINISHED else run


def _status(folder: Path, failure: Facts) -> tuple[str, str]:
    """Return how a run has ended, and why."""
    if (folder / "failure.json").is_file():
        kind = _KINDS.get(str(failure.get("kind")), FAILED)
        return kind, str(failure.get("reason") or failure.get("kind") or "failure.json does not say why.")
    if (folder / "summary.json").is_file():
        return FINISHED, ""
    if not (folder / "config.yaml").is_file():
        return NOT_STARTED, ""
    try:
        epochs = len(read_rows(folder / "metrics.csv"))
    except (OSError, ValueError, csv.Error):
        epochs = 0
    after = f"after epoch {epochs}" if epochs else "in its first epoch"
    return INTERRUPTED, f"Stopped {after}, or still running. Resume: python -m segtune train resume={shown(folder)}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _settings(text: str) -> dict[str, str]:
    """Return the settings in a config.yaml as this version has them, so that runs of earlier ones compare."""
    settings = yaml.safe_load(text) if text else {}
    with suppress(UserError):  # of a version that this one cannot read: as they are
        settings = asdict(parse(Settings, settings)) if settings else {}
    return dict(_flat(settings))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif key not in LOCATIONS:
            found.append((f"{prefix}{key}", as_typed(value)))
    return found


def as_typed(value: Any) -> str:
    """Return the value of a setting as one would type it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_typed, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else plain(str(value))


def _finished(run: RunResult) -> RunResult:
    """Return a finished run with its results; anything but a complete one raises an error."""
    summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
    path, per_image = run.folder / "evaluation.json", run.folder / "per_image.csv"
    evaluation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = summary["val_dice"] is None or not evaluation or abs(evaluation["dice_mean"] - summary["val_dice"]) <= 1e-3
    if evaluation and (evaluation["split"] != "val" or not same):
        evaluation = {}  # not that of the best epoch on the validation split
    rows = read_rows(per_image) if per_image.is_file() else []
    with_object = [row for row in rows if row.get("tp", 1) + row.get("fn", 1) > 0]
    scores = {str(row["name"]): float(row["dice"]) for row in with_object}
    wanted = [float(summary[name]) for name in ("best_epoch", "seconds", "parameters")]
    wanted += [] if "val_dice_object" in summary else [float(summary["val_dice"])]
    if not (run.settings and all(map(math.isfinite, wanted))):
        raise ValueError(f"{run.folder} lacks settings or results")
    found = replace(run, summary=summary, evaluation=evaluation, images=tuple(str(row["name"]) for row in rows))
    _ = found.interval, found.trained_parameters  # raise an error where their facts are damaged
    same = found.dice is not None and bool(scores) and abs(statistics.fmean(scores.values()) - found.dice) <= 1e-3
    return replace(found, scores=scores) if same else found


def _words(command: str) -> list[str]:
    try:
        return [word for word in shlex.split(command) if "=" in word or word.startswith("~")]
    except ValueError:
        return []


def overrides_of(words: Iterable[str]) -> dict[str, str]:
    """Return overrides by name, without those of locations; of one given twice the last."""
    found = {}
    for word in words:
        match = _OVERRIDE.fullmatch(word)
        if match and match[1] not in LOCATIONS and (match[2] is not None or match[1].startswith("~")):
            found[match[1]] = "removed" if match[2] is None else plain(match[2])
    return found


def plain(value: str) -> str:
    """Return a value as text in one form: 1e-3 as 0.001, [1, 2] as [1,2], without quotes around it."""
    text = value.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if text[:1] in "[{":
        text = text.replace(", ", ",").replace(": ", ":")
    if not _NUMBER.fullmatch(text):
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def rounded(value: str) -> str:
    """Return a value for people: of a number with a fraction at most six digits."""
    return f"{float(value):.6g}" if _NUMBER.fullmatch(value) and re.search("[.e]", value) else value
