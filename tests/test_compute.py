"""Where modules are put."""

import torch
from torch import nn

from segtune.compute import Compute


def test_a_module_is_placed_on_the_device_with_its_weights_channels_last() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = module[0].weight.detach().clone()
    assert Compute(torch.device("cpu"), torch.bfloat16).place(module) is module
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(module[0].weight, before)
    assert module[0].weight.dtype == torch.float32  # autocast does the rest
    placed = Compute(torch.device("meta"), torch.float32).place(module)
    assert {tensor.device.type for tensor in placed.state_dict().values()} == {"meta"}
