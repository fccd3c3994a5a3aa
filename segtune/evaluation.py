"""Evaluation: predictions at the photos' original size, counted pixel by pixel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.build import Loss, build_dataset
from segtune.compute import Compute
from segtune.config import DataSettings, TrainSettings, known
from segtune.console import bar
from segtune.data.dataset import EpochBatches, make_loader
from segtune.data.pairs import Pair
from segtune.losses import binary_logit
from segtune.metrics import Scores, counts, summarise
from segtune.pictures import Picture, compare, stack


@dataclass(frozen=True)
class Evaluation:
    """Scores over a split, its mean loss, TP, FP, FN and TN of every picture (N, 4), and a picture of samples."""

    scores: Scores
    loss: float
    counts: Tensor
    samples: Picture | None


class Evaluator:
    """Evaluates models on one split, again and again, with workers that stay alive in between."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        data: DataSettings,
        train: TrainSettings,
        loss: Loss,
        compute: Compute,
        *,
        samples: int = 0,
    ) -> None:
        self.pairs, self.train, self.loss, self.compute = pairs, train, loss, compute
        self.shown = set(np.linspace(0, len(pairs) - 1, min(samples, len(pairs))).astype(int).tolist())
        dataset = build_dataset(pairs, data, None)
        batches = EpochBatches(len(pairs), train.batch_size, seed=0, shuffle=False)
        self.loader = make_loader(dataset, batches, train.workers, compute.device.type == "cuda")

    @torch.inference_mode()
    def __call__(self, model: nn.Module, stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
        """Evaluate a model; None when `stop()` says so in between.

        The loss is taken at the size the network sees; everything else at the original size, to which the logits are
        resized bilinearly.
        """
        model.eval()
        found, losses, pictures = [], 0.0, []
        cut = torch.logit(torch.tensor(known(self.train.threshold), dtype=torch.float64)).item()
        with bar("validation", len(self.pairs)) as progress:
            for batch in self.loader:
                images = batch["image"].to(self.compute.device, non_blocking=True)
                with self.compute.autocast():
                    logits = model(images)
                losses += self.loss(logits, batch["mask"].to(self.compute.device)).item() * len(images)
                logits = binary_logit(logits)
                for i, truth in enumerate(batch["truth"]):
                    predicted = (
                        F.interpolate(logits[i : i + 1], size=truth.shape, mode="bilinear", align_corners=False) > cut
                    )
                    found.append(counts(predicted[:, 0].cpu(), truth[None]))
                    if int(batch["index"][i]) in self.shown:
                        photo = batch["image"][i].permute(1, 2, 0).numpy()
                        pictures.append(
                            compare(photo, batch["mask"][i, 0].numpy() > 0, (logits[i, 0] > cut).cpu().numpy())
                        )
                progress(len(found), "")
                if stop():
                    return None
        table = torch.cat(found)
        return Evaluation(
            summarise(table, known(self.train.empty)),
            losses / len(self.pairs),
            table,
            stack(pictures) if pictures else None,
        )
