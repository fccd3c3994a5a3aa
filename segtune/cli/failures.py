"""Errors of the machine that any command may meet, as messages: memory that runs out, output that cannot be written."""

from segtune.errors import FailedError, UserError, out_of_memory, reason_of
from segtune.runtime.write_errors import is_of_writing, why

#: What helps where a command ran out of memory and does not say more.
_MEMORY = "Try smaller images (data.image_size; for predict image_size or tile), a smaller train.batch_size, or a GPU."


def as_failure(error: Exception) -> FailedError | None:
    """Return the failure that an error of the machine is; None for errors of the user or of segtune."""
    if isinstance(error, UserError | FailedError):
        return None
    if isinstance(error, OSError) and is_of_writing(error):
        return FailedError(f"Cannot read or write {error.filename or 'the output'}: {why(error)}")
    if out_of_memory(error):
        return FailedError(f"Out of memory: {reason_of(error)}. {_MEMORY}")
    return None
