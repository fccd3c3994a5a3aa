"""Signals, sent by this process to itself."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from segtune.runtime import distributed
from segtune.training.signals import stop_signals


@contextmanager
def handled(number: signal.Signals) -> Iterator[list[int]]:
    """Collect what arrives at the handler that was there before."""
    arrived: list[int] = []
    before = signal.signal(number, lambda n, _: arrived.append(n))
    try:
        yield arrived
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_to_stop_and_the_second_does_what_it_did_before(number: signal.Signals) -> None:
    with handled(number) as arrived:
        with stop_signals() as stopped:
            assert not stopped()
            os.kill(os.getpid(), number)
            assert stopped()
            assert arrived == []
            os.kill(os.getpid(), number)
            assert arrived == [number]
        os.kill(os.getpid(), number)
        assert arrived == [number] * 2


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_those_of_batch_systems_may_come_twice(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    number = getattr(signal, name)
    with handled(number) as arrived:
        with stop_signals() as stopped:
            for _ in range(3):
                os.kill(os.getpid(), number)
                assert stopped()
        assert arrived == []
        os.kill(os.getpid(), number)
        assert arrived == [number]
    assert capsys.readouterr().out == "Stopping after this step.\n"


def test_a_signal_that_nohup_ignores_means_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopped()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_with_several_processes_a_second_one_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with handled(signal.SIGTERM) as arrived, stop_signals() as stopped:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopped()
        assert arrived == []


def test_outside_the_main_thread_no_handler_is_set() -> None:
    found: list[object] = []

    def run() -> None:
        with stop_signals() as stopped:
            found.extend([signal.getsignal(signal.SIGTERM), stopped()])

    with handled(signal.SIGTERM):
        expected = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert found == [expected, False]
