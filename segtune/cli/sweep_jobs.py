"""The jobs of a sweep's folder: which there are, which of them a command means, and their headings.

A job is known by its overrides, whatever its number, so that a sweep goes on with more values or in another order.
"""

import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from segtune.cli.compose import OVERRIDE
from segtune.cli.quoting import as_typed
from segtune.cli.repeat import is_chosen
from segtune.config.command_settings import SETTINGS
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.runtime.paths import from_here
from segtune.runtime.sweep_files import SweepJob, SweepRecord, label, read_sweep, write_sweep
from segtune.training.resume_rules import MAY_CHANGE, same_run

_OF_PLACE = ("run_dir", "resume")


def name_of(override: str) -> str:
    """Return the name of the setting that an override sets."""
    return override.lstrip("+").partition("=")[0]


class Jobs:
    """The jobs in a sweep's folder.

    Attributes:
        all: All of them.
        mine: Those that the command means, in its order.
        searched: Of a search, the settings that it chooses.
        total: Of a search, the number of its jobs, most of which are not known yet.
    """

    def __init__(self, folder: Path, command: str, line: str, known: Iterable[SweepJob]) -> None:
        """Take the folder, the command and its line, and the jobs that are known there."""
        self._folder, self._command, self._line = folder, command, line
        self.all: list[SweepJob] = list(known)
        self.mine: list[SweepJob] = []
        self.searched: tuple[str, ...] = ()
        self.total = 0

    @classmethod
    def found(cls, folder: Path, command: str, line: str, *, resume: bool) -> "Jobs":
        """Return the jobs of a folder.

        Raises:
            UserError: There are some, and they are not to be resumed.
        """
        record = read_sweep(folder)
        known = list(record.jobs) if record else _jobs_of_folders(folder)
        if known and not resume:
            where = from_here(folder)
            alone = f"python -m segtune train resume={where}, or " if record and command == "train" else ""
            raise UserError(
                f"There is a sweep in {where} already. To go on with it: {alone}the same command with run_dir and "
                "resume=auto, also with more values. Or choose another folder (run_dir=…)."
            )
        return cls(folder, command, line, known)

    def take(self, batch: Sequence[Sequence[str]], settings_of: Callable[[Sequence[str]], Settings]) -> list[SweepJob]:
        """Return the job of each list of overrides: one that is known, or a new one with the next number.

        Args:
            batch: What Hydra composes, for each job.
            settings_of: Returns the settings that overrides compose to; asked only where it matters.
        """
        given = [self._of_run(each) for each in batch]
        common = set(given[0]).intersection(*given) if given else set()
        varied = {name_of(each) for mine in given for each in mine if each not in common}
        free = tuple(name for name in MAY_CHANGE if name not in varied)
        exact = {mine: job for mine in given for job in self.all if set(job.overrides) == set(mine)}
        taken = []
        for overrides, mine in zip(batch, given, strict=True):
            job = exact.get(mine)
            if job is None:
                others = [job for job in self.all if job not in exact.values()]
                job = _of_same_overrides(others, mine, free) or self._of_same_settings(
                    others, overrides, settings_of, free
                )
                exact[mine] = self._recorded(job, mine)
            taken.append(exact[mine])
        self.mine += [job for job in dict.fromkeys(taken) if job not in self.mine]
        return taken

    def _of_run(self, overrides: Iterable[str]) -> tuple[str, ...]:
        """Return the overrides of a run among those of a job, as typed."""
        given = (each for each in overrides if not each.lstrip("+").startswith("hydra") and not is_chosen(each))
        mine = map(self._typed, given)
        return tuple(each for each in mine if name_of(each) not in _OF_PLACE)

    def _recorded(self, job: SweepJob | None, mine: tuple[str, ...]) -> SweepJob:
        """Return a job that is recorded: a new one, or a known one, with its overrides if they were not known."""
        if job is None:
            number = max((job.number for job in self.all), default=-1) + 1
            self.all.append(SweepJob(number, str(number), mine))
            return self.all[-1]
        if not job.overrides:  # of an earlier version
            self.all[self.all.index(job)] = job = SweepJob(job.number, job.folder, mine)
        return job

    def _of_same_settings(
        self,
        others: Iterable[SweepJob],
        overrides: Sequence[str],
        settings_of: Callable[[Sequence[str]], Settings],
        free: Collection[str],
    ) -> SweepJob | None:
        """Return a job that has begun with the same settings, said in other words."""
        begun = [job for job in others if (self._folder / job.folder / "config.yaml").exists()]
        if not begun or self._command != "train":
            return None
        try:
            wanted = asdict(settings_of(overrides))
        except UserError:
            return None  # it is told when the job runs
        return next((job for job in begun if same_run(_settings_of(self._folder / job.folder), wanted, free)), None)

    def _typed(self, override: str) -> str:
        return as_typed(override.removeprefix("++"), SETTINGS[self._command])

    def words(self, job: SweepJob, added: Sequence[str]) -> list[str]:
        """Return the overrides of a job with others added, which replace its own."""
        names = {name_of(each) for each in added}
        return [*(each for each in job.overrides if name_of(each) not in names), *added]

    def write(self) -> None:
        """Record all jobs."""
        write_sweep(self._folder, SweepRecord(self._line, tuple(self.all)))

    def label(self, job: SweepJob) -> str:
        """Return the overrides of a job that not all of them share, or that a search has chosen."""
        if self.searched:
            return " ".join(each for each in job.overrides if name_of(each) in self.searched)
        return label(job, self.mine)

    def heading(self, job: SweepJob) -> str:
        """Return the heading of a job: its place in the command's order, and what is particular to it."""
        varied = self.label(job)
        return f"run {self.mine.index(job) + 1} of {max(len(self.mine), self.total)}{f': {varied}' if varied else ''}"


def _of_same_overrides(jobs: Iterable[SweepJob], mine: Iterable[str], free: Collection[str]) -> SweepJob | None:
    """Return the job whose overrides are the same but for those of settings that may change."""

    def decisive(overrides: Iterable[str]) -> set[str]:
        return {each for each in overrides if name_of(each) not in free}

    return next((job for job in jobs if job.overrides and decisive(job.overrides) == decisive(mine)), None)


def _jobs_of_folders(folder: Path) -> list[SweepJob]:
    """Return the jobs of a sweep of an earlier version, which has recorded none."""
    runs = [path.parent.name for path in folder.glob("*/config.yaml")]
    return [SweepJob(int(name), name, ()) for name in sorted(runs) if name.isdecimal()]


def _settings_of(folder: Path) -> dict[str, object] | None:
    """Return the settings of a run as this version has them; None if they cannot be read."""
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return asdict(parse(Settings, content))
    except (OSError, ValueError, TypeError, yaml.YAMLError, UserError):
        return None


def without(line: str, names: Collection[str], prefixes: tuple[str, ...] = ()) -> str:
    """Return a command line without the overrides of these settings, and of those that begin so."""

    def goes(word: str) -> bool:
        return bool(OVERRIDE.match(word)) and (name_of(word) in names or name_of(word).startswith(prefixes))

    return shlex.join(word for word in shlex.split(line) if not goes(word))
