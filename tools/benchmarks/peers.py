"""segmentation_models_pytorch with Lightning, and fastai, as their own examples use them."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.measuring import Figures, Goal, Job, MissingError, Part
from benchmarks.steps import CACHED, cached_job, filling_job

_RATE = "images_per_second"
#: Mean and standard deviation of the encoders' input, in 0..1.
_NORMALISATION = {
    "resnet50": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "xception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
_SMP = "smp + Lightning as in its examples, fp32"


def part(options: argparse.Namespace) -> Part:
    """Return the peers and the run of segtune that takes turns with them, with the last ratio of judge 2."""
    cached = replace(cached_job(options), name=f"{CACHED}, beside the peers")
    jobs = [
        cached,
        Job(_SMP, smp_rate, (options, "32-true")),
        Job("smp + Lightning, bf16-mixed", smp_rate, (options, "bf16-mixed")),
        Job("fastai's learner on smp's network, fp32", fastai_rate, (options,)),
    ]
    goal = Goal("head_only, cached / smp + Lightning, fp32", (cached.name, _RATE), (_SMP, _RATE), 20, True)
    return Part(jobs, [goal], [filling_job(options)])


def load_peer(name: str) -> ModuleType:
    """Import a library to compare with.

    Raises:
        MissingError: It is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise MissingError(f"{error}: pip install -e '.[bench]'") from error


def pairs_of(root: Path, split: str, limit: int | None = None) -> list[tuple[Path, Path]]:
    """Return the photos and masks of a split of a folder that has lists."""
    stems = (root / f"{split}.txt").read_text("utf-8").split()[:limit]
    files = {kind: {path.stem: path for path in (root / kind).iterdir()} for kind in ("images", "masks")}
    return [(files["images"][stem], files["masks"][stem]) for stem in stems]


@dataclass(frozen=True)
class Photos:
    """A data set as in the examples: read by Pillow, resized to a square, channels first, masks 0 or 1."""

    pairs: Sequence[tuple[Path, Path]]
    size: int

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `image` (3, H, W) of bytes and `mask` (1, H, W) of 0.0 and 1.0."""
        import numpy as np
        from PIL import Image

        photo, mask, size = *self.pairs[index], (self.size, self.size)
        image = np.asarray(Image.open(photo).convert("RGB").resize(size, Image.Resampling.BILINEAR))
        truth = np.asarray(Image.open(mask).convert("L").resize(size, Image.Resampling.NEAREST)) > 127
        return {"image": np.moveaxis(image, -1, 0), "mask": truth[None].astype(np.float32)}


def make_loader(pairs: Sequence[tuple[Path, Path]], options: argparse.Namespace, *, shuffle: bool) -> Any:
    """Return a data loader as in the examples: a worker for each core."""
    from torch.utils.data import DataLoader

    dataset: Any = Photos(pairs, options.size)
    return DataLoader(dataset, batch_size=options.batch, shuffle=shuffle, num_workers=os.cpu_count() or 1)


def make_module(network: Any, encoder: str, steps: int, on_dice: Callable[[float], bool] = lambda dice: False) -> Any:
    """Return a Lightning module that trains as in the examples: Dice loss, its counts, Adam, a cosine of `steps`.

    Args:
        network: One of smp's.
        encoder: Its encoder, for the normalisation, which smp would ask the Hub for. The examples normalise 0..255
            with numbers for 0..1; here the images are divided by 255 first, or pretrained weights would be of no use.
        steps: Steps of the whole training.
        on_dice: Called with the mean Dice of the validation images after each epoch; true ends the training.
    """
    lightning, smp = load_peer("lightning"), load_peer("segmentation_models_pytorch")
    import torch

    class Module(lightning.LightningModule):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = network
            mean, std = _NORMALISATION[encoder]
            self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
            self.loss_fn = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)
            self.counts: dict[str, list[tuple[Any, ...]]] = {"train": [], "valid": []}

        def forward(self, image: Any) -> Any:
            return self.model((image / 255 - self.mean) / self.std)

        def shared_step(self, batch: dict[str, Any], stage: str) -> Any:
            logits = self(batch["image"])
            loss = self.loss_fn(logits, batch["mask"])
            predicted = (logits.sigmoid() > 0.5).float()
            self.counts[stage].append(smp.metrics.get_stats(predicted.long(), batch["mask"].long(), mode="binary"))
            return loss

        def shared_epoch_end(self, stage: str) -> None:
            tp, fp, fn, tn = (torch.cat(each) for each in zip(*self.counts[stage], strict=True))
            self.counts[stage].clear()
            for name, reduction in (("per_image_iou", "micro-imagewise"), ("dataset_iou", "micro")):
                self.log(f"{stage}_{name}", smp.metrics.iou_score(tp, fp, fn, tn, reduction=reduction), prog_bar=True)
            if stage == "valid" and not self.trainer.sanity_checking:
                dice = torch.where(tp + fp + fn > 0, 2 * tp / (2 * tp + fp + fn).clamp(min=1), 1.0)
                self.trainer.should_stop = on_dice(float(dice.mean())) or self.trainer.should_stop

        def training_step(self, batch: dict[str, Any], _: int) -> Any:
            return self.shared_step(batch, "train")

        def on_train_epoch_end(self) -> None:
            self.shared_epoch_end("train")

        def validation_step(self, batch: dict[str, Any], _: int) -> Any:
            return self.shared_step(batch, "valid")

        def on_validation_epoch_end(self) -> None:
            self.shared_epoch_end("valid")

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=2e-4)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=1e-5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    return Module()


def make_trainer(options: argparse.Namespace, **settings: Any) -> Any:
    """Return a Lightning trainer that writes nothing: no checkpoints, no logs, no bar, which is to its advantage."""
    lightning = load_peer("lightning")
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(accelerator="cpu", logger=False, default_root_dir=str(options.folder), **quiet, **settings)


def smp_rate(options: argparse.Namespace, precision: str) -> Figures:
    """Return images/s of the training steps of smp's DeepLabV3Plus with ResNet50, without the first step."""
    lightning, smp = load_peer("lightning"), load_peer("segmentation_models_pytorch")
    moments: list[float] = []

    class Clock(lightning.Callback):  # type: ignore[name-defined]
        def on_train_batch_end(self, *_: Any) -> None:
            moments.append(time.perf_counter())

    pairs = pairs_of(options.folder / "train", "train", options.peer_images)
    network = smp.create_model("DeepLabV3Plus", "resnet50", encoder_weights=None, in_channels=3, classes=1)
    module = make_module(network, "resnet50", steps=len(pairs) // options.batch)
    trainer = make_trainer(options, max_epochs=1, precision=precision, callbacks=[Clock()])
    trainer.fit(module, train_dataloaders=make_loader(pairs, options, shuffle=True))
    return {_RATE: options.batch * (len(moments) - 1) / (moments[-1] - moments[0])}


def fastai_rate(options: argparse.Namespace) -> Figures:
    """Return images/s of the training steps of fastai's learner on the same network, without the first step."""
    smp, fastai = load_peer("segmentation_models_pytorch"), load_peer("fastai.vision.all")
    import numpy as np
    from PIL import Image

    moments: list[float] = []

    class Clock(fastai.Callback):  # type: ignore[name-defined]
        def after_batch(self) -> None:
            if self.training:
                moments.append(time.perf_counter())

    pairs = pairs_of(options.folder / "train", "train", options.peer_images)
    masks = dict(pairs)
    size, normalise = options.size, fastai.Normalize.from_stats(*fastai.imagenet_stats)
    loaders = fastai.SegmentationDataLoaders.from_label_func(
        options.folder,  # where it would write models
        fnames=list(masks),
        label_func=lambda photo: (np.asarray(Image.open(masks[photo]).convert("L")) > 127).astype(np.uint8),
        valid_pct=0.1,
        seed=0,
        codes=["background", "object"],
        item_tfms=fastai.Resize(size),
        batch_tfms=[*fastai.aug_transforms(size=size), normalise],
        bs=options.batch,
    )
    network = smp.create_model("DeepLabV3Plus", "resnet50", encoder_weights=None, in_channels=3, classes=2)
    learner = fastai.Learner(loaders, network, loss_func=fastai.CrossEntropyLossFlat(axis=1), path=options.folder)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(1, cbs=Clock())
    return {_RATE: options.batch * (len(moments) - 1) / (moments[-1] - moments[0])}
