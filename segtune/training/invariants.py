"""Invariant checks: a phase trains what its settings say. They run on the real tensors, once per phase."""

import hashlib
from collections.abc import Mapping

import torch
from torch import nn

from segtune.errors import UserError, some


def check_members(model: nn.Module, optimizer: torch.optim.Optimizer, phase: str) -> None:
    """Check that the optimizer holds exactly the parameters that train.

    Raises:
        UserError: It holds frozen parameters or lacks trainable ones; they are named.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    frozen = [n for n, p in model.named_parameters() if id(p) in held and not p.requires_grad]
    absent = [n for n, p in model.named_parameters() if id(p) not in held and p.requires_grad]
    if frozen:
        raise UserError(f"Phase {phase}: the optimizer holds frozen parameters: {some(frozen)}.")
    if absent:
        raise UserError(f"Phase {phase}: the optimizer lacks trainable parameters: {some(absent)}.")


def check_gradients(model: nn.Module, phase: str) -> None:
    """Check after a backward pass that every trainable parameter has a gradient.

    Raises:
        UserError: Some have none; they are named.
    """
    lacking = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if lacking:
        raise UserError(
            f"Phase {phase}: no gradient reaches {some(lacking)}, so these trainable parameters would never change. "
            "Something between them and the logits stops gradients, or the forward pass does not use them. "
            "Freeze them, or fix the model."
        )


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Return a checksum of every frozen tensor: parameters without gradient, and buffers of modules in evaluation mode.

    Call it after `freezing.freeze` and `freezing.train_mode`. The checksums are BLAKE2b hashes of the tensors' bytes.
    """
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    for path, module in model.named_modules():
        if not module.training:
            frozen |= {f"{path}.{name}".lstrip("."): b for name, b in module.named_buffers(recurse=False)}
    return {name: _checksum(tensor) for name, tensor in frozen.items()}


def check_unchanged(model: nn.Module, before: Mapping[str, str], phase: str) -> None:
    """Check at the end of a phase that every tensor in `before`, from `fingerprint`, is bit-identical.

    Raises:
        UserError: Some have changed; they are named.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    changed = [name for name, checksum in before.items() if _checksum(tensors[name]) != checksum]
    if changed:
        raise UserError(
            f"Phase {phase} has changed tensors that were frozen in it: {some(changed)}. The run stops because its "
            "weights contradict its settings. The usual cause: a module that updates its own tensors in every pass."
        )


def _checksum(tensor: torch.Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(raw.data, digest_size=8).hexdigest()
