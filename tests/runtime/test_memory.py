"""Memory that runs out: on a GPU as PyTorch says it, and on the machine."""

from pathlib import Path

import pytest
import torch

from segtune.config.training_settings import DeviceSettings, TrainSettings
from segtune.errors import StoppedError, UserError
from segtune.runtime import memory
from segtune.runtime.device import Device
from segtune.runtime.memory import free_memory, memory_advice

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


def test_tiles_come_one_by_one() -> None:
    given = TrainSettings(batch_size=8)
    with pytest.raises(StoppedError) as raised, memory_advice(given, (512, 512), CPU, tiles=True):
        raise MemoryError
    assert str(raised.value).endswith("\nTiles of 512 x 512 pixels, on cpu in float32. Try a smaller data.eval_tile.")


def test_processes_share_a_batch_so_accumulation_is_left_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "world", lambda: 2)
    assert "Try train.batch_size=4, or" in said(MemoryError(), TrainSettings(batch_size=8))


@pytest.mark.parametrize("error", [RuntimeError("a bug"), UserError("the disk is out of memory"), KeyError("x")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, memory_advice(DeviceSettings(), (64, 64), CPU):
        raise error
    assert raised.value is error


def test_free_memory_is_that_of_the_machine_and_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 100, "SC_PAGE_SIZE": 4096}.__getitem__, raising=False)
    assert free_memory(tmp_path) == 50 * 4096
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:   3000 kB\nHugePages_Total:   0\n")
    assert free_memory(tmp_path) == 3000 * 1024
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    for name, content in {"max": "5000\n", "current": "4500\n", "stat": "anon 1\ninactive_file 200\n"}.items():
        (group / f"memory.{name}").write_text(content)
    assert free_memory(tmp_path) == 700
    (group / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) == 3000 * 1024
