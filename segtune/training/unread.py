"""What a device has computed in training steps and has not been asked for yet."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from segtune.runtime import distributed


@dataclass(frozen=True)
class Reading:
    """The loss of a batch, summed over its `images` in all processes, or with `images` 0 the gradient norm of a step.

    `batch` is the batch's number in the epoch, from 1; of a step it is that of its last batch.
    """

    value: float
    batch: int
    images: int


class Unread:
    """Losses of batches and gradient norms of steps that are still on the device, to be read together.

    To give a number away, a GPU must first do all that it was asked for, and then it stands still until it is asked for
    more. So it is asked rarely. A CPU has computed a number before it can be read; there, `at_once` says, nothing is
    left unread. It does so on MPS too.
    """

    def __init__(self, device: torch.device) -> None:
        """Create it for a device; nothing is unread."""
        self.device = device
        self.at_once = device.type != "cuda"
        self._values: list[tuple[Tensor, int, int, int]] = []
        self._waited = 0.0
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event, float]] = []
        self._done: torch.cuda.Event | None = None

    def add_loss(self, loss: Tensor, batch: int, mine: int, images: int) -> None:
        """Keep the mean loss, a scalar, of the images that this process has (`mine`) of all `images` of a batch."""
        self._values.append((loss.detach(), batch, mine, images))

    def add_norm(self, norm: Tensor, batch: int) -> None:
        """Keep the gradient norm of a step, a scalar that is the same in all processes."""
        self._values.append((norm, batch, 0, 0))

    def read(self) -> Iterator[Reading]:
        """Return what is unread, in the order in which it was added, with one wait for the device.

        The result does not depend on what is read together. All processes must call it at the same step.
        """
        unread, self._values = self._values, []
        values = torch.stack([value for value, *_ in unread]).tolist() if unread else []
        pairs = zip(values, unread, strict=True)
        losses = [value * mine for value, (_, _, mine, images) in pairs if images]
        sums = iter(distributed.all_reduce_sum(losses) if losses else ())
        for value, (_, batch, _, images) in zip(values, unread, strict=True):
            yield Reading(next(sums) if images else value, batch, images)

    def batch_came(self, waited: float) -> None:
        """Count the seconds that this process has waited for a batch, which has come now."""
        if self.at_once or self._done is None:
            self._waited += waited
        else:
            self._gaps.append((self._done, self._mark(), waited))

    def batch_queued(self) -> None:
        """Note that the device has been asked for all that there is to compute of a batch."""
        self._done = None if self.at_once else self._mark()

    def take_wait(self) -> float:
        """Return the seconds that the device has waited for batches since this was last called; call it after `read`.

        While this process waits for a batch, a GPU may still have work: what counts is the time in which it had none.
        """
        waited, self._waited = self._waited, 0.0
        gaps, self._gaps = self._gaps, []
        for done, came, most in gaps:
            came.synchronize()
            waited += min(most, done.elapsed_time(came) / 1000)
        return waited

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event
