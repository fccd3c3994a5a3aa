"""What is left on the device: read in order with one wait, summed over the processes, and the time it waited."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segtune.runtime import distributed
from segtune.training.unread import Reading, Unread

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)
GIVEN = [(0.1, 2, 4), (0.7, 2, 4), (1e-9, 1, 3), (3.0, 2, 4), (0.2, 1, 1)]  # loss, images here, images of all


def add(unread: Unread, batch: int) -> None:
    """Add a batch; every second one ends a step, whose norm is its number."""
    loss, mine, images = GIVEN[batch - 1]
    unread.add_loss(torch.tensor(loss, requires_grad=True), batch, mine, images)
    if batch % 2 == 0:
        unread.add_norm(torch.tensor(float(batch)), batch)


@pytest.mark.parametrize("readings", [{5}, {1, 2, 3, 4, 5}, {2, 5}])
def test_losses_and_norms_come_in_order_whatever_is_read_together(readings: set[int]) -> None:
    unread, found = Unread(CPU), []
    for batch in range(1, 6):
        add(unread, batch)
        if batch in readings:
            found += unread.read()
    single = [torch.tensor(loss).item() * mine for loss, mine, _ in GIVEN]  # with all bits
    expected = [Reading(value, n, GIVEN[n - 1][2]) for n, value in enumerate(single, 1)]
    expected[2:2], expected[5:5] = [Reading(2.0, 2, 0)], [Reading(4.0, 4, 0)]
    assert found == expected
    assert list(unread.read()) == []


def test_a_reading_waits_once_and_asks_the_other_processes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, asked, tolist = 0, [], torch.Tensor.tolist

    def counted(tensor: torch.Tensor) -> Any:
        nonlocal waits
        waits += 1
        return tolist(tensor)

    def doubled(values: list[float]) -> list[float]:
        asked.append(len(values))
        return [2 * value for value in values]

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    monkeypatch.setattr(torch.Tensor, "item", None)
    monkeypatch.setattr(distributed, "all_reduce_sum", doubled)
    unread = Unread(CPU)
    for batch in range(1, 6):
        add(unread, batch)
    found = list(unread.read())
    assert (waits, asked) == (1, [5])
    assert [reading.value for reading in found if not reading.images] == [2.0, 4.0]  # a norm is that of all processes
    assert found[4].value == pytest.approx(2 * 3.0 * 2)
    unread.add_norm(torch.tensor(7.0), 6)
    assert list(unread.read()) == [Reading(7.0, 6, 0)]
    assert asked == [5]


def test_a_cpu_waits_as_long_as_its_program() -> None:
    unread = Unread(CPU)
    assert unread.at_once
    for waited in (0.5, 0.25):
        unread.batch_came(waited)
        unread.batch_queued()
    assert unread.take_wait() == 0.75
    assert unread.take_wait() == 0


def test_a_gpu_waits_only_while_it_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends batches at 1.0, 1.5 and 2.0 s; the next ones come when it is done with 0.25 s, none and 0.5 s ago."""
    times = iter([1.0, 1.25, 1.5, 1.5, 2.0, 2.5])

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            self.done = False

        def record(self, stream: object) -> None:
            assert stream == ("stream", CUDA)
            self.at = next(times)

        def synchronize(self) -> None:
            self.done = True

        def elapsed_time(self, end: "Event") -> float:
            assert end.done
            return 1000 * (end.at - self.at)

    fake = SimpleNamespace(Event=Event, current_stream=lambda device: ("stream", device))
    monkeypatch.setattr(torch, "cuda", fake)
    unread = Unread(CUDA)
    assert not unread.at_once
    unread.batch_came(0.1)  # the first one of all
    for waited in (0.75, 0.75, 0.4):
        unread.batch_queued()
        unread.batch_came(waited)
    assert unread.take_wait() == pytest.approx(0.1 + 0.25 + 0 + 0.4)
    assert unread.take_wait() == 0
