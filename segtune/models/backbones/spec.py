"""The facts that describe a backbone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class BackboneSpec:
    """What segtune knows about a backbone.

    `blocks` maps block names to the module paths they hold, from the input to the deepest. `aliases` maps layer names
    of Keras Applications to module paths, and `ambiguous` those that Keras has used for several layers to the layers
    they may mean; `others` maps the names of Caffe, TF-slim and old versions of Keras, understood but not shown.
    `layers` holds the module path of each layer of Keras Applications, in the order of Keras's `model.layers` without
    its top, and "" for those without a counterpart; the path of an addition is that of its node. `convolutions` maps
    activations that Keras has as a part of a convolution to the path of that convolution.
    `stages` names one module per stride, whose last layer is the one that later stages build on.
    `renames` maps prefixes of tensor names in weights files to ours. `mean` and `std` normalise RGB values in 0..1.
    """

    name: str
    build: Callable[[], nn.Module]
    architecture: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    blocks: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    ambiguous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    convolutions: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)

    def modules_of(self, layer: str) -> list[str]:
        """Return the modules of a layer of Keras, given by its path in `layers` or `aliases`."""
        return [*([self.convolutions[layer]] if layer in self.convolutions else []), layer]


#: Layers of Keras in its order: their names, "" if it only numbers them, and our paths, "" if we have none.
KerasLayers = Sequence[tuple[str, str]]


def named(layers: KerasLayers) -> dict[str, str]:
    """Return the paths of layers by their names in Keras."""
    return {name: path for name, path in layers if name and path}


def paths(layers: KerasLayers) -> tuple[str, ...]:
    """Return the path of each layer."""
    return tuple(path for _, path in layers)


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def unambiguous(numbered: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the Keras names of numbered layers that mean one layer only: the first and the last, however counted.

    Args:
        numbered: Layers that Keras only numbers, from 0, which it leaves out, or from 1 in old versions.
    """
    return {
        name: path
        for keras, paths in numbered.items()
        for name, path in ((keras, paths[0]), (f"{keras}_{len(paths)}", paths[-1]))
    }


def ambiguous(numbered: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the Keras names of numbered layers that mean different layers, counted from 1 and from 0."""
    return {f"{keras}_{n}": (paths[n - 1], paths[n]) for keras, paths in numbered.items() for n in range(1, len(paths))}
