"""Evaluation: predictions at the photos' original size, counted pixel by pixel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune import distributed
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
        self.mine = range(distributed.rank(), len(pairs), distributed.world())  # this process's share of the pictures
        dataset = build_dataset([pairs[index] for index in self.mine], data, None)
        batches = EpochBatches(len(self.mine), train.batch_size, seed=0, shuffle=False)
        self.loader = make_loader(dataset, batches, train.workers, compute.device.type == "cuda")

    @torch.inference_mode()
    def __call__(self, model: nn.Module, stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
        """Evaluate a model, every picture once over all processes; None when `stop()` says so in one of them.

        The loss is taken at the size the network sees; everything else at the original size, to which the logits are
        resized bilinearly.
        """
        model.eval()
        found, losses, pictures = [], [], {}
        cut = torch.logit(torch.tensor(known(self.train.threshold), dtype=torch.float64)).item()
        stopped = False
        with bar("validation", len(self.mine)) as progress:
            for batch in self.loader:
                images = batch["image"].to(self.compute.device, non_blocking=True)
                with self.compute.autocast():
                    logits = model(images)
                losses.append(self.loss(logits, batch["mask"].to(self.compute.device)).item() * len(images))
                logits = binary_logit(logits)
                for i, truth in enumerate(batch["truth"]):
                    predicted = (
                        F.interpolate(logits[i : i + 1], size=truth.shape, mode="bilinear", align_corners=False) > cut
                    )
                    found.append(counts(predicted[:, 0].cpu(), truth[None]))
                    number = self.mine[int(batch["index"][i])]
                    if number in self.shown:
                        photo = batch["image"][i].permute(1, 2, 0).numpy()
                        pictures[number] = compare(
                            photo, batch["mask"][i, 0].numpy() > 0, (logits[i, 0] > cut).cpu().numpy()
                        )
                progress(len(found), "")
                if stopped := stop():
                    break
        parts = distributed.gather((stopped, torch.cat(found) if found else None, losses, pictures))
        if any(part[0] for part in parts):
            return None
        table = torch.empty(len(self.pairs), 4, dtype=torch.int64)
        for first, (_, rows, _, _) in enumerate(parts):
            if rows is not None:
                table[first :: len(parts)] = rows
        shown = {number: picture for part in parts for number, picture in part[3].items()}
        return Evaluation(
            summarise(table, known(self.train.empty)),
            sum(loss for part in parts for loss in part[2]) / len(self.pairs),
            table,
            stack([shown[number] for number in sorted(shown)]) if shown else None,
        )
