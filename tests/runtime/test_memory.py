"""Memory that runs out: on a GPU as PyTorch says it, and on the machine."""

import pytest
import torch

from segtune.config.training_settings import DeviceSettings, TrainSettings
from segtune.errors import StoppedError, UserError
from segtune.runtime import memory
from segtune.runtime.device import Device
from segtune.runtime.memory import memory_advice

CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 12.00 MiB is "
    "free. Process 12 has 79.09 GiB memory in use. Of the allocated memory 78 GiB is allocated by PyTorch."
)
GPU, CPU = Device(torch.device("cuda"), torch.float32), Device(torch.device("cpu"), torch.float32)


def said(error: Exception, settings: DeviceSettings, device: Device = CPU, *more: str) -> str:
    with pytest.raises(StoppedError) as raised, memory_advice(settings, (64, 96), device, *more):
        raise error
    return str(raised.value)


def test_the_gpu_is_full_in_training() -> None:
    assert said(torch.OutOfMemoryError(CUDA), TrainSettings(batch_size=8), GPU, "fewer phases") == (
        "Out of memory: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of "
        "which 12.00 MiB is free.\nBatches of 8 images of 64 x 96 pixels, on cuda in float32. Try train.batch_size=4 "
        "train.accumulate=2 (the same steps), or a smaller data.image_size, or train.precision=bf16, or fewer phases."
    )


def test_the_machine_is_full_in_evaluation() -> None:
    text = (
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes. "
        "Error code 12 (Cannot allocate memory)"
    )
    assert said(RuntimeError(text), DeviceSettings(batch_size=1)) == (
        "Out of memory: DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes.\n"
        "Batches of 1 image of 64 x 96 pixels, on cpu in float32. Try a smaller data.image_size."
    )


def test_processes_share_a_batch_so_accumulation_is_left_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "world", lambda: 2)
    assert "Try train.batch_size=4, or" in said(MemoryError(), TrainSettings(batch_size=8))


@pytest.mark.parametrize("error", [RuntimeError("a bug"), UserError("the disk is out of memory"), KeyError("x")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, memory_advice(DeviceSettings(), (64, 64), CPU):
        raise error
    assert raised.value is error
