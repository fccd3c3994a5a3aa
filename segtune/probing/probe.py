"""Linear probes: how well single layers of a frozen backbone, and groups of layers, predict the masks of a data set.

For every candidate a linear classifier of single pixels is fitted on the layer's features alone (Alain and Bengio
2016, "Understanding intermediate layers using linear classifier probes", arXiv:1610.01644). It is Fisher's linear
discriminant, which needs only sums over pixels: data of any size can be streamed, and only the choice of pixels is
random.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.data.dataset import SegmentationDataset
from segtune.data.loader import EpochBatches, make_loader
from segtune.errors import UserError
from segtune.metrics.overlap import Empty, per_image
from segtune.models.decoders.layers import resize
from segtune.models.layer_info import Group
from segtune.probing.linear_classifier import Classifier, Moments, discriminant
from segtune.runtime.device import Device

#: Bins of scores, whose edges are the candidate thresholds: 8 standard deviations to each side.
_BINS = 512
_BINS_PER_SPREAD = _BINS / 16


@dataclass
class Probe:
    """A frozen backbone, cut at all candidates, over a data set; see `fit` and `measure`."""

    trunk: nn.Module
    mean: Tensor
    std: Tensor
    compute: Device
    training: SegmentationDataset
    validation: SegmentationDataset
    batch_size: int
    workers: int
    pixels: int
    ridge: float
    seed: int
    empty: Empty
    advance: Callable[[int], None] = lambda images: None

    def __post_init__(self) -> None:
        self.classes = (Moments(), Moments())
        half = self.training.only(slice(None, None, 2))
        self.loaders = {
            name: make_loader(
                data,
                EpochBatches(len(data), self.batch_size, self.seed, shuffle=False),
                self.workers,
                self.compute.device.type == "cuda",
            )
            for name, data in (("training", self.training), ("half", half), ("validation", self.validation))
        }

    @property
    def images(self) -> int:
        """The number of forward passes, in images, for one call of `fit` and one of `measure`."""
        return len(self.training) + -(-len(self.training) // 2) + len(self.validation)

    def fit(self, groups: Sequence[Group]) -> dict[Group, Classifier]:
        """Return a classifier of each group: direction fitted on all training images, threshold on half of them.

        Raises:
            UserError: The training images lack pixels of one of the classes.
        """
        known = self.classes[0].products.keys()
        pairs = {tuple(sorted((a, b))) for group in groups for a in group for b in group}
        self._sum_up([(a, b) for a, b in pairs if (a, b) not in known])
        found = {group: discriminant(*self.classes, group, self.ridge) for group in groups}
        return self._with_thresholds(found)

    def measure(self, classifiers: Mapping[Group, Classifier]) -> dict[Group, float]:
        """Return the mean Dice of each classifier over the validation images, at half the network's input size."""
        counted = []
        limits = torch.tensor([each.threshold for each in classifiers.values()]).view(1, -1, 1, 1)
        for features, masks, _ in self._batches("validation"):
            found = _scores(list(classifiers.values()), features, masks) > limits.to(masks.device)
            true, false = masks == 1, masks == 0
            hits, alarms, there, elsewhere = (
                cells.flatten(2).sum(2) for cells in (found & true, found & false, true, false)
            )
            counted.append(torch.stack([hits, alarms, there - hits, elsewhere - alarms], 2).cpu())
        tables = torch.cat(counted).transpose(0, 1)  # groups, images, counts
        return {
            g: per_image(each, self.empty)["dice"].nanmean().item() for g, each in zip(classifiers, tables, strict=True)
        }

    def _sum_up(self, pairs: Sequence[tuple[str, str]]) -> None:
        first = not any(moments.count for moments in self.classes)
        known = {name for moments in self.classes for name in moments.sums}
        names = sorted({name for pair in pairs for name in pair})
        for features, masks, indices in self._batches("training"):
            places = [_draw(mask, self.pixels, (self.seed, index)) for mask, index in zip(masks, indices, strict=True)]
            drawn = {name: _at(features[name], places, masks.shape[-2:]) for name in names}
            truth = torch.cat([mask.flatten()[place] for mask, place in zip(masks, places, strict=True)]) == 1
            for label, moments in enumerate(self.classes):
                chosen = truth == bool(label)
                # Each pass draws the same pixels: known sums are not added again.
                moments.count += int(chosen.sum()) if first else 0
                moments.add({name: values[chosen] for name, values in drawn.items()}, set(names) - known, pairs)
        for kind, moments in zip(("background", "object"), self.classes, strict=True):
            if moments.count < 2:
                raise UserError(
                    f"The training images have no pixels of the {kind}; a probe needs both classes. Check "
                    "data.foreground and data.invert, and that the masks belong to these images."
                )

    def _with_thresholds(self, classifiers: Mapping[Group, Classifier]) -> dict[Group, Classifier]:
        """Return the classifiers with the threshold of the highest mean Dice over every second training image."""
        ordered = list(classifiers.values())
        spreads = torch.tensor([each.spread for each in ordered], dtype=torch.float64)
        counted = [
            _above_each(_scores(ordered, features, masks), masks, spreads)
            for features, masks, _ in self._batches("half")
        ]
        chosen = {}
        for index, (group, classifier) in enumerate(classifiers.items()):
            table = torch.cat([counts[:, index] for counts in counted])  # images, thresholds, counts
            dices = per_image(table.flatten(0, 1), self.empty)["dice"].view(table.shape[:2]).nanmean(0)
            best = thresholds(classifier.spread)[int(dices.nan_to_num().argmax())].item()
            chosen[group] = replace(classifier, threshold=best)
        return chosen

    @torch.no_grad()
    def _batches(self, split: str) -> Iterator[tuple[dict[str, Tensor], Tensor, list[int]]]:
        """Yield features by layer, (N, C, h, w), masks of 0, 1 and `VOID`, (N, 1, H, W), and the images' indices.

        Masks have half the images' height and width: all layers are compared at this size.
        """
        device = self.compute.device
        mean, std = (255 * value.view(1, 3, 1, 1).to(device) for value in (self.mean, self.std))
        for batch in self.loaders[split]:
            images = ((batch["image"].to(device).float() - mean) / std).contiguous(memory_format=torch.channels_last)
            with self.compute.autocast():
                features = self.trunk(images)
            masks = F.interpolate(batch["mask"].to(device).float(), scale_factor=0.5, mode="nearest-exact")
            yield features, masks, batch["index"].tolist()
            self.advance(len(images))


def _scores(classifiers: Sequence[Classifier], features: Mapping[str, Tensor], masks: Tensor) -> Tensor:
    """Return the score of every pixel by each classifier, (N, classifiers, H, W), for masks of (N, 1, H, W).

    A linear classifier and bilinear interpolation commute, so only scores are interpolated.
    """
    offsets = torch.tensor([each.offset for each in classifiers], device=masks.device).view(1, -1, 1, 1)
    total = offsets.repeat(len(masks), 1, *masks.shape[-2:])
    for name, values in features.items():
        using = [index for index, each in enumerate(classifiers) if name in each.weights]
        if using:
            weights = torch.stack([classifiers[index].weights[name] for index in using], 1)
            scores = values.permute(0, 2, 3, 1).float() @ weights.to(values.device, torch.float32)
            total[:, using] += resize(scores.permute(0, 3, 1, 2), masks.shape[-2:])
    return total


def thresholds(spread: float) -> Tensor:
    """Return the candidate thresholds, centred between the classes' means."""
    return (torch.arange(1, _BINS) - _BINS / 2) * spread / _BINS_PER_SPREAD


def _above_each(scores: Tensor, masks: Tensor, spreads: Tensor) -> Tensor:
    """Return TP, FP, FN and TN by threshold, (N, C, thresholds, 4), from (N, C, H, W), (N, 1, H, W) and (C,).

    Masks are of 0, 1 and `VOID`, whose pixels are left out.
    """
    images, columns = scores.shape[:2]
    scale = (_BINS_PER_SPREAD / spreads).to(scores).view(1, -1, 1, 1)
    bins = (scores * scale + _BINS / 2).clamp(0, _BINS - 1).int()
    number = torch.arange(images * columns, dtype=torch.int32, device=bins.device).view(images, columns, 1, 1)
    places = ((3 * number + masks.int().clamp(max=2)) * _BINS + bins).flatten()
    table = torch.bincount(places, minlength=3 * images * columns * _BINS).view(images, columns, 3, _BINS)[:, :, :2]
    above = table.flip(3).cumsum(3).flip(3).cpu()
    (false, true), (negatives, positives) = above[..., 1:].unbind(2), above[..., :1].unbind(2)
    return torch.stack([true, false, positives - true, negatives - false], 3)


def _draw(mask: Tensor, most: int, seed: tuple[int, int]) -> Tensor:
    """Return up to `most` random positions of a mask (1, H, W), half of them object, or all of the rarer class.

    None of them is void.
    """
    rng = np.random.default_rng(seed)
    flat = mask.flatten().cpu().numpy()
    classes = [np.flatnonzero(flat == label) for label in (0, 1)]
    fewer = min(len(places) for places in classes)
    of_rarer = min(most // 2, fewer)
    wanted = [of_rarer if len(places) == fewer else most - of_rarer for places in classes]
    drawn = [rng.choice(p, min(len(p), n), replace=False) for p, n in zip(classes, wanted, strict=True)]
    return torch.from_numpy(np.sort(np.concatenate(drawn))).to(mask.device)


def _at(features: Tensor, places: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """Return the features (n, C) at positions of the map resized bilinearly to `size`, without resizing it."""
    taken = []
    for one, place in zip(features.permute(0, 2, 3, 1), places, strict=True):  # a pixel's channels lie together
        (top, bottom, down), (left, right, across) = (
            _between(places_along, wide, narrow)
            for places_along, wide, narrow in zip((place // size[1], place % size[1]), size, one.shape[:2], strict=True)
        )
        above = one[top, left] * (1 - across) + one[top, right] * across
        below = one[bottom, left] * (1 - across) + one[bottom, right] * across
        taken.append(above * (1 - down) + below * down)
    return torch.cat(taken)


def _between(places: Tensor, wide: int, narrow: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two neighbours of positions along the axis before resizing, and the second one's weight, (n, 1)."""
    source = ((places + 0.5) * (narrow / wide) - 0.5).clamp_min(0)
    first = source.long().clamp_max(narrow - 1)
    return first, (first + 1).clamp_max(narrow - 1), (source - first)[:, None].float()
