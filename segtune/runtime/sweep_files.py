"""The files that remember a sweep: `sweep.json` in its folder, and `failure.json` in the folder of a job.

`sweep.json` is written before the first job begins, and lists all of them, so also those that never begin:

    {"command": "python -m segtune train -m seed=0,1",
     "jobs": [{"number": 0, "folder": "0", "overrides": ["seed=0"]}, {"number": 1, …}]}

`folder` is relative to the sweep's; `overrides` are as typed, without `run_dir` and `resume`. `failure.json` is there
while the last attempt at a job has failed:

    {"reason": "what the user was told", "kind": "UserError", "overrides": […], "command": "python -m segtune train …"}

An error that segtune does not expect adds its `traceback`. Nothing heavy is imported here.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segtune.errors import Pruned, UserError
from segtune.runtime.files import write_json

SWEEP, FAILURE = "sweep.json", "failure.json"


@dataclass(frozen=True)
class SweepJob:
    """A job: its number, its folder in the sweep's, and its overrides."""

    number: int
    folder: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class SweepRecord:
    """What `sweep.json` holds: the command line, and all jobs."""

    command: str
    jobs: tuple[SweepJob, ...]


def read_sweep(folder: Path) -> SweepRecord | None:
    """Return what is recorded of a sweep; None if the folder has no `sweep.json`.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / SWEEP
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        jobs = [SweepJob(int(j["number"]), str(j["folder"]), tuple(map(str, j["overrides"]))) for j in content["jobs"]]
        return SweepRecord(str(content["command"]), tuple(jobs))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} is damaged: {type(error).__name__}: {error}. Remove it; the sweep's own command, with run_dir and "
            "resume=auto, then goes on from what the folders of its runs hold."
        ) from error


def write_sweep(folder: Path, record: SweepRecord) -> None:
    """Write `sweep.json`, atomically."""
    write_json(folder / SWEEP, asdict(record))


def write_failure(
    folder: Path, reason: str, kind: str, overrides: Sequence[str], command: str, traceback: str = ""
) -> None:
    """Write `failure.json` into the folder of a job, atomically."""
    content = {"reason": reason, "kind": kind, "overrides": list(overrides), "command": command}
    write_json(folder / FAILURE, content | ({"traceback": traceback} if traceback else {}))


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Return what `failure.json` holds; None if the last attempt at the job has not failed."""
    path = folder / FAILURE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) and isinstance(content["reason"], str) else {"reason": "unknown"}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError):
        return {"reason": f"unknown: {path} is damaged"}


def was_pruned(folder: Path) -> bool:
    """Return whether a search has ended a job early."""
    return (read_failure(folder) or {}).get("kind") == Pruned.__name__


def remove_failure(folder: Path) -> None:
    """Remove `failure.json`, because the job has succeeded."""
    with suppress(OSError):
        (folder / FAILURE).unlink()


def is_finished(folder: Path) -> bool:
    """Return whether a job's run is complete, by the names and times of its files."""
    last, summary = folder / "checkpoints" / "last.pt", folder / "summary.json"
    try:
        newer = last.stat().st_mtime_ns > summary.stat().st_mtime_ns  # a resume that has not ended
        return not newer and (folder / "report.html").is_file() and not (folder / FAILURE).exists()
    except OSError:
        return False


def label(job: SweepJob, jobs: Sequence[SweepJob]) -> str:
    """Return the overrides of a job that not all jobs share, joined by spaces."""
    return " ".join(each for each in job.overrides if any(each not in other.overrides for other in jobs))
