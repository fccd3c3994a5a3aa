"""Checkpoints: written whole or not at all, read without running code, complete in themselves."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from segtune.config import UserError
from segtune.locate import find_checkpoint

#: Raised when the meaning of a checkpoint's entries changes.
FORMAT = 2


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, never a part.

    Raises:
        UserError: The disk refuses; the file that stood there before is untouched.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` that takes its place when the block ends well, and vanishes when not.

    Raises:
        UserError: The disk refuses; the file that stood there before is untouched.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp's files are for their owner alone
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save makes a RuntimeError of a full disk's
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(
            f"Cannot write {path}: {reason}\n"
            "What was there before is untouched. If the disk is full, free some space; a run can then be resumed."
        ) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Save tensors and plain values, atomically.

    Raises:
        UserError: The disk refuses; the file that stood there before is untouched.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)


def load(path: Path) -> dict[str, Any]:
    """Load what `save` wrote, to the CPU. Nothing in the file is executed.

    Raises:
        UserError: The file is missing, unreadable, or no checkpoint of segtune.
    """
    find_checkpoint(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes lead the reader into
        # PyTorch's text advises to run the file's code, so it is not passed on.
        reason = error if isinstance(error, OSError) else type(error).__name__
        raise UserError(
            f"Cannot read the checkpoint {path}: it is damaged, or of another program ({reason}).\n"
            "Expected a file that `segtune train` wrote, such as RUN/checkpoints/best.pt."
        ) from error
    if not isinstance(content, dict) or "settings" not in content or "model" not in content:
        raise UserError(f"{path} is not a checkpoint of segtune: it lacks the entries 'settings' and 'model'.")
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path} has checkpoint format {content.get('format')}; this version of segtune reads format {FORMAT}."
        )
    return content
