"""The command line: compose with Hydra, validate, call. The only importer of hydra and omegaconf."""

import os
import re
import sys
import time

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from segtune.cli.compose import compose
from segtune.cli.failures import as_failure
from segtune.cli.help import HYDRA_HELP, readable
from segtune.cli.resume import resume
from segtune.cli.spelling import check_spelling
from segtune.cli.tasks import AUTO, TASKS, rank
from segtune.errors import FailedError, Interrupted, LostError, UserError
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
    except (UserError, HydraException, OmegaConfBaseException, YAMLError) as error:
        if full_errors:
            raise
        _complain(f"segtune {command}: {readable(error, command, arguments)}", at_once=isinstance(error, LostError))
        return 2
    except FailedError as error:
        _complain(f"segtune {command}: {error}")
        return 1
    except Exception as error:
        if full_errors or (failure := as_failure(error)) is None:
            raise
        _complain(f"segtune {command}: {failure}")
        return 1
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
        resume(arguments)
    else:
        compose(command, arguments, TASKS[command], rank, full_errors=full_errors)


def _complain(text: str, *, at_once: bool = False) -> None:
    """Print an error. With several processes rank 0 prints it, then torchrun ends the others.

    A process that is still alive after waiting has an error of its own, and prints it.
    """
    if _number() > 0 and not at_once:
        time.sleep(PATIENCE)
    print(wrap(text, terminal_width(sys.stderr)), file=sys.stderr)


def _number() -> int:
    return int(os.environ.get("RANK", "0"))  # as in segtune.runtime.distributed, which takes seconds to import
