"""The folder of a run: its lock, and `config.yaml` with the run's settings and command."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import BaseFileLock, FileLock, Timeout

from segtune.errors import FailedError, UserError, some
from segtune.runtime import distributed
from segtune.runtime.files import write_atomically
from segtune.runtime.write_errors import why

log = logging.getLogger(__name__)


@contextmanager
def lock_run_folder(folder: Path, *, resume: bool) -> Iterator[None]:
    """Lock a run's folder for this run while the block runs; create the folder if needed.

    The lock is the operating system's: it ends with the process, however that ends.

    Raises:
        UserError: Another process holds it, it contains a run that is not resumed, or it is not writable.
    """
    lock = FileLock(folder / ".lock")
    distributed.on_rank_zero(lambda: _take(lock, folder, resume=resume))
    try:
        yield
    finally:
        if distributed.rank() == 0:
            begun = (folder / "config.yaml").exists()
            with suppress(OSError):
                if not begun:  # the run failed before it began: remove its empty folder
                    (folder / ".lock").unlink(missing_ok=True)
                    folder.rmdir()
            lock.release()


def _take(lock: BaseFileLock, folder: Path, *, resume: bool) -> None:
    def refuse_a_run() -> None:
        if not resume and ((folder / "config.yaml").exists() or (folder / "checkpoints").exists()):
            raise UserError(
                f"There is a run in {folder} already. Resume it (resume={folder}), or choose another folder "
                "(run_dir=…)."
            )

    refuse_a_run()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        refuse_a_run()  # again: one may have begun and ended in between
        for leftover in folder.glob("**/.*.partial"):  # of a process that was killed while it wrote
            leftover.unlink()
    except Timeout as error:
        raise UserError(
            f"Another process is training in {folder}. Wait for it, or choose another folder (run_dir=…)."
        ) from error
    except OSError as error:
        raise UserError(f"Cannot write to the run's folder {folder}: {why(error)}") from error


#: What a run has written when it has trained, and when its best model has been evaluated.
TRAINED = ("config.yaml", "metrics.csv", "summary.json", "checkpoints/best.pt", "checkpoints/last.pt")
EVALUATED = ("evaluation.json", "per_image.csv", "report.html")


def check_run_folder(folder: Path, names: Sequence[str] = ("config.yaml",)) -> None:
    """Check that a run's folder still holds files that the run has written; only the first process does.

    Raises:
        FailedError: Some are missing.
    """
    missing = [name for name in names if not os.path.exists(folder / name)] if distributed.rank() == 0 else []
    if missing:
        raise FailedError(
            f"The run's folder {folder} was deleted or moved while the run wrote to it: {some(missing, 10)} "
            f"{'is' if len(missing) == 1 else 'are'} missing, so the run cannot be used or resumed. Start it again."
        )


def as_yaml(settings: Mapping[str, Any]) -> str:
    """Return settings as YAML."""
    return str(yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def write_settings(folder: Path, settings: Mapping[str, Any], command: str = "") -> None:
    """Write the resolved settings to a run's `config.yaml`, below the command of the run.

    The command of a resume that changes something is appended to the first.
    """
    text = as_yaml(settings)
    kept = read_command(folder)
    if kept:
        command = kept if not command or command in kept.split(" && ") else f"{kept} && {command}"
    if "\n" in command or "\r" in command:
        command = ""  # a line break would end the comment
    write_atomically(folder / "config.yaml", (f"# {command}\n{text}" if command else text).encode())


def read_command(folder: Path) -> str:
    """Return the command of a run; an empty text if it is not known."""
    path = folder / "config.yaml"
    first = path.read_text(encoding="utf-8").partition("\n")[0] if path.is_file() else ""
    return first[2:] if first.startswith("# ") else ""
