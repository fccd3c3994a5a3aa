"""The device and precision of computations."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from segtune.config.training_settings import DeviceSettings
from segtune.errors import UserError
from segtune.runtime.distributed import local_rank, world

AUTO_PRECISION = "SEGTUNE_AUTO_PRECISION"  # in the environment: what train.precision=auto means
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Device:
    """A device and the autocast type; float32 means no autocast."""

    device: torch.device
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.device} in {self.precision}"

    @property
    def precision(self) -> str:
        """The name of `dtype`, such as bfloat16."""
        return str(self.dtype).removeprefix("torch.")

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in `dtype` inside the block."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            yield

    def wait(self) -> None:
        """Wait until the device has computed all that it was asked for."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def place(self, module: M) -> M:
        """Return a module, moved to the device with its weights channels-last."""
        return module.to(self.device).to(memory_format=torch.channels_last)


def resolve_device(settings: DeviceSettings) -> Device:
    """Return the device and precision that the settings ask for.

    Raises:
        UserError: The device does not exist here, or SEGTUNE_AUTO_PRECISION names no precision.
    """
    name = settings.device
    if name == "auto":
        alone = world() == 1  # there is no process group on MPS
        name = "cuda" if torch.cuda.is_available() else "mps" if alone and torch.backends.mps.is_available() else "cpu"
    elif name.startswith("cuda:") and world() > 1:
        raise UserError(
            f"train.device={name} would put all {world()} processes on one GPU. Use train.device=cuda: one GPU each."
        )
    if name == "cuda" and world() > 1:
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"train.device={settings.device} cannot be used here: {str(error).splitlines()[0]}\n"
            "Expected auto, cpu, cuda, cuda:N or mps."
        ) from error
    precision = _auto_precision(device) if settings.precision == "auto" else settings.precision
    return Device(device, _DTYPES[precision])


def _auto_precision(device: torch.device) -> str:
    chosen = os.environ.get(AUTO_PRECISION)
    if chosen is None:
        return _best_precision(device)
    if chosen not in _DTYPES:
        raise UserError(f"The environment variable {AUTO_PRECISION}: got {chosen!r}; expected {', '.join(_DTYPES)}.")
    return chosen


def _best_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return "bf16" if able.get("amx_bf16") or able.get("avx512_bf16") else "fp32"
    return "fp32"
