"""What became of each image or frame of a command, so that one that fails does not end the others."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from segtune.errors import FailedError, UserError, some
from segtune.runtime.console import say
from segtune.runtime.files import write_atomically

Stage = Literal["read", "predicted", "written"]


def count(number: int, what: str) -> str:
    """Return a number of things in words, such as "1 image" and "2 images"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def reason(error: Exception) -> str:
    """Return the message of an error; of one that was not written for users with its type."""
    return str(error) if isinstance(error, UserError | FailedError) else f"{type(error).__name__}: {error}".rstrip(": ")


@dataclass
class Tally:
    """The images or frames of a command.

    `what` they are; `shares`, the fraction of foreground of each that is done; `failed`, the names of the others by the
    stage at which they failed; `files`, all that was written.
    """

    what: str
    shares: list[float] = field(default_factory=list)
    failed: dict[Stage, list[str]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def fail(self, stage: Stage, name: str, text: str) -> None:
        """Note and say that something could not be read, predicted or written."""
        say(f"{'not written' if stage == 'written' else 'skipped'}: {text}")
        self.failed.setdefault(stage, []).append(name)

    def write(self, path: Path, content: bytes, *, overwrite: bool) -> None:
        """Write a result.

        Raises:
            UserError: It cannot be written or, unless `overwrite`, exists already.
        """
        if not overwrite and path.is_file():
            raise UserError(f"{path} exists already: another input has the same name. Rename one of them.")
        write_atomically(path, content)
        self.files.append(path)

    def check(self, total: int, also: Iterable[str] = ()) -> None:
        """Check that all is done and that the results are still there.

        Args:
            total: The number of images or frames.
            also: What else went wrong, as sentences.

        Raises:
            FailedError: Something failed.
        """
        problems = [
            f"{len(names)} of {count(total, self.what)} could not be {stage}: {some(names)}."
            for stage in get_args(Stage)
            if (names := self.failed.get(stage))
        ]
        problems += also
        if gone := [str(path) for path in dict.fromkeys(self.files) if not path.exists()]:
            problems.append(f"{count(len(gone), 'result')} no longer there, deleted or moved in between: {some(gone)}.")
        if problems:
            raise FailedError("\n".join(problems))
