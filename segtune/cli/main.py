"""The command line: compose with Hydra, validate, call. The only importer of hydra and omegaconf."""

import os
import re
import sys
import time

from segtune.cli.compose import compose
from segtune.cli.failures import message_of
from segtune.cli.help import HYDRA_HELP
from segtune.cli.resume import resume
from segtune.cli.spelling import check_spelling
from segtune.cli.sweep import holds_sweep, is_multirun, resume_sweep, sweep
from segtune.cli.tasks import AUTO, task_of
from segtune.errors import FailedError, Interrupted, LostError
from segtune.runtime.interrupts import interrupting
from segtune.runtime.wrapping import terminal_width, wrap

#: Seconds that processes other than rank 0 wait before they print an error that rank 0 may print too.
PATIENCE = 5


def main(command: str, arguments: list[str], *, full_errors: bool = False) -> int:
    """Run a command with Hydra's overrides and flags, and return the exit code.

    Args:
        command: One of the commands that take settings.
        arguments: What follows it on the command line.
        full_errors: Let errors through with their traceback.
    """
    if "--hydra-help" in arguments:
        print(HYDRA_HELP.format(command=command))
        return 0
    try:
        with interrupting():
            _run(command, arguments, full_errors=full_errors)
    except Exception as error:
        said = message_of(error, command, arguments)
        if said is None or (full_errors and not isinstance(error, FailedError)):
            raise
        text, code = said
        _complain(f"segtune {command}: {text}", at_once=isinstance(error, LostError))
        return code
    except Interrupted as interrupted:
        if _number() == 0:
            print(wrap(str(interrupted), terminal_width(sys.stderr)), file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        if _number() == 0:
            print("Stopped.", file=sys.stderr)
        return 130
    return 0


def _run(command: str, arguments: list[str], *, full_errors: bool) -> None:
    check_spelling(arguments, command)
    given = [match[1] for argument in arguments if (match := re.fullmatch(r"\+*resume=(.*)", argument))]
    if command == "train" and given and given != [AUTO]:
        if holds_sweep(given[-1]):
            resume_sweep(arguments, full_errors=full_errors)
        else:
            resume(arguments)
    elif is_multirun(arguments):
        sweep(command, arguments, full_errors=full_errors)
    else:
        compose(command, arguments, task_of(command), full_errors=full_errors)


def _complain(text: str, *, at_once: bool = False) -> None:
    """Print an error. With several processes rank 0 prints it, then torchrun ends the others.

    A process that is still alive after waiting has an error of its own, and prints it.
    """
    if _number() > 0 and not at_once:
        time.sleep(PATIENCE)
    print(wrap(text, terminal_width(sys.stderr)), file=sys.stderr)


def _number() -> int:
    return int(os.environ.get("RANK", "0"))  # as in segtune.runtime.distributed, which takes seconds to import
