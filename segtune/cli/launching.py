"""Launchers of Hydra whose jobs run in processes of their own: what each job gets, how they stop, what is shown."""

import os
import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from segtune.cli.jobs import HELD, LOG, PAUSE, STOP, Job, Share, complain
from segtune.errors import UserError
from segtune.runtime.interrupts import interrupting
from segtune.runtime.paths import from_here
from segtune.runtime.sweep_files import FAILURE, SweepJob, is_finished, read_failure, was_pruned, write_failure

#: The extra that installs a launcher, by the name of its package.
_EXTRAS = {"joblib": "joblib", "submitit": "submitit"}


@contextmanager
def without_plugin(config: DictConfig) -> Iterator[None]:
    """Let the error of a launcher that is not installed say how to install it.

    Raises:
        UserError: It is not installed.
    """
    target = str(config.hydra.launcher.get("_target_", ""))
    try:
        yield
    except (ImportError, RuntimeError) as error:
        extra = next((extra for name, extra in _EXTRAS.items() if f"hydra_{name}_launcher" in target), None)
        if extra is None:
            raise
        choice = config.hydra.runtime.choices.get("hydra/launcher", extra)
        raise UserError(
            f"hydra/launcher={choice} is not installed. To install it: pip install 'segtune[{extra}]'"
        ) from error


def share_of(launcher: DictConfig) -> Share:
    """Return what each job gets of this machine under a launcher, by the launcher's settings."""
    target = str(launcher.get("_target_", ""))
    if "joblib" not in target and not target.endswith("LocalLauncher"):
        return Share()  # one after the other, or on machines that a batch system divides
    from segtune.runtime.cores import usable_cores  # takes PyTorch, which takes seconds

    cores, gpus = usable_cores(), _gpus()
    if "joblib" in target:
        jobs = int(launcher.n_jobs)
        places = jobs if jobs > 0 else max(1, cores + 1 + jobs)  # -1: as many as cores, as joblib counts
        return Share(places, max(1, cores // places), gpus if len(gpus) > 1 else ())
    threads = int(launcher.cpus_per_task or 1)
    return Share(max(1, cores // threads), threads, gpus)  # submitit itself hides all GPUs that it is not asked for


def _gpus() -> tuple[str, ...]:
    """Return the GPUs by their names in CUDA_VISIBLE_DEVICES."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return tuple(visible.split(",")[:count] if visible else map(str, range(count)))


def is_here(launcher: Launcher) -> bool:
    """Return whether a launcher runs its jobs in this process, one after the other."""
    return type(launcher).__name__ == "BasicLauncher"  # Hydra has loaded its module anew, so the class is another


def launch_apart(
    launcher: Launcher,
    overrides: Mapping[SweepJob, Sequence[str]],
    lines: Mapping[SweepJob, Sequence[str]],
    task: Job,
) -> dict[int, JobReturn]:
    """Run jobs by a launcher in other processes, show how they begin and end, and return their values by number.

    A first signal to stop is passed on to the jobs, which save what they have. A launcher that itself fails, because a
    process of its own was killed, is called again for the jobs that have not begun.

    Args:
        launcher: The launcher.
        overrides: What Hydra composes for each job.
        lines: The words of the command line that repeats each job.
        task: What the launcher calls.

    Raises:
        KeyboardInterrupt: The sweep was stopped.
        Exception: The launcher has failed before any job began.
    """
    sweep, todo = Path(task.sweep), list(overrides)
    stop, returned = sweep / STOP, dict[int, JobReturn]()
    stop.unlink(missing_ok=True)  # of a sweep that was killed
    for job in todo:
        _refuse_held(sweep / job.folder)
    try:
        while todo and not stop.exists():
            progress = _Progress(todo, task)
            try:
                with interrupting(stop.touch), progress.shown():
                    results = launcher.launch([list(overrides[job]) for job in todo], 0)
                returned |= {job.number: result for job, result in zip(todo, results, strict=True)}
                todo = []
            except Exception as error:
                progress.wait_for_held()
                left = [job for job in todo if not progress.begun(job)]
                if left == todo and not stop.exists():
                    raise
                complain(f"The launcher has failed ({type(error).__name__}); {len(left)} runs have not begun.")
                for job in todo if not stop.exists() else ():
                    progress.fail_if_lost(job, lines[job])
                todo = left
        if stop.exists():
            raise KeyboardInterrupt
    finally:
        for path in (stop, *sweep.glob(".place*")):
            path.unlink(missing_ok=True)
    return returned


def _refuse_held(folder: Path) -> None:
    """Check that no other process runs a job, and remove the lock file of one that has.

    Raises:
        UserError: One does.
    """
    if _held(folder):
        raise UserError(f"Another process trains in {folder}. Wait for it, or stop it.")
    (folder / HELD).unlink(missing_ok=True)


class _Progress:
    """How the jobs of a launch begin and end, by their files."""

    def __init__(self, jobs: Sequence[SweepJob], task: Job) -> None:
        self._folders, self._task = {job: Path(task.sweep, job.folder) for job in jobs}, task
        self._before = {job: self._failed_at(job) for job in jobs}
        self._shown: dict[SweepJob, str] = {}

    def _failed_at(self, job: SweepJob) -> int:
        with suppress(OSError):
            return (self._folders[job] / FAILURE).stat().st_mtime_ns
        return 0

    def _has_failed(self, job: SweepJob) -> bool:
        return self._failed_at(job) not in (0, self._before[job])

    def begun(self, job: SweepJob) -> bool:
        """Return whether a job has begun in this launch."""
        return (self._folders[job] / HELD).exists() or self._has_failed(job)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show on the screen, while the block runs and at its end, which jobs have begun and ended."""
        over = threading.Event()

        def follow() -> None:
            while not over.wait(PAUSE):
                self._show()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._show()

    def _show(self) -> None:
        for job, folder in self._folders.items():
            heading = self._task.headings[str(folder)]
            if job not in self._shown and self.begun(job):
                self._shown[job] = "begun"
                print(f"{heading} (output: {from_here(folder / LOG)})", flush=True)
            if self._shown.get(job) != "begun":
                continue
            if self._has_failed(job) and (failure := read_failure(folder)):
                self._shown[job] = "failed"
                complain(f"{heading}: {'pruned' if was_pruned(folder) else 'failed'}. {failure['reason']}")
            elif is_finished(folder) and not _held(folder):
                self._shown[job] = "finished"
                print(f"{heading}: finished", flush=True)

    def wait_for_held(self) -> None:
        """Wait until no job runs any more: after a launcher has failed, some may still save what they have."""
        while any(_held(folder) for folder in self._folders.values()):
            time.sleep(PAUSE)

    def fail_if_lost(self, job: SweepJob, words: Sequence[str]) -> None:
        """Record that a job has failed, if it has begun and left neither a result nor a reason."""
        folder = self._folders[job]
        if self.begun(job) and not is_finished(folder) and not self._has_failed(job):
            reason = f"Its process has ended without a result. See the end of {folder / LOG}."
            write_failure(folder, reason, "ProcessEnded", job.overrides, shlex.join(words))


def _held(folder: Path) -> bool:
    if not (folder / HELD).exists():
        return False
    try:
        with FileLock(folder / HELD).acquire(timeout=0):
            return False
    except Timeout:
        return True
