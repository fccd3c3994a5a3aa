"""Errors as messages with exit codes; also those of the machine: no memory left, output that cannot be written."""

from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from segtune.cli.help import readable
from segtune.errors import FailedError, UserError, out_of_memory, reason_of
from segtune.runtime.write_errors import is_of_writing, why

#: What helps where a command ran out of memory and does not say more.
_MEMORY = "Try smaller images (data.image_size; for predict image_size or tile), a smaller train.batch_size, or a GPU."


def message_of(error: Exception, command: str, arguments: Sequence[str] = ()) -> tuple[str, int] | None:
    """Return what to tell the user of an error, and the exit code; None for an error that segtune does not expect."""
    if isinstance(error, UserError | HydraException | OmegaConfBaseException | YAMLError):
        return readable(error, command, arguments), 2
    failure = error if isinstance(error, FailedError) else as_failure(error)
    return None if failure is None else (str(failure), 1)


def as_failure(error: Exception) -> FailedError | None:
    """Return the failure that an error of the machine is; None for errors of the user or of segtune."""
    if isinstance(error, UserError | FailedError):
        return None
    if isinstance(error, OSError) and is_of_writing(error):
        return FailedError(f"Cannot read or write {error.filename or 'the output'}: {why(error)}")
    if out_of_memory(error):
        return FailedError(f"Out of memory: {reason_of(error)}. {_MEMORY}")
    return None
