"""The evaluator: predictions at the images' original size, compared with the masks pixel by pixel."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.config.command_settings import TTASettings
from segtune.config.data_settings import DataSettings
from segtune.config.output_settings import CleanSettings
from segtune.config.training_settings import TrainSettings
from segtune.data.dataset import build_dataset
from segtune.data.loader import EpochBatches, make_loader
from segtune.data.overlays import RGBImage, compare, for_display
from segtune.data.reduced import ReducedPhotos
from segtune.data.sources.base import Pair
from segtune.errors import FailedError
from segtune.evaluation.label_errors import label_error_score
from segtune.evaluation.predictions import GivenUpError, SamplePrediction, as_seen, predicting
from segtune.evaluation.skin_tone import typology_angle
from segtune.inference.cleaning import cleaned
from segtune.losses import Loss
from segtune.metrics import VOID
from segtune.metrics.boundary import boundary_counts
from segtune.metrics.curves import histogram
from segtune.metrics.overlap import Scores, counts, logit_of, summarise
from segtune.runtime import distributed
from segtune.runtime.console import bar
from segtune.runtime.cores import worker_count
from segtune.runtime.device import Device
from segtune.runtime.sampling import evenly_spaced

#: The most worker processes that read images for tiles.
_WORKERS = 2


@dataclass(frozen=True)
class Details:
    """More measurements of every image, which take longer.

    `histograms` (N, 2, BINS) and `boundaries` (N, 4) are those of `metrics.curves` and `metrics.boundary`, at the
    original size; `label_errors` (N,) is the label-error score; `tones` (N,) is the typology angle of the true skin,
    NaN without skin; `void` (N,) is the number of void pixels, at the original size.
    """

    histograms: Tensor
    boundaries: Tensor
    label_errors: Tensor
    tones: Tensor
    void: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Scores over a split, its mean loss, TP, FP, FN and TN of every image (N, 4), and drawings of samples by name."""

    scores: Scores
    loss: float
    counts: Tensor
    samples: Mapping[str, RGBImage]
    details: Details | None = None

    @property
    def detailed(self) -> Details:
        """The details; they must have been collected."""
        if self.details is None:
            raise ValueError("this evaluation has no details: create the Evaluator with a tolerance")
        return self.details


class Evaluator:
    """Evaluates models on one split, with workers that stay alive between evaluations.

    With `tolerance`, that of the boundary F-score in pixels, the details of every image are collected too. `photos`
    reads the images, None: from their files. In tiles (`data.eval_tile`) images come one by one, at their own size.
    `clean` says what is corrected in predicted masks before they are compared; histograms are of probabilities, which
    it leaves as they are.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        data: DataSettings,
        train: TrainSettings,
        loss: Loss,
        compute: Device,
        *,
        samples: int = 0,
        tta: TTASettings | None = None,
        tolerance: float | None = None,
        photos: ReducedPhotos | None = None,
        clean: CleanSettings | None = None,
    ) -> None:
        self.pairs, self.data, self.train, self.loss, self.compute = pairs, data, train, loss, compute
        self.clean = clean or CleanSettings()
        self.tta, self.tolerance = tta or TTASettings(), tolerance
        self.threshold_logit = logit_of(train.threshold)
        self.shown = set(evenly_spaced(range(len(pairs)), samples))
        self.mine = range(distributed.rank(), len(pairs), distributed.world())  # the images of this process
        dataset = build_dataset([pairs[index] for index in self.mine], data, None, photos=photos)
        of_batch = train.images_per_batch if data.eval_tile is None else 1
        batches = EpochBatches(len(self.mine), of_batch, seed=0, shuffle=False)
        workers = worker_count(train.workers, compute.device)
        if data.eval_tile is not None:  # the network takes most of the time, and each worker holds whole images
            workers = min(workers, _WORKERS)
        self.loader = make_loader(dataset, batches, workers, compute.device.type == "cuda")

    @torch.inference_mode()
    def __call__(
        self,
        model: nn.Module,
        stop: Callable[[], bool] = lambda: False,
        features: Callable[[dict[str, Any]], Any] | None = None,
    ) -> Evaluation | None:
        """Return an evaluation of a model, over the images of all processes; None if `stop()` in one of them.

        The loss is computed at the network's input size, in tiles at the original one; all else at the original size,
        to which the logits are resized bilinearly. Void pixels count nowhere, and images that are wholly void are in no
        mean. `features`, if given, returns of a batch what the model gets instead of its images.

        Raises:
            FailedError: The model returns NaN or infinity, and details are collected.
        """
        network = predicting(model, self.data, self.compute, self.tta, stop)
        rows, losses, drawings = list[tuple[Tensor, ...]](), list[tuple[Tensor, int]](), {}
        stopped = False
        with bar("validation", len(self.mine)) as progress, suppress(GivenUpError):
            for batch in self.loader.until(lambda _: stop()):
                with self.compute.autocast():
                    logits = network(features(batch) if features else batch["image"])
                labelled = (batch["mask"] != VOID).flatten(1).any(1)
                losses.append((self.loss(logits, batch["mask"]), int(labelled.sum())))
                facts = []
                for i, truth in enumerate(batch["truth"]):
                    number = self.mine[int(batch["index"][i])]
                    wanted = self.tolerance is not None or number in self.shown
                    view = (
                        as_seen(batch["image"][i], batch["mask"][i], truth, logits[i], self.threshold_logit, self.clean)
                        if wanted
                        else None
                    )
                    facts.append(self._facts(logits[i : i + 1], truth, view, self.pairs[number].name))
                    if view and number in self.shown:
                        drawings[number] = compare(*for_display(view.photo, view.truth, view.predicted, view.void))
                counted = torch.stack([each for each, *_ in facts]).cpu()  # all that comes back from the device
                rows += [(own, *details) for own, (_, *details) in zip(counted, facts, strict=True)]
                progress(len(rows), "")
                if stopped := stop():
                    break
        stopped = stopped or len(rows) < len(self.mine)  # asked to stop while the next batch or a tile did not come
        means = torch.stack([mean for mean, _ in losses]).tolist() if losses else []
        labelled_images = [images for _, images in losses]
        sums = [mean * images for mean, images in zip(means, labelled_images, strict=True)]
        parts = distributed.gather((stopped, _stacked(rows), sums, drawings, sum(labelled_images)))
        if any(part[0] for part in parts):
            return None
        table, *details = _joined([part[1] for part in parts], len(self.pairs))
        shown = {number: drawing for part in parts for number, drawing in part[3].items()}
        return Evaluation(
            summarise(table, self.train.empty),
            sum(loss for part in parts for loss in part[2]) / max(1, sum(part[4] for part in parts)),
            table,
            {f"{number + 1} {self.pairs[number].name}": shown[number] for number in sorted(shown)},
            Details(*details) if details else None,
        )

    def _facts(self, logits: Tensor, truth: Tensor, view: SamplePrediction | None, name: str) -> tuple[Tensor, ...]:
        """Return the measurements of an image at its original size, from logits (1, 1, h, w) and truth (H, W).

        The first, TP, FP, FN and TN (4,), is still on the logits' device.
        """
        if logits.shape[-2:] != truth.shape:
            logits = F.interpolate(logits, size=truth.shape, mode="bilinear", align_corners=False)
        there = truth.to(logits.device, non_blocking=True)
        predicted = logits[:, 0] > self.threshold_logit
        if self.clean.active:
            corrected = cleaned(predicted[0].cpu().numpy(), self.clean)
            predicted = torch.from_numpy(corrected)[None].to(logits.device)
        has_void = bool(truth.numpy().max() == VOID)  # asked on the CPU: the device is not waited for
        counted = counts(predicted, there[None] if has_void else there[None].bool())[0]
        if self.tolerance is None or view is None:
            return (counted,)
        if not logits.isfinite().all():
            what = "NaN" if logits.isnan().any() else "infinity"
            raise FailedError(
                f"The model returns {what} for {name} in {self.compute.precision}, so it cannot be scored. "
                "Try train.precision=fp32; if that does not help, its weights are broken."
            )
        inside, void = truth.numpy() == 1, truth.numpy() == VOID if has_void else None
        return (
            counted,
            histogram(logits.sigmoid(), there).cpu(),
            torch.tensor(boundary_counts(predicted[0].cpu().numpy(), inside, self.tolerance, void)),
            torch.tensor(label_error_score(view), dtype=torch.float64),
            torch.tensor(typology_angle(view.photo, view.truth), dtype=torch.float64),
            torch.tensor(0 if void is None else int(void.sum())),
        )


def _stacked(rows: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def _joined(parts: Sequence[Sequence[Tensor]], count: int) -> list[Tensor]:
    """Return the measurements of all processes in the order of the images."""
    some = next(part for part in parts if part)
    tables = [torch.empty(count, *column.shape[1:], dtype=column.dtype) for column in some]
    for first, part in enumerate(parts):
        for table, column in zip(tables, part, strict=bool(part)):
            table[first :: len(parts)] = column
    return tables
