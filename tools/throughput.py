"""Compare the speed of a training step between precisions, and with and without a frozen backbone.

    python tools/throughput.py [backbone] [image size] [batch size] [--rounds 5] [--device auto]

Prints images per second and the speed-up over the first row, in which everything trains in fp32. The variants take
turns, so that a change of the machine's load affects all of them; the best round of each counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # PyTorch takes seconds to import, and --help does not need it
    import torch

    from segtune.config.training_settings import PhaseSettings
    from segtune.models.build import BuiltModel
    from segtune.runtime.device import Device


def step_seconds(built: BuiltModel, compute: Device, phase: PhaseSettings, images: torch.Tensor) -> float:
    """Return the duration of one training step in seconds, including the optimizer."""
    import torch

    from segtune.config.loss_settings import DiceBCESettings
    from segtune.config.training_settings import OptimizerSettings
    from segtune.losses import build_loss
    from segtune.training.freezing import choose, freeze, train_mode
    from segtune.training.optim import build_optimizer

    model = built.model.to(compute.device).to(memory_format=torch.channels_last)
    scope = choose(model, "measured", phase, built.blocks)
    model.zero_grad()
    freeze(model, scope)
    train_mode(model, scope)
    optimizer = build_optimizer(OptimizerSettings("adamw"), model, phase, built.blocks)
    loss_fn = build_loss(DiceBCESettings())
    target = torch.zeros(len(images), 1, *images.shape[-2:], device=compute.device)
    _synchronize(compute)
    began = time.perf_counter()
    with compute.autocast():
        logits = model(images)
    loss_fn(logits, target).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    _synchronize(compute)
    return time.perf_counter() - began


def _synchronize(compute: Device) -> None:
    import torch

    if compute.device.type != "cpu":
        torch.accelerator.synchronize(compute.device)


def compare(options: argparse.Namespace) -> None:
    """Measure the variants and print a table."""
    import torch
    import yaml
    from rich.console import Console
    from rich.table import Table

    from segtune.cli.help import config_folder
    from segtune.config.model_settings import BackboneSettings, DeepLabV3PlusSettings
    from segtune.config.training_settings import PhaseSettings, TrainSettings
    from segtune.models.build import build_model
    from segtune.runtime.device import Device, resolve_device

    taps = yaml.safe_load((config_folder() / "taps" / f"{options.backbone}_deeplabv3plus.yaml").read_text("utf-8"))
    built = build_model(BackboneSettings(options.backbone, "none"), taps, DeepLabV3PlusSettings())
    compute = resolve_device(TrainSettings(device=options.device))
    shape = (options.batch, 3, options.size, options.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=compute.device)
    phases = {
        "everything trains": PhaseSettings(epochs=1, lr=1e-5),
        "backbone frozen": PhaseSettings(epochs=1, lr=1e-5, backbone=0),
    }
    precisions = dict.fromkeys((torch.float32, compute.dtype))  # a single one where `auto` is fp32
    places = [Device(compute.device, dtype) for dtype in precisions]
    variants = {f"{name}, {at.precision}": (at, phase) for name, phase in phases.items() for at in places}
    best = dict.fromkeys(variants, float("inf"))
    for number in range(options.rounds + 1):
        for name, (at, phase) in variants.items():
            seconds = step_seconds(built, at, phase, images)
            if number:  # the first round warms up
                best[name] = min(best[name], seconds)
    reference = next(iter(best.values()))
    table = Table(
        title=f"{options.backbone} + deeplabv3plus, {options.size} px, batches of {options.batch}, {compute.device}"
    )
    for heading in ("variant", "images/s", "ratio"):
        table.add_column(heading)
    for name, seconds in best.items():
        table.add_row(name, f"{options.batch / seconds:.1f}", f"{reference / seconds:.2f}")
    Console().print(table)


def main() -> int:
    """Parse the command line and compare; return 2 for a user error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", nargs="?", default="xception", choices=("xception", "resnet50", "vgg16"))
    parser.add_argument("size", nargs="?", type=int, default=256, help="side of the images in pixels (default: 256)")
    parser.add_argument("batch", nargs="?", type=int, default=8, help="images of a step (default: 8)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each variant that count (default: 5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    options = parser.parse_args()
    if options.batch < 2 or options.size < 1 or options.rounds < 1:  # BatchNorm after pooling needs two values
        parser.error(
            f"got a batch of {options.batch}, a size of {options.size} and {options.rounds} rounds; "
            "expected a batch of 2 or more, and a size and rounds of 1 or more"
        )
    from segtune.errors import UserError

    try:
        compare(options)
    except UserError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
