"""Compare the speed of a training step: precisions, and what freezing saves, side by side in one run.

    python tools/throughput.py [backbone] [image size] [batch size]

Prints pictures per second and the ratio to the reference in the first row: everything trains, in fp32. The variants
take turns, so that a change of the machine's load meets all of them; the best of five rounds counts.
"""

import sys
import time
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table

from segtune.build import BuiltModel, build_loss, build_model, build_optimizer
from segtune.cli import config_folder
from segtune.compute import Compute, choose_compute
from segtune.config import (
    BackboneSettings,
    DeepLabV3PlusSettings,
    LossSettings,
    OptimizerSettings,
    PhaseSettings,
    TrainSettings,
)
from segtune.freezing import choose, freeze, train_mode

ROUNDS = 5


def step_seconds(built: BuiltModel, compute: Compute, phase: PhaseSettings, images: torch.Tensor) -> float:
    """Time one training step, optimizer included."""
    model = built.model.to(compute.device).to(memory_format=torch.channels_last)
    modules = choose(model, "measured", phase, built.blocks)
    freeze(model, modules)
    train_mode(model, modules)
    optimizer = build_optimizer(OptimizerSettings("adamw"), model, phase)
    loss_fn = build_loss(LossSettings("dice_bce"))
    target = torch.zeros(len(images), 1, *images.shape[-2:], device=compute.device)
    began = time.perf_counter()
    with compute.autocast():
        logits = model(images)
    loss_fn(logits, target).backward()
    optimizer.step()
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main(backbone: str = "xception", size: str = "256", batch: str = "8") -> None:
    """Measure and print."""
    taps = yaml.safe_load((Path(config_folder()) / "taps" / f"{backbone}_deeplabv3plus.yaml").read_text())
    built = build_model(BackboneSettings(backbone, "none"), taps, DeepLabV3PlusSettings())
    compute = choose_compute(TrainSettings())
    images = torch.randint(0, 256, (int(batch), 3, int(size), int(size)), dtype=torch.uint8, device=compute.device)
    fp32 = Compute(compute.device, torch.float32)
    variants = {
        "everything trains, fp32": (fp32, PhaseSettings(epochs=1, lr=1e-5)),
        f"everything trains, {compute.precision}": (compute, PhaseSettings(epochs=1, lr=1e-5)),
        "backbone frozen, fp32": (fp32, PhaseSettings(epochs=1, lr=1e-5, backbone=0)),
        f"backbone frozen, {compute.precision}": (compute, PhaseSettings(epochs=1, lr=1e-5, backbone=0)),
    }
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(ROUNDS + 1):  # the first round warms up; it cannot be the best
        for name, (where, phase) in variants.items():
            best[name] = min(best[name], step_seconds(built, where, phase, images))
    reference = best[next(iter(variants))]
    table = Table(title=f"{backbone} + deeplabv3plus, {size} px, batches of {batch}, {compute.device}")
    for heading in ("variant", "pictures/s", "ratio"):
        table.add_column(heading)
    for name, seconds in best.items():
        table.add_row(name, f"{int(batch) / seconds:.1f}", f"{reference / seconds:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
