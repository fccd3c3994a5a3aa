"""The records of a run: `config.yaml`, `metrics.csv`, `summary.json`, `samples/`, `tensorboard/`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import BaseFileLock, FileLock, Timeout

from segtune.errors import UserError
from segtune.runtime import distributed
from segtune.runtime.files import write_atomically

log = logging.getLogger(__name__)


@contextmanager
def lock_run_folder(folder: Path, *, resume: bool) -> Iterator[None]:
    """Hold a run's folder for this process, and those beside it, while the block runs; it is made if it is not there.

    The lock is the operating system's: it ends with the process, however that ends.

    Raises:
        UserError: Another process holds it, a run is there already and is not resumed, or the disk refuses.
    """
    lock = FileLock(folder / ".lock")
    distributed.on_rank_zero(lambda: _take(lock, folder, resume=resume))
    try:
        yield
    finally:
        if distributed.rank() == 0:
            begun = (folder / "config.yaml").exists()
            with suppress(OSError):
                if not begun:  # the run failed before it began: an empty folder is of no use
                    (folder / ".lock").unlink(missing_ok=True)
                    folder.rmdir()
            lock.release()


def _take(lock: BaseFileLock, folder: Path, *, resume: bool) -> None:
    def refuse_a_run() -> None:
        if not resume and ((folder / "config.yaml").exists() or (folder / "checkpoints").exists()):
            raise UserError(
                f"There is a run in {folder} already. Go on with it (resume={folder}), or give another folder "
                "(run_dir=…)."
            )

    refuse_a_run()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        refuse_a_run()  # one that began, and ended, just now
        for leftover in folder.glob("**/.*.partial"):  # of a process that was killed while it wrote
            leftover.unlink()
    except Timeout as error:
        raise UserError(
            f"Another process is training in {folder} just now. Wait for it, or give another folder (run_dir=…)."
        ) from error
    except OSError as error:
        raise UserError(f"Cannot write to the run's folder {folder}: {error.strerror or error}.") from error


def write_settings(folder: Path, settings: Mapping[str, Any], command: str = "") -> None:
    """Keep the resolved settings in a run's folder, under the command that asked for them.

    A resume that changes something has a command of its own, which follows the first.
    """
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    kept = read_command(folder)
    command = f"{kept} && {command}" if kept and command else kept or command
    if "\n" in command or "\r" in command:
        command = ""  # it would not stay a comment
    write_atomically(folder / "config.yaml", (f"# {command}\n{text}" if command else text).encode())


def read_command(folder: Path) -> str:
    """Return the command that a run began with; nothing if it is not known."""
    path = folder / "config.yaml"
    first = path.read_text(encoding="utf-8").partition("\n")[0] if path.is_file() else ""
    return first[2:] if first.startswith("# ") else ""
