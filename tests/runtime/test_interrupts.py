"""Signals, sent by this process to itself."""

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from segtune.runtime.interrupts import NAMES, interrupting, stop_numbers

ALL = [getattr(signal, name) for name in NAMES]


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """Begin with what these signals do by default, whatever started the tests, and end with it."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ALL}
    yield
    assert [signal.signal(number, handler) for number, handler in before.items()] == [signal.SIG_DFL] * len(ALL)


@pytest.mark.parametrize("number", ALL)
def test_each_interrupts(number: signal.Signals) -> None:
    with interrupting():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL  # a second one would end this process
    signal.signal(number, signal.SIG_DFL)


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert stop_numbers() == [number for number in ALL if number != signal.SIGHUP]
    with interrupting():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_of_several_processes_the_second_one_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with interrupting():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_import_is_not_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes again when it is done."""
    (tmp_path / "slow_part.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nDONE = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    began = time.monotonic()
    with interrupting(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        assert importlib.import_module("slow_part").DONE
        while time.monotonic() - began < 10:
            time.sleep(0.01)
    assert "slow_part" in sys.modules
    del sys.modules["slow_part"]


def test_outside_the_main_thread_no_handler_is_set() -> None:
    found: list[object] = []

    def run() -> None:
        with interrupting():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
