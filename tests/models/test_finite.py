"""Weights that are not finite; `test_checkpoint` refuses a checkpoint with them."""

import math

import pytest
import torch

from segtune.errors import UserError
from segtune.models.finite import check_finite

GOOD = {
    "weight": torch.ones(3),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.ones(0),
}


def test_finite_weights_pass() -> None:
    check_finite("a.pt", GOOD)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.float64])
def test_one_value_that_is_not_finite_is_enough(value: float, kind: torch.dtype) -> None:
    bias = torch.zeros(5, dtype=kind)
    bias[3] = value
    with pytest.raises(UserError) as error:
        check_finite("The checkpoint a.pt", {**GOOD, "head.bias": bias})
    assert str(error.value) == (
        "The checkpoint a.pt cannot be used: 1 of its 5 tensors hold NaN or infinity: head.bias. "
        "The training run diverged, or the file is damaged. Use another checkpoint."
    )
