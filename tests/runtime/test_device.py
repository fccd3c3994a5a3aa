"""What `train.precision=auto` means, and where modules are put."""

import pytest
import torch
from torch import nn

from segtune.config.training_settings import TrainSettings
from segtune.errors import UserError
from segtune.runtime.device import Device, resolve_device

VARIABLE = "SEGTUNE_AUTO_PRECISION"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(precision: str) -> torch.dtype:
    return resolve_device(TrainSettings(device="cpu", precision=precision)).dtype  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, torch.float32),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_vnni": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_auto_is_bf16_where_the_cpu_is_fast_at_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert dtype_of("auto") == expected


@pytest.mark.parametrize("able", [False, True])
@pytest.mark.parametrize("value", DTYPES)
def test_the_environment_decides_what_auto_means(monkeypatch: pytest.MonkeyPatch, value: str, able: bool) -> None:
    monkeypatch.setenv(VARIABLE, value)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    assert dtype_of("auto") == DTYPES[value]


@pytest.mark.parametrize("precision", DTYPES)
def test_a_precision_of_ones_own_wins(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    for value in (*DTYPES, "nonsense"):
        monkeypatch.setenv(VARIABLE, value)
        assert dtype_of(precision) == DTYPES[precision]


@pytest.mark.parametrize("value", ["fp64", "BF16", "auto", ""])
def test_any_other_value_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(UserError) as error:
        dtype_of("auto")
    assert str(error.value) == (
        f"The environment variable SEGTUNE_AUTO_PRECISION: got '{value}'; expected fp32, bf16, fp16."
    )


def test_a_module_is_placed_on_the_device_with_its_weights_channels_last() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = module[0].weight.detach().clone()
    assert Device(torch.device("cpu"), torch.bfloat16).place(module) is module
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(module[0].weight, before)
    assert module[0].weight.dtype == torch.float32  # autocast does the rest
    placed = Device(torch.device("meta"), torch.float32).place(module)
    assert {tensor.device.type for tensor in placed.state_dict().values()} == {"meta"}
