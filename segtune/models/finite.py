"""Refuse weights that are not finite: a network with NaN in it predicts nothing, and says nothing."""

from collections.abc import Mapping

import torch
from torch import Tensor

from segtune.errors import UserError, some


def check_finite(file: str, tensors: Mapping[str, Tensor]) -> None:
    """Check that a file's weights are finite.

    Args:
        file: What to call the file in the message.
        tensors: Its tensors by name.

    Raises:
        UserError: Some hold NaN or infinity.
    """
    bad = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if bad:
        raise UserError(
            f"{file} cannot be used: {len(bad)} of its {len(tensors)} tensors hold NaN or infinity: {some(bad)}. "
            "The training run diverged, or the file is damaged. Use another checkpoint."
        )


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
