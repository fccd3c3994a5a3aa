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
    stages: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)


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
