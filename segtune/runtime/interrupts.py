"""The signals by which a terminal or a batch system asks a command to end. Nothing heavy is imported here."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Ctrl-C, `kill`, a closed terminal, and what batch systems send some time before they kill (Slurm's --signal=USR1@60).
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


def stop_numbers() -> list[signal.Signals]:
    """Return these signals; of the last three only those that are not ignored, as SIGHUP is under nohup."""
    found = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    always = (signal.SIGINT, signal.SIGTERM)
    return [number for number in found if number in always or signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def interrupting(instead: Callable[[], object] | None = None) -> Iterator[None]:
    """Let each of these signals raise KeyboardInterrupt in the block, or call `instead`, except if it is ignored.

    Not while a module is imported: some packages would take it for a missing part of theirs. A second signal ends the
    program at once; of several processes, which may get each signal twice, none does.
    """
    previous: dict[signal.Signals, Any] = {}
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            again = threading.Timer(0.05, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        for each in previous:
            signal.signal(each, signal.SIG_DFL if alone else signal.SIG_IGN)
        if instead is None:
            raise KeyboardInterrupt
        instead()

    if threading.current_thread() is threading.main_thread():
        for number in stop_numbers():
            if signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
