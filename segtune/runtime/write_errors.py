"""Say why a file cannot be written, and what to do."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from segtune.errors import WriteError

_SPACE = "free some space, or write elsewhere"
_REASONS: dict[str, tuple[str, str]] = {
    "ENOSPC": ("the disk is full", _SPACE),
    "EDQUOT": ("your disk quota is used up", "delete files of your own, or write elsewhere"),
    "EFBIG": (
        "the file would be larger than allowed",
        "look at the limit of this shell (ulimit -f) or of the file system, or write elsewhere",
    ),
    "EACCES": ("permission denied", "write to a folder of your own, or change its permissions"),
    "EPERM": ("not permitted", "write to a folder of your own, or change its permissions"),
    "EROFS": ("the file system is read-only", "write elsewhere"),
    "EIO": (
        "the disk reports an input/output error",
        "the disk or its network may be failing: see the system's log",
    ),
    "ENXIO": ("the device does not exist", "write elsewhere"),
    "ESTALE": ("the network file system has lost the folder", "mount it again"),
    "ENAMETOOLONG": ("the name is too long for the file system", "choose a shorter one"),
    "ENOENT": ("its folder does not exist", "was it deleted or unmounted? Create it again"),
    "EISDIR": ("there is a folder of this name", "move it away, or choose another name"),
    "ENOTDIR": ("a part of the path is a file, not a folder", "move it away, or choose another path"),
    "EEXIST": ("a part of the path is a file, not a folder", "move it away, or choose another path"),
    "ELOOP": ("its symbolic links lead in a circle", "choose another path"),
    "EMFILE": ("too many files are open", "raise the limit (ulimit -n), or use fewer train.workers"),
    "ENFILE": ("the system has too many open files", "end other programs"),
    "ETXTBSY": ("another program is using it", "end that program, or choose another name"),
    "EBUSY": ("another program is using it", "end that program, or choose another name"),
}
_BY_NUMBER = {getattr(errno, name): text for name, text in _REASONS.items() if hasattr(errno, name)}
#: Those that only writing meets.
_OF_WRITING = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO") if hasattr(errno, name)}
# PyTorch's writer turns an error of the file into one of its own.
_WRITER = re.compile(r"PytorchStreamWriter|inline_container|unexpected pos|basic_ios", re.IGNORECASE)


def cause_of(error: BaseException) -> OSError | None:
    """Return the error of the operating system behind an error, if there is one."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        if isinstance(each, OSError):
            return each
        seen.add(id(each))
        each = each.__cause__ or each.__context__
    return None


def is_of_writing(error: BaseException) -> bool:
    """Return whether an error is one that only writing meets, such as a full disk."""
    return isinstance(error, OSError) and error.errno in _OF_WRITING


def why(error: BaseException) -> str:
    """Return the reason of an error and what to do, as in "the disk is full (…): free some space, …"."""
    cause = cause_of(error)
    if cause is None:
        return " ".join(str(error).split()) or type(error).__name__
    reason, advice = _BY_NUMBER.get(cause.errno or 0, ("", ""))
    told = cause.strerror or str(cause)
    return f"{reason} ({told}): {advice}." if reason else f"{told}."


@contextmanager
def naming_write_errors(what: str, then: str = "") -> Iterator[None]:
    """Turn errors of writing in the block into one message.

    Args:
        what: What cannot be written.
        then: A sentence on what that means.

    Raises:
        WriteError: It cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and cause_of(error) is None and not _WRITER.search(str(error)):
            raise  # of what is computed in the block
        raise WriteError(f"Cannot write {what}: {why(error)}" + (f"\n{then}" if then else "")) from error
