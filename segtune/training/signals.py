"""Signals that stop a training run: it stops after a step and is saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from segtune.runtime import distributed
from segtune.runtime.console import say
from segtune.runtime.interrupts import stop_numbers


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal to stop was received; a second one ends the program at once.

    That is, a second Ctrl-C or SIGTERM; batch systems send the others as a warning, perhaps more than once. In a run of
    several processes each may get a signal twice, from the batch system and from torchrun, which kills what takes too
    long: there no second one means anything.
    """
    asked = threading.Event()
    previous: dict[signal.Signals, Any] = {}

    def ask(number: int, _: object) -> None:
        ends = distributed.world() == 1 and number in (signal.SIGINT, signal.SIGTERM)
        if ends:
            signal.signal(number, previous[signal.Signals(number)])
        if not asked.is_set():
            say("Stopping after this step" + ("; a second signal stops at once, without saving." if ends else "."))
        asked.set()

    if threading.current_thread() is threading.main_thread():
        for number in stop_numbers():
            previous[number] = signal.getsignal(number)
            signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
