"""Evaluation: predictions at the photos' original size, counted pixel by pixel."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from segtune import distributed
from segtune.averaging import averaged
from segtune.boundaries import boundary_counts
from segtune.build import Loss, build_dataset
from segtune.compute import Compute
from segtune.config import AveragingSettings, DataSettings, FailedError, TrainSettings
from segtune.console import bar
from segtune.curves import histogram
from segtune.data.dataset import EpochBatches, make_loader
from segtune.data.pairs import Pair
from segtune.metrics import Scores, counts, logit_of, summarise
from segtune.pictures import Mask, Picture, compare, stack
from segtune.sampling import evenly_spaced
from segtune.skin_tone import typology_angle

#: A network is confident where it gives the object a probability of this or more, or of 1 minus this or less.
CONFIDENT = 0.95


@dataclass(frozen=True)
class Details:
    """More facts of every picture, which cost time.

    `histograms` (N, 2, BINS) and `boundaries` (N, 4) are as `curves` and `boundaries` count them, at the original size;
    `doubts` (N,) is the share of the picture that the largest region takes in which the network confidently contradicts
    the mask; `tones` (N,) the typology angle of the true skin, NaN where there is none.
    """

    histograms: Tensor
    boundaries: Tensor
    doubts: Tensor
    tones: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Scores over a split, its mean loss, TP, FP, FN and TN of every picture (N, 4), and a picture of samples."""

    scores: Scores
    loss: float
    counts: Tensor
    samples: Picture | None
    details: Details | None = None

    @property
    def detailed(self) -> Details:
        """The details, of an evaluation that collected them."""
        if self.details is None:
            raise ValueError("an evaluation without a tolerance collects no details")
        return self.details


@dataclass(frozen=True)
class View:
    """A photo (h, w, 3), its true mask, the predicted one and the probability (h, w), all as the network sees them.

    `size` is the photo's own height and width.
    """

    size: tuple[int, int]
    photo: Picture
    truth: Mask
    predicted: Mask
    probability: NDArray[np.float32]


Pictures = Iterable[tuple[Pair, View]]


class Evaluator:
    """Evaluates models on one split, again and again, with workers that stay alive in between.

    With `tolerance`, the boundary F-score's in pixels, the details of every picture are collected too.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        data: DataSettings,
        train: TrainSettings,
        loss: Loss,
        compute: Compute,
        *,
        samples: int = 0,
        average: AveragingSettings | None = None,
        tolerance: float | None = None,
    ) -> None:
        self.pairs, self.train, self.loss, self.compute = pairs, train, loss, compute
        self.average, self.tolerance = average or AveragingSettings(), tolerance
        self.cut = logit_of(train.threshold)
        self.shown = set(evenly_spaced(range(len(pairs)), samples))
        self.mine = range(distributed.rank(), len(pairs), distributed.world())  # this process's share of the pictures
        dataset = build_dataset([pairs[index] for index in self.mine], data, None)
        batches = EpochBatches(len(self.mine), train.batch_size, seed=0, shuffle=False)
        self.loader = make_loader(dataset, batches, train.workers, compute.device.type == "cuda")

    @torch.inference_mode()
    def __call__(self, model: nn.Module, stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
        """Evaluate a model, every picture once over all processes; None when `stop()` says so in one of them.

        With details, a model that gives NaN is a FailedError.

        The loss is taken at the size the network sees; everything else at the original size, to which the logits are
        resized bilinearly.
        """
        network = averaged(model.eval(), flips=self.average.flips, scales=self.average.scales)
        rows, losses, pictures = list[tuple[Tensor, ...]](), [], {}
        stopped = False
        with bar("validation", len(self.mine)) as progress:
            for batch in self.loader:
                images = batch["image"].to(self.compute.device, non_blocking=True)
                with self.compute.autocast():
                    logits = network(images)
                losses.append(self.loss(logits, batch["mask"].to(self.compute.device)).item() * len(images))
                for i, truth in enumerate(batch["truth"]):
                    number = self.mine[int(batch["index"][i])]
                    look_closer = self.tolerance is not None or number in self.shown
                    view = (
                        _view(batch["image"][i], batch["mask"][i], truth, logits[i], self.cut) if look_closer else None
                    )
                    rows.append(self._facts(logits[i : i + 1], truth, view, self.pairs[number].name))
                    if view and number in self.shown:
                        pictures[number] = compare(view.photo, view.truth, view.predicted)
                progress(len(rows), "")
                if stopped := stop():
                    break
        parts = distributed.gather((stopped, _stacked(rows), losses, pictures))
        if any(part[0] for part in parts):
            return None
        table, *details = _joined([part[1] for part in parts], len(self.pairs))
        shown = {number: picture for part in parts for number, picture in part[3].items()}
        return Evaluation(
            summarise(table, self.train.empty),
            sum(loss for part in parts for loss in part[2]) / len(self.pairs),
            table,
            stack([shown[number] for number in sorted(shown)]) if shown else None,
            Details(*details) if details else None,
        )

    def _facts(self, logits: Tensor, truth: Tensor, view: View | None, name: str) -> tuple[Tensor, ...]:
        """Count a picture at its original size: logits (1, 1, h, w), truth (H, W)."""
        logits = F.interpolate(logits, size=truth.shape, mode="bilinear", align_corners=False)
        predicted = logits[:, 0].cpu() > self.cut
        counted = counts(predicted, truth[None])[0]
        if self.tolerance is None or view is None:
            return (counted,)
        if logits.isnan().any():
            raise FailedError(
                f"The model gives NaN for {name} in {self.compute.precision}: nothing it says can be scored. "
                "train.precision=fp32 may help; else its weights are broken."
            )
        return (
            counted,
            histogram(logits.sigmoid(), truth.to(logits.device)).cpu(),
            torch.tensor(boundary_counts(predicted[0].numpy(), truth.numpy() > 0, self.tolerance)),
            torch.tensor(_doubt(view), dtype=torch.float64),
            torch.tensor(typology_angle(view.photo, view.truth), dtype=torch.float64),
        )


def look(
    model: nn.Module,
    pairs: Sequence[Pair],
    data: DataSettings,
    train: TrainSettings,
    compute: Compute,
    average: AveragingSettings,
) -> Iterator[View]:
    """Predict some pictures to be looked at, as the evaluator does."""
    dataset = build_dataset(pairs, data, None)
    network = averaged(model.eval(), flips=average.flips, scales=average.scales)
    cut = logit_of(train.threshold)
    for index in range(len(pairs)):
        sample: dict[str, Any] = dataset[0, index]
        with torch.inference_mode(), compute.autocast():
            logits = network(sample["image"][None].to(compute.device))
        yield _view(sample["image"], sample["mask"], sample["truth"], logits[0], cut)


def _view(image: Tensor, mask: Tensor, truth: Tensor, logits: Tensor, cut: float) -> View:
    return View(
        (truth.shape[0], truth.shape[1]),
        image.permute(1, 2, 0).numpy(),
        mask[0].numpy() > 0,
        (logits[0] > cut).cpu().numpy(),
        logits[0].float().sigmoid().cpu().numpy(),
    )


def contradicted(view: View) -> NDArray[np.bool_]:
    """Return where (h, w) the network confidently contradicts the mask."""
    return np.asarray(np.where(view.truth, 1 - view.probability, view.probability) >= CONFIDENT)


def _doubt(view: View) -> float:
    """Measure the largest region of confident contradiction; strips of a pixel or two along edges are none."""
    regions = cv2.morphologyEx(contradicted(view).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, _, facts, _ = cv2.connectedComponentsWithStats(regions, connectivity=4)
    return float(facts[1:, cv2.CC_STAT_AREA].max() / regions.size) if len(facts) > 1 else 0.0


def _stacked(rows: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def _joined(parts: Sequence[Sequence[Tensor]], count: int) -> list[Tensor]:
    """Put the pictures of all processes into their order."""
    some = next(part for part in parts if part)
    tables = [torch.empty(count, *column.shape[1:], dtype=column.dtype) for column in some]
    for first, part in enumerate(parts):
        for table, column in zip(tables, part, strict=bool(part)):
            table[first :: len(parts)] = column
    return tables
