"""Measure training on this machine's GPU against plain loops, in one run of a few minutes.

    python tools/gpu_check.py [--backbone resnet50] [--size 512] [--batch 32] [--images 1280] [--compile] [--json FILE]

Rows: a plain loop of the same model on a batch that lies on the device; a plain loop of segmentation_models_pytorch's
DeepLabV3Plus with the same backbone; the data loader alone; `segtune train` from files to the end of its epochs. With
--compile the loop of segtune's model and the last `segtune train` of each precision come again, compiled. Photos are
those of skin_ecu in the folder SEGTUNE_SHARED, repeated until there are enough, or drawn ones. Rates of training leave
out the first two steps of each epoch, which start workers and choose kernels; "with starts" counts them. It also runs
on a CPU, in a small form: --size 64 --batch 4 --images 16 --steps 2 --workers 0.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:  # PyTorch takes seconds to import, and --help does not need it
    import torch
    from torch import nn

    from segtune.runtime.device import Device


def make_folder(root: Path, count: int, different: int = 32) -> str:
    """Write a folder of `count` training pairs and eight for validation, and return where the photos are from.

    There are as many `different` ones; the others repeat them.
    """
    import cv2

    from segtune.data.sources.portraits import draw_scene

    shared = os.environ.get("SEGTUNE_SHARED")
    source = Path(shared) / "data" / "skin_ecu" if shared else None
    for folder in ("images", "masks", "drawn"):
        (root / folder).mkdir(parents=True)
    for split, wanted in (("train", count), ("val", 8)):
        if source and source.is_dir():
            stems = (source / f"{split}.txt").read_text("utf-8").split()[:different]
            pairs = [[next((source / kind).glob(f"{stem}.*")) for kind in ("images", "masks")] for stem in stems]
        else:
            pairs = []
            for seed in range(min(wanted, different)):
                pairs.append([root / "drawn" / f"{split}{seed}.{end}" for end in ("jpg", "png")])
                image, mask = draw_scene(seed if split == "train" else 1000 + seed)
                cv2.imwrite(str(pairs[-1][0]), image[..., ::-1])
                cv2.imwrite(str(pairs[-1][1]), mask)
        names = [f"{split}{number}" for number in range(wanted)]
        for number, name in enumerate(names):
            for kind, path in zip(("images", "masks"), pairs[number % len(pairs)], strict=True):
                (root / kind / (name + path.suffix)).symlink_to(path.resolve())
        (root / f"{split}.txt").write_text("\n".join(names) + "\n", "utf-8")
    return "skin_ecu" if source and source.is_dir() else "drawn"


def synchronize(compute: Device) -> None:
    """Wait until the device has done its work."""
    import torch

    if compute.device.type != "cpu":
        torch.accelerator.synchronize(compute.device)


def plain_loop(model: nn.Module, compute: Device, options: argparse.Namespace) -> dict[str, float]:
    """Return images/s and peak memory of the steps that a careful user would write, on a batch that lies ready."""
    import torch

    from segtune.config.loss_settings import DiceBCESettings
    from segtune.losses import build_loss

    cuda = compute.device.type == "cuda"
    model = compute.place(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
    loss_fn = build_loss(DiceBCESettings())
    shape = (options.batch, 3, options.size, options.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=compute.device)
    target = (images[:, :1] > 127).to(torch.uint8)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = 0.0
    for number in range(3 + options.steps):
        if number == 3:  # the first ones choose kernels and fill caches
            synchronize(compute)
            began = time.perf_counter()
        with compute.autocast():
            logits = model(images)
        scaler.scale(loss_fn(logits.float(), target)).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
    synchronize(compute)
    seconds = time.perf_counter() - began
    memory = torch.cuda.max_memory_allocated() / 1e9 if cuda else float("nan")
    return {"images_per_second": options.batch * options.steps / seconds, "memory_gb": memory}


def networks(options: argparse.Namespace) -> dict[str, Any]:
    """Return functions that build the networks to compare, by name."""
    import segmentation_models_pytorch as smp
    import torch
    import yaml
    from torch import nn

    from segtune.cli.help import config_folder
    from segtune.config.model_settings import BackboneSettings, DeepLabV3PlusSettings
    from segtune.models.build import build_model
    from segtune.training.compiled import CompiledForward

    def ours() -> nn.Module:
        taps = yaml.safe_load((config_folder() / "taps" / f"{options.backbone}_deeplabv3plus.yaml").read_text("utf-8"))
        return build_model(BackboneSettings(options.backbone, "none"), taps, DeepLabV3PlusSettings()).model

    def compiled() -> nn.Module:
        model = ours()
        model.forward = CompiledForward(model, options.batch)
        return model

    class FromBytes(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = (images.float() / 255 - 0.45) / 0.225
            logits: torch.Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
            return logits

    def theirs() -> nn.Module:
        return FromBytes(smp.DeepLabV3Plus(encoder_name=options.backbone, encoder_weights=None))

    more = {"plain loop, segtune's model, compiled": compiled} if options.compile else {}
    return {"plain loop, segtune's model": ours, **more, "plain loop, smp's DeepLabV3Plus": theirs}


def loader_rate(root: Path, workers: int, options: argparse.Namespace) -> float:
    """Return the images/s of the data loader alone, after its first batch."""
    from segtune.config.data_settings import AugmentSettings, DataSettings
    from segtune.data.dataset import build_dataset
    from segtune.data.loader import EpochBatches, make_loader
    from segtune.data.splits import build_splits

    data = DataSettings(name="folder", root=str(root), image_size=options.size)
    pairs = build_splits(data, 0, 0)["train"]
    dataset = build_dataset(pairs, data, AugmentSettings(transforms={"HorizontalFlip": {"p": 0.5}}), 0)
    batches = EpochBatches(len(dataset), options.batch, 0)
    loader = make_loader(dataset, batches, workers, False)
    batches.epoch, batches.start, batches.end = 1, 0, batches.whole
    count, began = 0, 0.0
    for number, batch in enumerate(loader):
        if number == 0:
            began = time.perf_counter()
        else:
            count += len(batch["image"])
    return count / max(time.perf_counter() - began, 1e-9)


def trained(
    root: Path, runs: Path, precision: str, workers: int, options: argparse.Namespace, *, compiled: bool = False
) -> dict[str, float]:
    """Return what a run of `segtune train` took: images/s, all and from an epoch's third step on, memory, waits.

    `waits` counts the calls of a step, the mean, for which PyTorch says that they wait for the GPU.
    """
    import torch

    from segtune.__main__ import main as segtune
    from segtune.training import epoch, loop
    from segtune.training.epoch import train_epoch

    cuda = options.device.startswith("cuda")
    folder = runs / f"{precision}_{workers}{'_compiled' * compiled}"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_sync_debug_mode("warn")
    words = [
        *("train", f"backbone={options.backbone}", "backbone.weights=none", "freeze=none", "data=folder"),
        *(f"data.root={root}", f"data.image_size={options.size}", f"train.batch_size={options.batch}"),
        *(f"train.precision={precision}", f"train.workers={workers}", f"train.device={options.device}"),
        *("augment=light", "freeze.phases.all.epochs=3", f"train.compile={compiled}", f"run_dir={folder}"),
    ]
    take_step, steps = epoch.take_step, 0
    moments: list[tuple[float, int]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def mark() -> None:
            waits = sum("synchroniz" in str(warning.message) for warning in caught)
            if cuda:  # it may be steps behind
                torch.cuda.synchronize(options.device)
            moments.append((time.perf_counter(), waits))

        def counted(run: Any, *more: Any) -> None:
            nonlocal steps
            take_step(run, *more)
            steps += 1
            if run.state.step == 2:
                mark()

        def timed(*given: Any) -> None:
            train_epoch(*given)
            mark()

        try:
            with patch.object(epoch, "take_step", counted), patch.object(loop, "train_epoch", timed):
                if code := segtune(words):
                    raise SystemExit(code)
        finally:
            if cuda:
                torch.cuda.set_sync_debug_mode("default")
    epochs = list(zip(moments[::2], moments[1::2], strict=True))  # each from its third step on
    seconds = sum(after[0] - before[0] for before, after in epochs)
    waits = sum(after[1] - before[1] for before, after in epochs)
    steps -= 2 * len(epochs)
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    return {
        "images_per_second": options.batch * steps / seconds,
        "images_per_second_of_all": summary["images_per_second_with_start"],
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else float("nan"),
        "waits": waits / steps,
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, print the table and return it."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from segtune.config.training_settings import TrainSettings
    from segtune.runtime.device import resolve_device

    cuda = options.device.startswith("cuda")
    place = torch.cuda.get_device_name() if cuda else "CPU"
    rows: list[dict[str, Any]] = []

    def add(name: str, precision: str, **values: float) -> None:
        rows.append({"what": name, "precision": precision} | values)
        print(f"{name}, {precision}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()), flush=True)

    for precision in options.precisions:
        compute = resolve_device(TrainSettings(device=options.device, precision=precision))
        for name, build in networks(options).items():
            add(name, precision, **plain_loop(build(), compute, options))
            gc.collect()  # a compiled model refers to itself
            if cuda:
                torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as scratch:
        root, runs = Path(scratch) / "data", Path(scratch) / "runs"
        root.mkdir()
        photos = make_folder(root, options.images)
        for workers in options.workers:
            add(f"loader alone, {workers} workers", "", images_per_second=loader_rate(root, workers, options))
        for precision in options.precisions:
            for workers in options.workers if precision == options.precisions[0] else options.workers[-1:]:
                add(f"segtune train, {workers} workers", precision, **trained(root, runs, precision, workers, options))
            if options.compile:
                found = trained(root, runs, precision, workers, options, compiled=True)
                add(f"segtune train, {workers} workers, compiled", precision, **found)
    facts = {
        "device": place,
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "photos": photos,
        "backbone": options.backbone,
        "size": options.size,
        "batch": options.batch,
        "rows": rows,
    }
    table = Table(
        title=f"{options.backbone} + deeplabv3plus, {options.size} px, batches of {options.batch}, {place}, "
        f"{os.cpu_count()} cores, PyTorch {torch.__version__}"
    )
    shown = {"images_per_second": ".1f", "images_per_second_of_all": ".1f", "memory_gb": ".2f", "waits": ".2f"}
    for heading in ("what", "precision", "images/s", "with starts", "peak memory, GB", "waits in a step"):
        table.add_column(heading, justify="left" if heading in ("what", "precision") else "right")
    for row in rows:
        values = [row.get(key, float("nan")) for key in shown]
        table.add_row(
            row["what"],
            row["precision"],
            *("" if v != v else f"{v:{form}}" for v, form in zip(values, shown.values(), strict=True)),
        )
    Console(width=120).print(table)
    return facts


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50", choices=("resnet50", "xception"))
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels (default: 512)")
    parser.add_argument("--batch", type=int, default=32, help="images of a step (default: 32)")
    parser.add_argument(
        "--images", type=int, default=1280, help="training images of an epoch: 3 batches or more (1280)"
    )
    parser.add_argument("--steps", type=int, default=20, help="steps of a plain loop that count (default: 20)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 16], help="worker processes to try")
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp16"], choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--compile", action="store_true", help="also measure with train.compile=true")
    parser.add_argument("--device", default=None, help="cuda, cuda:N or cpu (default: cuda where there is one)")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    if options.images < 3 * options.batch or min(options.batch, options.steps, options.size) < 1:
        parser.error("expected a batch, steps and a size of 1 or more, and images for three batches or more")
    import torch

    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    facts = run(options)
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
