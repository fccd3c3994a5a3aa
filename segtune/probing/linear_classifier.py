"""Fisher's linear discriminant from sums over pixels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from segtune.models.layer_info import Group


@dataclass(frozen=True)
class Classifier:
    """A linear classifier of pixels: `weights` (C,) of each layer and an `offset`; scores above `threshold` are object.

    `spread` is the standard deviation of the scores within the classes.
    """

    weights: Mapping[str, Tensor]
    offset: float
    spread: float
    threshold: float = 0.0


@dataclass
class Moments:
    """The pixel count of a class and its sums of features and of their products, layer by layer, in float64."""

    count: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    products: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def add(self, features: Mapping[str, Tensor], layers: Iterable[str], pairs: Iterable[tuple[str, str]]) -> None:
        """Add pixels, features (n, C) by layer: sums of the given `layers`, and products of the given `pairs`."""
        for name in layers:
            total = features[name].sum(0).cpu().double()  # not every accelerator has float64
            self.sums[name] = self.sums[name] + total if name in self.sums else total
        for a, b in pairs:
            product = (features[a].T @ features[b]).cpu().double()
            self.products[a, b] = self.products[a, b] + product if (a, b) in self.products else product

    def mean(self, group: Group) -> Tensor:
        """Return the mean features of a group, (C,)."""
        return torch.cat([self.sums[name] for name in group]) / self.count

    def covariance(self, group: Group) -> Tensor:
        """Return the covariance of a group's features, (C, C)."""
        rows = [[self._product(a, b) for b in group] for a in group]
        mean = self.mean(group)
        return torch.cat([torch.cat(row, 1) for row in rows]) / self.count - torch.outer(mean, mean)

    def _product(self, a: str, b: str) -> Tensor:
        return self.products[a, b] if (a, b) in self.products else self.products[b, a].T


def discriminant(background: Moments, foreground: Moments, group: Group, ridge: float) -> Classifier:
    """Return Fisher's linear discriminant of two classes of equal weight (Fisher 1936).

    Args:
        background: Sums over the background pixels.
        foreground: Sums over the object's pixels.
        group: The layers to use.
        ridge: Added to the diagonal of the features' correlation matrix, 0 or more; larger values regularise more.
    """
    means = [moments.mean(group) for moments in (background, foreground)]
    scatter = (background.covariance(group) + foreground.covariance(group)) / 2
    variance = scatter.diagonal()
    rounding = 1e-6 * (means[0].square() + means[1].square())  # of products in float32
    scale = torch.where(variance > rounding, variance.clamp_min(0).sqrt(), torch.inf)  # inf: a constant channel
    correlation = scatter / torch.outer(scale, scale) + ridge * torch.eye(len(scale), dtype=torch.float64)
    direction = torch.linalg.solve(correlation, (means[1] - means[0]) / scale) / scale
    spread = (direction @ scatter @ direction).clamp_min(1e-30).sqrt().item()
    parts = torch.split(direction, [len(foreground.sums[name]) for name in group])
    offset = -(direction @ (means[0] + means[1])).item() / 2
    return Classifier(dict(zip(group, parts, strict=True)), offset, spread)
