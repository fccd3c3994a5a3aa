"""Proofs that a phase trains what it says: checked on the real tensors, once a phase."""

import hashlib
from collections.abc import Mapping

import torch
from torch import nn

from segtune.errors import UserError, some


def check_members(model: nn.Module, optimizer: torch.optim.Optimizer, phase: str) -> None:
    """Check that the optimizer holds exactly the parameters that train.

    Raises:
        UserError: It holds a frozen one, or lacks one that trains; they are named.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    frozen = [n for n, p in model.named_parameters() if id(p) in held and not p.requires_grad]
    absent = [n for n, p in model.named_parameters() if id(p) not in held and p.requires_grad]
    if frozen:
        raise UserError(f"Phase {phase}: the optimizer holds frozen parameters, which it could move: {some(frozen)}.")
    if absent:
        raise UserError(f"Phase {phase}: the optimizer lacks parameters that train: {some(absent)}.")


def check_gradients(model: nn.Module, phase: str) -> None:
    """Check after a backward pass that a gradient has reached every parameter that trains.

    Raises:
        UserError: Some have none; they are named.
    """
    lacking = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if lacking:
        raise UserError(
            f"Phase {phase}: no gradient reaches {some(lacking)}, so they would never move although they are to "
            "train. Something between them and the logits stops it, or the forward pass does not use them. "
            "Freeze them, or mend the model."
        )


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Return a digest of every frozen tensor: parameters without gradient, and buffers of modules in evaluation mode.

    To be taken after `freezing.freeze` and `freezing.train_mode`. The digests are BLAKE2b's, of the tensors' bytes.
    """
    still = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    for path, module in model.named_modules():
        if not module.training:
            still |= {f"{path}.{name}".lstrip("."): b for name, b in module.named_buffers(recurse=False)}
    return {name: _digest(tensor) for name, tensor in still.items()}


def check_unchanged(model: nn.Module, before: Mapping[str, str], phase: str) -> None:
    """Check at the end of a phase that every tensor in `before`, from `fingerprint`, is the same to the last bit.

    Raises:
        UserError: Some have changed; they are named.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    changed = [name for name, digest in before.items() if _digest(tensors[name]) != digest]
    if changed:
        raise UserError(
            f"Phase {phase} has changed tensors that were frozen in it: {some(changed)}. The run stops, for "
            "its weights are not what its settings say. The usual cause: a module that writes to itself in every pass."
        )


def _digest(tensor: torch.Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(raw.data, digest_size=8).hexdigest()
