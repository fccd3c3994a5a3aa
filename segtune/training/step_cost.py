"""The cost of a training step, estimated on fake tensors without computing anything."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count


@dataclass(frozen=True)
class StepCost:
    """The estimated cost of a step: `flops`, the tensors it holds in bytes, and where its backward pass ends.

    `flops` counts multiplications and additions of convolutions and matrix products, forward and backward, for the
    parameters that train; `segtune.models.forward_cost` counts the multiply-adds of a forward pass alone.
    `activations` is what the forward pass keeps for the backward pass, `weights` all parameters and buffers.
    `optimizer_tensors` holds the bytes of optimizer state by the name of the parameter that owns it.
    `backward_stops` is the first layer, in the order of computation, whose output gets a gradient.
    """

    flops: int
    activations: int
    gradients: int
    optimizer_tensors: Mapping[str, int]
    weights: int
    backward_stops: str

    @property
    def optimizer_state(self) -> int:
        """Bytes of the optimizer's state."""
        return sum(self.optimizer_tensors.values())

    @property
    def memory(self) -> int:
        """Bytes of all these tensors together, without temporary ones and the libraries' workspace."""
        return self.weights + self.gradients + self.optimizer_state + self.activations


def _sum(logits: Tensor, _target: Tensor) -> Tensor:
    return logits.sum()


def estimate(
    model: nn.Module,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    loss: Callable[[Tensor, Tensor], Tensor] = _sum,
) -> StepCost:
    """Return the estimated cost of a step, with the trainable parameters and training modes set on the model.

    The model runs forward and backward on PyTorch's fake tensors, which have a shape, a type, a device and a storage
    but no values, and the optimizer makes its step on meta tensors: nothing is computed, the model's tensors stay
    unchanged, and no optimizer or layer needs a formula. Copies of weights that autocast makes, if the backward pass
    needs them, count as activations.

    Args:
        model: From (N, 3, H, W), uint8, to logits (N, 1, H, W), with at least one trainable parameter.
        make_optimizer: Returns a fresh optimizer over the trainable parameters of the model.
        shape: Images of a batch, height and width in pixels.
        dtype: The type that autocast computes in; float32 for no autocast.
        loss: A scalar of the logits and of a target (N, 1, H, W) of booleans. By default, what the loss keeps for the
            backward pass is not counted: a few maps of the logits' size.
    """
    batch, *size = shape
    fake = FakeTensorMode()
    parameters, buffers = (
        {name: fake.from_tensor(tensor) for name, tensor in tensors}
        for tensors in (model.named_parameters(), model.named_buffers())
    )
    for parameter in parameters.values():
        parameter.grad = None  # of the step before
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[id(storage)] = storage  # one object per storage; while it is kept, its id is not reused
        return tensor

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _conv_backward_flops})
    device = next(model.parameters()).device
    with _watched(model) as (order, reached), fake, counter:
        images = torch.empty(batch, 3, *size, dtype=torch.uint8, device=device)
        target = torch.zeros(batch, 1, *size, dtype=torch.bool, device=device)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits = functional_call(model, {**parameters, **buffers}, images)
            loss(logits, target).backward()  # type: ignore[no-untyped-call]
    weights = _storages([*parameters.values(), *buffers.values()])
    state = _optimizer_state(model, make_optimizer(model))
    return StepCost(
        flops=counter.get_total_flops(),
        activations=_bytes({key: storage for key, storage in kept.items() if key not in weights}),
        gradients=_bytes(_storages(p.grad for p in parameters.values())),
        optimizer_tensors={name: _bytes(storages) for name, storages in state.items() if storages},
        weights=_bytes(weights),
        backward_stops=next((name for name in order if name in reached), ""),
    )


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[int, torch.UntypedStorage]]:
    """Return the storages of the optimizer's state after a step, by parameter; the optimizer is spoilt by that."""
    twins = {parameter: nn.Parameter(torch.empty_like(parameter, device="meta")) for parameter in model.parameters()}
    for group in optimizer.param_groups:
        group["fused"] = False  # those kernels refuse meta tensors, and keep the same
        group["params"] = [twins[parameter] for parameter in group["params"]]
        for twin in group["params"]:
            twin.grad = torch.empty_like(twin)
    optimizer.step()
    return {
        name: _storages(optimizer.state.get(twins[parameter], {}).values())
        for name, parameter in model.named_parameters()
    }


@contextmanager
def _watched(model: nn.Module) -> Iterator[tuple[list[str], set[str]]]:
    """Yield the names of layers in the order of computation, and of those whose output gets a gradient, by hooks.

    Inside the block BatchNorm works without other processes.
    """
    order: list[str] = []
    reached: set[str] = set()

    def watch(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        order.append(name)
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda _: reached.add(name))  # type: ignore[no-untyped-call]

    layers = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(partial(watch, name)) for name, module in layers]
    synced = [(module, type(module)) for _, module in layers if isinstance(module, nn.SyncBatchNorm)]
    for module, _ in synced:
        module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
    try:
        yield order, reached
    finally:
        for hook in hooks:
            hook.remove()
        for module, kind in synced:  # also timm's, with an activation
            module.__class__ = kind


def _conv_backward_flops(gradient: Any, x: Any, weight: Any, *options: Any, out_shape: Any = None) -> int:
    """Return the operations of a convolution's backward pass: those of the forward pass for each gradient.

    PyTorch's own formula is too high for grouped convolutions: it counts the weights' gradient once per group.
    """
    transposed, (of_input, of_weight, _) = options[4], options[-1]
    return conv_flop_count(x, weight, gradient, transposed) * (int(of_input) + int(of_weight))


def _storages(values: Iterable[Any]) -> dict[int, torch.UntypedStorage]:
    """Return the storages of the tensors among the values, each once."""
    storages = (value.untyped_storage() for value in values if isinstance(value, Tensor))
    return {id(storage): storage for storage in storages}


def _bytes(storages: Mapping[int, torch.UntypedStorage]) -> int:
    return sum(storage.nbytes() for storage in storages.values())
