"""The runs in a folder: what each was set to, how it ended, and what came of it."""

import csv
import hashlib
import json
import math
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.evaluation.selection import score_of
from segtune.reporting.setting_texts import flat, overrides_of, words_of
from segtune.reporting.wording import Facts
from segtune.runtime.console import shown
from segtune.runtime.files import read_rows
from segtune.runtime.paths import find_folder
from segtune.runtime.sweep_files import FAILURE, SWEEP, SweepRecord, read_failure, read_sweep

#: How a run can have ended.
FINISHED, FAILED, INTERRUPTED, PRUNED = "finished", "failed", "interrupted", "pruned"
NOT_STARTED, DAMAGED = "not started", "not readable"
#: How what `failure.json` calls the kind of an error counts, unless as a failure.
_KINDS = {"Pruned": PRUNED, "TrialPruned": PRUNED, "Interrupted": INTERRUPTED, "KeyboardInterrupt": INTERRUPTED}

#: What a run writes beside its config.yaml, and `probe` does not.
_OF_RUNS = {"metrics.csv", "data.json", "summary.json", FAILURE, "checkpoints"}
#: What `evaluation.json` says of how masks were read.
_TRUTH = ("foreground", "invert", "empty", "ignore")
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError, csv.Error)


@dataclass(frozen=True)
class RunResult:
    """A run: how it ended and why, its settings as on the command line and by dotted name, and its results.

    `summary` is empty for a run that is not finished, `settings` for one that ended before it began; `evaluation` and
    `scores`, the Dice of each validation image with an object by the image's name, also for runs of versions that
    wrote neither. `images` are the names of all validation images, `checksums` a digest of those of their files;
    `sweep` is the folder of the run's sweep.
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
    checksums: str = ""
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

    @property
    def truth(self) -> tuple[Any, ...]:
        """What Dice is measured against: images, checksums, the rules of the ground truth; an unknown part is empty."""
        told: Facts = {"ignore": None, **self.evaluation} if self.evaluation else {}  # earlier versions ignored nothing
        return self.images, self.checksums, *(str(told.get(name, "")) for name in _TRUTH)

    def comparable(self, other: "RunResult") -> bool:
        """Return whether both were validated against the same ground truth, as far as is known."""
        return all(
            mine == theirs or not mine or not theirs for mine, theirs in zip(self.truth, other.truth, strict=True)
        )

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
        if SWEEP in files:
            planned |= _jobs(path)
        if FAILURE in files or ("config.yaml" in files and _OF_RUNS & {*files, *folders}):
            planned.setdefault(path, _Planned())
            folders[:] = set(folders) - {"checkpoints", "samples", "tensorboard"}
    return [_read(each, planned[each]) for each in sorted(planned, key=_natural)]


def sweeps(folder: Path) -> list[str]:
    """Return the commands of the sweeps in a folder."""
    records = [_sweep(path.parent) for path in sorted(folder.rglob(SWEEP))]
    return list(dict.fromkeys(record.command for record in records if record))


def _sweep(folder: Path) -> SweepRecord | None:
    """Return what is recorded of a sweep; None if nothing is, or the file is damaged."""
    try:
        return read_sweep(folder)
    except UserError:
        return None


@dataclass(frozen=True)
class _Planned:
    """What is known of a run before it is read: its sweep, and its overrides there."""

    sweep: Path | None = None
    overrides: Sequence[str] = ()


def _jobs(sweep: Path) -> dict[Path, _Planned]:
    """Return the jobs of a sweep by their folders."""
    record = _sweep(sweep)
    return {sweep / job.folder: _Planned(sweep, job.overrides) for job in (record.jobs if record else ())}


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return what sorts paths with numbers by their values."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _read(folder: Path, planned: _Planned) -> RunResult:
    """Return a run, or a job of a sweep as it was planned."""
    failure = read_failure(folder) or {}
    status, reason = _status(folder, failure, planned)
    text = _text(folder / "config.yaml")
    first = text.partition("\n")[0]
    command = first[2:] if first.startswith("# ") else ""
    words = words_of(command) or failure.get("overrides") or planned.overrides
    command = command or str(failure.get("command", ""))
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


def _status(folder: Path, failure: Facts, planned: _Planned) -> tuple[str, str]:
    """Return how a run has ended, and why."""
    if failure:
        return _KINDS.get(str(failure.get("kind")), FAILED), str(failure["reason"])
    if (folder / "summary.json").is_file():
        if not planned.sweep or (folder / "report.html").is_file():
            return FINISHED, ""
        after = "after its last epoch, before its evaluation"
    elif not (folder / "config.yaml").is_file():
        return NOT_STARTED, ""
    else:
        after = _epochs(folder)
    return INTERRUPTED, f"Stopped {after}, or still running. Resume: python -m segtune train resume={shown(folder)}"


def _epochs(folder: Path) -> str:
    """Return after which epoch a run stopped."""
    try:
        return f"after epoch {len(read_rows(folder / 'metrics.csv'))}"
    except (OSError, ValueError, csv.Error):
        return "in its first epoch"


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
    return dict(flat(settings))


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
    images = tuple(str(row["name"]) for row in rows)
    found = replace(run, summary=summary, evaluation=evaluation, images=images, checksums=_checksums(run.folder))
    _ = found.interval, found.trained_parameters  # raise an error where their facts are damaged
    same = found.dice is not None and bool(scores) and abs(statistics.fmean(scores.values()) - found.dice) <= 1e-3
    return replace(found, scores=scores) if same else found


def _checksums(folder: Path) -> str:
    """Return a digest of the names and checksums of a run's validation images; "" if they are not known."""
    try:
        files = json.loads((folder / "data.json").read_text(encoding="utf-8"))["val"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return hashlib.blake2b(json.dumps(files, sort_keys=True).encode(), digest_size=16).hexdigest()
