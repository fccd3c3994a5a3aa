"""Distributed training over torch.distributed; with one process every function here is a no-op.

The processes are started by torchrun, which passes each its rank in the environment.
"""

import atexit
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, reduce
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from segtune.errors import LostError, UserError

log = logging.getLogger(__name__)

T = TypeVar("T")


def rank() -> int:
    """Return this process's rank; only rank 0 writes files and prints."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Return this process's rank on its machine, which is the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the process group for the block.

    The group is destroyed only at exit: torchrun's store serves a single group, and a process with an error can print
    it before the others notice that it is gone.

    Raises:
        UserError: Variables of torchrun are missing in the environment.
        LostError: Another process has ended or cannot be reached.
    """
    if world() == 1:
        yield
        return
    if absent := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UserError(
            f"WORLD_SIZE={world()} in the environment announces {world()} processes, but {' and '.join(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} not set. Start them with torchrun, or unset WORLD_SIZE."
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)
        yield
    except RuntimeError as error:  # gloo has no exception of its own
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        reason = re.sub(r".*\[\S+:\d+\] ", "", str(error).splitlines()[0]).partition(". ")[0]
        raise LostError(
            f"Process {rank()} of {world()} has lost the others: one of them has ended, or the network failed "
            f"({reason}).\nIts message, if any, is above or in its log. The run can be resumed from its last save."
        ) from error


def on_rank_zero(work: Callable[[], T]) -> T:
    """Run a function on rank 0, and return its result, or raise its error, on all ranks.

    Raises:
        UserError: The function raised it.
    """
    if world() == 1:
        return work()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = work()
        except UserError as error:
            answer[1] = str(error)
    dist.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
    if answer[1] is not None:
        raise UserError(answer[1])
    result: T = answer[0]
    return result


def all_reduce_sum(values: Sequence[float]) -> list[float]:
    """Return the sums of numbers over all processes, in float64, each added in the order of the ranks.

    So a sum does not depend on what is summed beside it, as in a ring.
    """
    if world() == 1:
        return list(values)
    own = torch.tensor(values, dtype=torch.float64)
    parts = [torch.empty_like(own) for _ in range(world())]
    dist.all_gather(parts, own)
    sums: list[float] = reduce(torch.add, parts).tolist()
    return sums


def gather(value: T) -> list[T]:
    """Return the values of all processes, in the order of their ranks."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def wrap(model: nn.Module, device: torch.device, sync_batchnorm: bool) -> nn.Module:
    """Return a model that averages gradients over all processes; wrap it anew whenever the trainable part changes.

    All ranks start from the tensors of rank 0. With `sync_batchnorm` the BatchNorm layers of a model on CUDA become
    `nn.SyncBatchNorm`, in place, with the same tensors under the same names.
    """
    if world() == 1:
        return model
    if sync_batchnorm and device.type == "cuda":
        convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # timm's also converts BatchNormAct2d
    elif rank() == 0 and any(isinstance(module, _BatchNorm) and module.training for module in model.modules()):
        _warn_of_batchnorm(device.type, sync_batchnorm)
    # Buffers are copied before every batch: a BatchNorm in training mode computes with them where it has one value.
    network = DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,  # else there is a copy of all gradients
    )
    if device.type == "cpu":
        network.register_comm_hook(None, _average)
    return network


def _average(_: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
    """Average gradients in the order of the ranks.

    A ring sums in an order that depends on the position in the bucket, and DDP rebuilds its buckets after the first
    step: with three or more processes a resumed run would differ in the last bits from an uninterrupted one.
    """
    parts = [torch.empty_like(bucket.buffer()) for _ in range(world())]

    def average(gathered: torch.futures.Future[Any]) -> torch.Tensor:
        gathered.wait()  # raises if a process is lost
        return reduce(torch.add, parts) / len(parts)

    return dist.all_gather(parts, bucket.buffer(), async_op=True).get_future().then(average)


@cache
def _warn_of_batchnorm(device: str, sync_batchnorm: bool) -> None:
    why = f"there is no SyncBatchNorm on {device}" if sync_batchnorm else "train.sync_batchnorm=false"
    log.warning(
        "Each of the %d processes computes BatchNorm statistics over its own part of the batch (%s). One process with "
        "the same batch would train a little differently; batchnorm: frozen in a phase avoids this in the backbone.",
        world(),
        why,
    )


def no_sync(network: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Return a context that skips the gradient exchange while batches are accumulated, up to the `last` of a step."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext()


def broadcast_buffers(model: nn.Module) -> None:
    """Copy the buffers of rank 0, such as BatchNorm statistics, to all ranks."""
    if world() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
