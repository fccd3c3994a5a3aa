"""A job of a sweep: run in the sweep's own process, or, where a launcher moves it to another, in a process of its own.

`python -m segtune.cli.jobs COMMAND WORDS…` is such a process; SEGTUNE_JOB_FOLDER names its folder. So a job that is
killed takes no other with it, its threads and its GPU are set before PyTorch starts, and its memory ends with it.
"""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from segtune.cli.compose import JOB_FOLDER, command_words, compose, job_folder
from segtune.cli.failures import message_of
from segtune.cli.tasks import task_of
from segtune.errors import UserError
from segtune.runtime.interrupts import interrupting
from segtune.runtime.sweep_files import is_finished, remove_failure, was_pruned, write_failure
from segtune.runtime.wrapping import terminal_width, wrap

#: In the folder of a job: what its own process prints, and the lock that this process holds.
LOG, HELD = "output.log", ".job"
#: In the folder of a sweep whose jobs have processes of their own: this file asks them to stop.
STOP = ".stop"
#: Seconds between two looks at what other processes do.
PAUSE = 0.2


@dataclass(frozen=True)
class Share:
    """What a job in a process of its own gets of the machine.

    Attributes:
        places: Jobs that run at once; 0 leaves it to the launcher.
        threads: Threads that PyTorch computes with; 0 leaves it to PyTorch.
        devices: The GPUs, by their names in CUDA_VISIBLE_DEVICES: one for each place; none leaves them all to each job.
    """

    places: int = 0
    threads: int = 0
    devices: tuple[str, ...] = ()

    def environment(self, place: int) -> dict[str, str]:
        """Return the environment variables of the job in a place."""
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "SEGTUNE_CORES")
        found = dict.fromkeys(threads, str(self.threads)) if self.threads else {}
        if self.devices:
            found["CUDA_VISIBLE_DEVICES"] = self.devices[place % len(self.devices)]
        return found


@dataclass
class Job:
    """What a launcher calls for each job; it goes to the launcher's processes.

    Attributes:
        command: The command that is swept.
        full_errors: Let errors through with their traceback.
        sweep: The folder of the sweep.
        headings: The heading of each job, by its folder.
        share: What a job in a process of its own gets of the machine.
        parent: The process of the sweep.
        reasons: Why jobs have failed in this process, by folder.
    """

    command: str
    full_errors: bool = False
    sweep: str = ""
    headings: dict[str, str] = field(default_factory=dict)
    share: Share = Share()
    parent: int = field(default_factory=os.getpid)
    reasons: dict[str, str] = field(default_factory=dict)

    def __call__(self, config: DictConfig) -> Any:
        """Run the job with these settings; return its value, NaN if it has failed."""
        folder, words = job_folder(), command_words(self.command)
        assert folder is not None  # only a sweep calls it
        if os.getpid() != self.parent:
            return self._run_apart(folder, words)
        heading = self.headings[str(folder)]
        print(f"\n{heading}", flush=True)
        if self.full_errors:
            return task_of(self.command)(config)
        try:
            value, reason = attempt(self.command, folder, words, lambda: task_of(self.command)(config))
        except KeyboardInterrupt as stopped:
            complain(str(stopped) or "Stopped.")
            raise
        if reason is not None and not was_pruned(folder):
            self.reasons[str(folder)] = reason
            complain(f"{heading}: failed. {reason}")
        elif reason is not None:
            print(wrap(f"{heading}: pruned. {reason}", terminal_width(sys.stdout)), flush=True)
        return value

    def _run_apart(self, folder: Path, words: Sequence[str]) -> float:
        """Run the job in a process of its own, and wait for it; return its validation Dice, NaN without one."""
        stop = Path(self.sweep, STOP)
        with _place(Path(self.sweep), self.share.places, stop) as place:
            if stop.exists():
                return math.nan
            folder.mkdir(parents=True, exist_ok=True)
            own = self.share.environment(place) | {JOB_FOLDER: str(folder), "PYTHONIOENCODING": "utf-8"}
            code = _wait_for([sys.executable, "-m", "segtune.cli.jobs", *words[3:]], own, folder / LOG, stop)
        if code not in (0, 1, 2, 130):
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            reason = f"Its process was ended ({name}), as happens where memory runs out. See the end of {folder / LOG}."
            write_failure(folder, reason, "ProcessEnded", overrides_of(words), shlex.join(words))
        return value_of(folder)


def attempt(command: str, folder: Path, words: Sequence[str], run: Callable[[], Any]) -> tuple[Any, str | None]:
    """Run a job and return its value and None; if it fails, NaN and the reason, which its `failure.json` keeps.

    Args:
        command: The command.
        folder: The job's folder.
        words: The words of the command line that repeats the job.
        run: What runs it.
    """
    try:
        value = run()
    except Exception as error:
        said = message_of(error, command, overrides_of(words))
        reason = said[0] if said else f"{type(error).__name__}: {error}"
        trace = "" if said else traceback.format_exc()
        sys.stderr.write(trace)
        with suppress(UserError):  # a full disk: the reason is said in any case
            write_failure(folder, reason, type(error).__name__, overrides_of(words), shlex.join(words), trace)
        return math.nan, reason
    remove_failure(folder)
    return value, None


def overrides_of(words: Sequence[str]) -> list[str]:
    """Return the overrides among the words of a job's command line."""
    return [each for each in words[4:] if not each.startswith("--config-dir=")]


def complain(text: str) -> None:
    """Print lines on stderr, wrapped for its terminal."""
    print(wrap(text, terminal_width(sys.stderr)), file=sys.stderr, flush=True)


@contextmanager
def _place(sweep: Path, places: int, stop: Path) -> Iterator[int]:
    """Wait for one of the places in which jobs run at once, and hold it; not after the sweep was asked to stop."""
    while places and not stop.exists():
        for place in range(places):
            lock = FileLock(sweep / f".place{place}")
            with suppress(Timeout), lock.acquire(timeout=0):
                yield place
                return
        time.sleep(PAUSE)
    yield 0


def _wait_for(command: Sequence[str], own: dict[str, str], log: Path, stop: Path) -> int:
    """Run a process to its end, and return its exit code.

    It is asked to stop, by the end of its input, if this process gets a signal, or ends, or if the sweep is to stop.
    """
    parent = os.getppid()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=os.environ | own, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
    assert process.stdin is not None
    with process.stdin as asked, interrupting(asked.close):
        while process.poll() is None:
            if stop.exists() or os.getppid() != parent:
                asked.close()
            time.sleep(PAUSE)
    return process.returncode


def value_of(folder: Path) -> float:
    """Return the validation Dice of a finished run; NaN of any other."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return float(summary.get("val_dice_object", summary["val_dice"])) if is_finished(folder) else math.nan
    except (OSError, ValueError, LookupError, TypeError):
        return math.nan


def main() -> int:
    """Run a job in this process, which ends with it; return the exit code."""
    words, folder = sys.argv[1:], Path(os.environ[JOB_FOLDER])
    command = words[0]
    try:
        with interrupting(), FileLock(folder / HELD):
            threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
            if command == "train" and is_finished(folder):
                return 0  # by another process, for whose lock this one has waited
            repeats = ["python", "-m", "segtune", *words]
            _, reason = attempt(
                command, folder, repeats, lambda: compose(command, words[1:], task_of(command), full_errors=False)
            )
    except KeyboardInterrupt as stopped:
        complain(str(stopped) or "Stopped.")
        return 130
    if reason is not None:
        complain(f"segtune {command}: {reason}")
    return 0 if reason is None else 1


def _interrupt_at_end_of_input() -> None:
    """Wait until the process that has started this one asks it to stop, or ends; then interrupt it as Ctrl-C does."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
