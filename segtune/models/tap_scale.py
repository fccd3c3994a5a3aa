"""The scale of features: fixed factors between backbone and decoder, measured once when a model is built.

Features differ by orders of magnitude: with ImageNet weights the root mean square of VGG16's `block3_pool` is about
1,000, that of `block5_pool` about 10. As the first steps of Adam change every weight by the learning rate, those at
1e-3 change the outputs of a layer that reads 256 channels of 1,000 by hundreds. FCN's published code multiplies pool4
by 0.01 and pool3 by 0.0001, chosen by hand for VGG16.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from segtune.models.receptive_field import PROBE_SIZE

#: How the tensor names of a model's scales begin.
PREFIX = "scale."

#: The largest length of a pixel's features, as the root of the sum of squares over its channels, on average. Outputs of
#: a linear layer then begin below 1, and a step of Adam at 1e-3 changes those of 4,096 channels by at most 1.
_LENGTH = 16


class TapScale(nn.Module):
    """Multiplies the features of each role by a number: a buffer, so a checkpoint has it; 1 until it is measured."""

    def __init__(self, roles: Iterable[str]) -> None:
        super().__init__()
        for role in roles:
            self.register_buffer(role, torch.ones(()))

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the features by role, each (N, C, h, w), scaled; their type stays."""
        return {role: x * self.get_buffer(role) for role, x in features.items()}


def scale_names(names: Iterable[str]) -> list[str]:
    """Return those of a model's tensor names that are scales."""
    return [name for name in names if name.startswith(PREFIX)]


def with_scales(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Return tensors by name with those scales among `names` added, as 1, if there are none: as before they existed."""
    lacking = [] if scale_names(tensors) else scale_names(names)
    return {**tensors, **{name: torch.ones(()) for name in lacking}}


def measure_scale(model: nn.Module, pretrained: bool, keep: Iterable[str] = ()) -> None:
    """Set the scale of every role by the features' root mean square over two images of noise, in place.

    Afterwards it is 1, or less for more than 256 channels, so that a pixel's features are no longer than 16. The scales
    are powers of two: multiplying by them is exact, and processors that round differently come to the same. Nothing
    else in the model changes. Models on the meta device and features that are 0 or not finite are left alone.

    Args:
        model: A `SegmentationModel` with the weights that training begins with.
        pretrained: Whether batch normalisation has statistics; without, it uses the batch's, as training does.
        keep: Tensor names of scales to leave as they are.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    for role, x in _features(model, batch_statistics=not pretrained).items():
        rms = float(x.double().square().mean().sqrt())
        if PREFIX + role not in keep and 0 < rms < math.inf:
            wanted = _LENGTH / max(_LENGTH, math.sqrt(x.shape[1]))
            model.get_buffer(PREFIX + role).fill_(2.0 ** round(math.log2(wanted / rms)))


def restored_scales(model: nn.Module, restored: Iterable[str]) -> list[str]:
    """Return the tensor names of the scales that belong to restored weights, of layers that read the features.

    Args:
        model: A `SegmentationModel`.
        restored: Names of its restored tensors.
    """
    names = scale_names(name for name, _ in model.named_buffers())
    layers = {name.rpartition(".")[0] for name in restored if name.endswith(".weight") and name.startswith("decoder.")}
    if not names or not layers:
        return []
    readers = _readers(model)
    # A decoder that computes something before a layer reads a feature has no reader of it: then any layer counts.
    return [name for name in names if layers & readers.get(name.removeprefix(PREFIX), layers)]


def _readers(model: nn.Module) -> dict[str, set[str]]:
    """Return for each role the paths of the decoder's layers with weights that read its feature as it is."""
    decoder = model.get_submodule("decoder")
    features = _features(model, batch_statistics=False)
    found: dict[str, set[str]] = {}

    def read(path: str, inputs: tuple[Any, ...]) -> None:
        for role, feature in features.items():
            if any(value is feature for value in inputs):
                found.setdefault(role, set()).add(path)

    with ExitStack() as stack:
        for path, module in decoder.named_modules(prefix="decoder"):
            if "weight" in dict(module.named_parameters(recurse=False)):
                hook = module.register_forward_pre_hook(lambda m, inputs, path=path: read(path, inputs))
                stack.callback(hook.remove)
        with _evaluating(decoder), torch.no_grad():
            decoder(features)
    return found


def _features(model: nn.Module, batch_statistics: bool) -> dict[str, Tensor]:
    """Return the features of two images of noise by role, without dropout; no statistics change."""
    backbone = model.get_submodule("backbone")
    buffers = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    with _evaluating(backbone), torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, _BatchNorm):
                module.training = batch_statistics
        try:
            return _of_noise(model, buffers, (64, 64))
        except RuntimeError:  # some networks need larger images
            return _of_noise(model, buffers, PROBE_SIZE)


def _of_noise(model: nn.Module, buffers: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    images = torch.randint(256, (2, 3, *size), generator=torch.Generator().manual_seed(0))
    x = (images - model.get_buffer("mean")) / model.get_buffer("std")
    features: dict[str, Tensor] = functional_call(model.get_submodule("backbone"), buffers, (x,))
    return features


@contextmanager
def _evaluating(part: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode inside the block; at the end all its modules have their modes again."""
    modes = [(module, module.training) for module in part.modules()]
    part.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
