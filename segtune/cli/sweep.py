"""A sweep from the command line: its jobs and their folders, what is run, and what is said at the end.

Hydra's sweeper makes the jobs and its launcher runs them; `SweepLauncher` stands between the two, whichever they are.
"""

import io
import os
import re
import shlex
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from segtune.cli.compose import call_hydra, for_composition, own_folders
from segtune.cli.jobs import Job, value_of
from segtune.cli.launching import is_here, launch_apart, share_of, without_plugin
from segtune.cli.quoting import for_hydra
from segtune.cli.search import SEARCH, Search
from segtune.cli.sweep_jobs import Jobs, name_of, without
from segtune.cli.tasks import AUTO, rank, train_settings
from segtune.config.schema import Settings
from segtune.errors import FailedError, Interrupted, UserError
from segtune.runtime.paths import expanded, from_here
from segtune.runtime.sweep_files import SWEEP, SweepJob, is_finished, read_failure, read_sweep, was_pruned
from segtune.training.resume_rules import MAY_CHANGE


def is_multirun(arguments: Sequence[str]) -> bool:
    """Return whether the arguments ask for a sweep: by Hydra's flag, or by a space to search."""
    spaces = [each.partition("=")[2] for each in arguments if name_of(each) == "sweep"]
    return _has_flag(arguments) or spaces[-1:] not in ([], ["null"])


def _has_flag(arguments: Sequence[str]) -> bool:
    flags = ("-m", "hydra.mode=MULTIRUN")
    return any(each in flags or (len(each) > 2 and "--multirun".startswith(each)) for each in arguments)


def holds_sweep(folder: str) -> bool:
    """Return whether a folder, as the user named it, holds a sweep."""
    return os.path.isfile(expanded(folder, "resume") / SWEEP)


def sweep(
    command: str, arguments: list[str], *, full_errors: bool, line: str = "", added: list[str] | None = None
) -> None:
    """Run the jobs of a sweep, show the ranked runs, and tell what has failed.

    Args:
        command: The command.
        arguments: Overrides and Hydra's flags.
        full_errors: Let errors through with their traceback.
        line: The command line to record; "" stands for the command with these arguments.
        added: Run all jobs of the folder, not only those of `arguments`, and add these overrides to each.

    Raises:
        UserError: No job can begin.
        FailedError: Some have failed.
        Interrupted: The user stopped the sweep.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("A sweep (-m) is not supported under torchrun. Start its runs one after the other.")
    job = Job(command, full_errors)
    arguments = arguments if _has_flag(arguments) else ["-m", *arguments]
    line = line or shlex.join(["python", "-m", "segtune", command, *arguments])
    launchers: list[SweepLauncher] = []
    instantiate = Plugins.instantiate_launcher

    def instantiate_launcher(
        self: Plugins, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> Launcher:
        with without_plugin(config):
            launcher = instantiate(self, hydra_context=hydra_context, task_function=task_function, config=config)
        launchers.append(SweepLauncher(launcher, config, hydra_context, job, line, added))
        return launchers[-1]

    Plugins.instantiate_launcher = instantiate_launcher  # type: ignore[method-assign]
    Plugins.instance().class_name_to_class[SEARCH] = Search  # under a name that Hydra takes for a plugin's
    stopped = None
    try:
        call_hydra(command, arguments, job)
    except KeyboardInterrupt as error:
        stopped = error
    finally:
        Plugins.instantiate_launcher = instantiate  # type: ignore[method-assign]
        launchers = [launcher for launcher in launchers if launcher.begun]
        for launcher in launchers:
            launcher.lock.release(force=True)  # a search has taken it for each batch
            launcher.show()
    for launcher in launchers:
        launcher.conclude(stopped=stopped is not None)
    if stopped is not None:
        raise stopped


class SweepLauncher(Launcher):
    """A launcher that records its jobs, lets another run those that are not finished, and tells how they ended."""

    def __init__(
        self,
        launcher: Launcher,
        config: DictConfig,
        context: HydraContext,
        job: Job,
        line: str,
        added: list[str] | None,
    ) -> None:
        """Take what the launcher was made with, and find the folder of the sweep.

        Raises:
            UserError: The folder holds a sweep that is not resumed.
        """
        self._launcher, self._config, self._context, self._job, self._added = launcher, config, context, job, added
        if any(each.startswith("hydra.sweep.subdir=") for each in config.hydra.overrides.hydra):
            raise UserError("hydra.sweep.subdir cannot be set: the folders of a sweep's runs are numbered.")
        self.folder = Path(os.path.abspath(config.hydra.sweep.dir))
        with open_dict(config.hydra):
            config.hydra.sweep.dir = str(self.folder)  # from here on a plain path, for processes without our resolver
            of_jobs = [each for each in config.hydra.overrides.hydra if not each.startswith("hydra.sweeper.")]
            config.hydra.overrides.hydra = of_jobs  # a job may be composed without the sweeper that these are of
        self.lock = FileLock(self.folder / ".lock")
        self._jobs = Jobs.found(self.folder, job.command, line, resume=config.get("resume") == AUTO)
        self._searches = config.hydra.sweeper.get("_target_") == SEARCH
        job.sweep = str(self.folder)
        job.share = share_of(config.hydra.launcher)
        self.begun = False
        self._ended: set[int] = set()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Do nothing: the launcher inside is set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, and return the value of each: NaN if it has failed or was interrupted."""
        given = [list(each) for each in job_overrides]
        if self._added is not None and not self._searches:
            given = [for_composition(self._job.command, self._jobs.words(job, self._added)) for job in self._jobs.all]
        wanted = self._jobs.take(given, self._settings)
        words = {job.number: each for job, each in zip(wanted, given, strict=True)}
        todo = [job for job in dict.fromkeys(wanted) if not self._is_finished(job)]
        if len(todo) == len(words) and not self.begun:
            self._check([words[job.number] for job in todo])
        self._begin()
        self._job.headings |= {str(self.folder / job.folder): self._jobs.heading(job) for job in todo}
        if len(todo) < len(words):
            print(f"{len(words) - len(todo)} of {len(words)} runs are finished already.", flush=True)
        returned = self._run({job: [*words[job.number], *self._place(job.folder)] for job in todo}) if todo else {}
        found = [returned.get(job.number) or self._known(job) for job in wanted]
        for job, each in zip(wanted, found, strict=True):
            each.working_dir = str(self.folder / job.folder)
        return found

    @property
    def at_once(self) -> int:
        """The number of jobs that the launcher runs at a time."""
        return self._job.share.places or int(self._config.hydra.launcher.get("array_parallelism") or 1)

    def expect(self, samples: Sequence[Sequence[str]], searched: Sequence[str], total: int) -> None:
        """Prepare for a search, which chooses the settings `searched` of its `total` jobs.

        Raises:
            UserError: None of the samples, the overrides of some jobs, can begin.
        """
        with redirect_stderr(io.StringIO()):  # what composing says of settings is said again of the jobs
            for each in samples:
                with suppress(UserError):  # a choice that does not exist is an error of Hydra's, and raised
                    self._settings(each)
            self._check(samples)
        self._jobs.searched, self._jobs.total, self._jobs.mine = tuple(searched), total, list(self._jobs.all)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._begin()

    def _begin(self) -> None:
        """Lock the sweep's folder for this process, and record the jobs.

        Raises:
            UserError: Another process runs the sweep.
        """
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"Another process runs the sweep in {from_here(self.folder)}. Wait for it.") from error
        self._jobs.write()
        self.begun = True

    def _known(self, job: SweepJob) -> JobReturn:
        """Return the value of a job that was not run: it is finished already, or the sweep was stopped."""
        known = JobReturn(status=JobStatus.COMPLETED)
        known.return_value = value_of(self.folder / job.folder)
        return known

    def _run(self, overrides: dict[SweepJob, list[str]]) -> dict[int, JobReturn]:
        if is_here(self._launcher):
            returned = {}
            for job, each in overrides.items():  # one by one, so that it is known which have ended
                returned[job.number] = self._launcher.launch([each], job.number)[0]
                self._ended.add(job.number)
            return returned
        folders = own_folders(self._config.hydra)
        lines = {job: ["python", "-m", "segtune", self._job.command, *folders, *job.overrides] for job in overrides}
        returned = launch_apart(self._launcher, overrides, lines, self._job)
        if self._job.command != "train":
            self._ended |= set(returned)
        return returned

    def _place(self, folder: str) -> list[str]:
        pairs = (("hydra.sweep.dir", self.folder), ("hydra.sweep.subdir", folder))
        return [for_hydra(f"{name}={value}", Settings) for name, value in pairs]

    def _is_finished(self, job: SweepJob) -> bool:
        folder = self.folder / job.folder
        return self._job.command == "train" and (is_finished(folder) or was_pruned(folder))

    def _settings(self, overrides: Sequence[str]) -> Settings:
        """Return the settings that a job composes to.

        Raises:
            UserError: They are wrong.
        """
        before = HydraConfig.instance().cfg
        try:
            config = self._context.config_loader.load_sweep_config(self._config, [*overrides, *self._place("0")])
            HydraConfig.instance().set_config(config)
            with open_dict(config):
                config.pop("hydra")
            return train_settings(config)
        finally:
            HydraConfig.instance().cfg = before

    def _check(self, overrides: Sequence[Sequence[str]]) -> None:
        """Check that at least one job of a sweep of runs can begin.

        Raises:
            UserError: None can; the message is that of the first.
        """
        first: UserError | None = None
        for each in overrides if self._job.command == "train" else ():
            try:
                self._settings(each)
                return
            except UserError as error:
                first = first or error
        if first is not None:
            if not (self.folder / SWEEP).exists():
                with suppress(OSError):  # what Hydra has made for it
                    (self.folder / "multirun.yaml").unlink()
                    self.folder.rmdir()
            raise first

    def show(self) -> None:
        """Show the ranked runs, if there are any."""
        if self._job.command == "train":
            rank(self.folder)

    def conclude(self, *, stopped: bool) -> None:
        """Tell which jobs have failed, were interrupted or have not begun, and the command that goes on.

        Raises:
            FailedError: Some have failed or were interrupted.
            Interrupted: The sweep was stopped.
        """
        states = [(job, *self._state(job)) for job in self._jobs.mine]
        counts = {what: sum(state == what for _, state, _ in states) for what in ("failed", "interrupted", "not begun")}
        total = max(len(states), self._jobs.total)
        counts["not begun"] += total - len(states)
        told = ", ".join(f"{count} of {total} {what}" for what, count in counts.items() if count)
        if not told and not stopped:
            return
        where = from_here(self.folder)
        lines = [
            f"  {where}/{job.folder}{f' ({label})' if (label := self._jobs.label(job)) else ''}: {reason}"
            for job, state, reason in states
            if reason
        ]
        ways = {"train": [f"To go on: {shlex.join(['python', '-m', 'segtune', 'train', f'resume={where}'])}"]}
        text = "\n".join(
            [f"{told or 'nothing is left to do'}{':' if lines else '.'}", *lines, *ways.get(self._job.command, [])]
        )
        raise Interrupted(f"Stopped; {text}") if stopped else FailedError(text)

    def _state(self, job: SweepJob) -> tuple[str, str]:
        """Return how a job has ended, and the first sentence of the reason."""
        folder = self.folder / job.folder
        if was_pruned(folder):
            return "pruned", ""
        failure = read_failure(folder)
        if reason := failure["reason"] if failure else self._job.reasons.get(str(folder)):
            first, *others = map(str.strip, reason.split("\n"))
            return "failed", f"{first} {others[0]}" if others and first.endswith(":") else first
        if job.number in self._ended or self._is_finished(job):
            return "finished", ""
        if (folder / "config.yaml").exists():
            return "interrupted", "interrupted"
        return "not begun", ""


def resume_sweep(arguments: list[str], *, full_errors: bool) -> None:
    """Go on with a sweep by the name of its folder: run what is missing, and resume what was interrupted.

    Raises:
        UserError: More is given than may be added.
    """
    if flags := [argument for argument in arguments if argument.startswith("-")]:
        raise UserError(f"resume takes no flags; got {' '.join(flags)}.")
    named = {argument.lstrip("+").partition("=")[0]: argument for argument in arguments}
    folder = named.pop("resume").partition("=")[2]
    record = read_sweep(expanded(folder, "resume"))
    assert record is not None  # see `holds_sweep`
    for name, argument in named.items():
        if name not in MAY_CHANGE and not re.match(r"hydra[/.](launcher|sweeper)\b", name):
            raise UserError(
                f"{argument}: the runs of a sweep keep their settings. Only these may be added: "
                f"{', '.join(MAY_CHANGE)}, hydra/launcher and its settings. To add runs, give the sweep's command with "
                f"more values: {without(record.command, ('run_dir', 'resume'))} run_dir={folder} resume=auto"
            )
    others = ("hydra.launcher.",) if "hydra/launcher" in named else ()  # another launcher has other settings
    kept = shlex.split(without(record.command, ("run_dir", "resume", "hydra.sweep.dir", *named), others))[4:]
    given = [*kept, *named.values(), f"run_dir={folder}", "resume=auto"]
    added = [argument for name, argument in named.items() if not name.startswith("hydra")]
    sweep("train", given, full_errors=full_errors, line=record.command, added=added)
