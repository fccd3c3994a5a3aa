"""Check freezing against the old-values method: train everything, and put the old values back after every step.

    python tools/old_values.py RUN [--steps 10] [--phase NAME]

Takes the settings and photos of a finished run. Names the tensors that the run has moved since its start. Then it
makes some steps of a phase (the first) both ways, really frozen and with the old values put back, and prints whether
they come to the same, and what a step of each takes. Both ways use plain SGD without clipping, in float32, and keep
frozen modules in evaluation mode: with momentum, a common norm or batch statistics, what is put back would still have
had an effect. Exits with code 1 if the results differ.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segtune.errors import UserError, some

if TYPE_CHECKING:  # PyTorch takes seconds to import, and --help does not need it
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from segtune.config.schema import Settings
    from segtune.models.checkpoint import Checkpoint

    Batch = tuple[Tensor, Tensor]


class Way:
    """A model at the start of a run, and how it makes a step of a phase.

    Args:
        settings: The run's settings.
        name: The phase; None: the first one.
        put_back: Whether everything trains, each tensor at its rate, and the old values of what the phase freezes are
            put back after the step; else only what the phase trains does.

    Raises:
        UserError: The run has no such phase.
    """

    def __init__(self, settings: Settings, name: str | None, put_back: bool) -> None:
        import torch

        from segtune.config.training_settings import OptimizerSettings
        from segtune.losses import build_loss
        from segtune.models.start import build_start
        from segtune.runtime.device import resolve_device
        from segtune.training.freezing import train_mode
        from segtune.training.optim import build_optimizer
        from segtune.training.phases import enter, plan_phases

        torch.manual_seed(settings.seed)
        built, self.device = build_start(settings), resolve_device(settings.train)
        phases = {phase.name: phase for phase in plan_phases(settings, built)}
        if name is not None and name not in phases:
            raise UserError(f"--phase {name}: the run has no such phase; it has {', '.join(phases)}.")
        self.phase = phases[name or next(iter(phases))]
        self.model: nn.Module = self.device.place(built.model)
        enter(built, self.phase)
        train_mode(self.model, self.phase.scope)
        plain = replace(self.phase.settings, optimizer="sgd", weight_decay=0.0)
        sgd = OptimizerSettings("sgd", momentum=0.0)
        self.optimizer = build_optimizer(sgd, self.model, plain, built.blocks)
        self.loss_fn = build_loss(settings.loss)
        self.old: dict[str, Tensor] = {}
        if put_back:
            held = self.phase.scope.holds
            self.old = {k: x.clone() for k, x in self.model.state_dict().items() if not held(k.rpartition(".")[0])}
            frozen = [parameter for parameter in self.model.parameters() if not parameter.requires_grad]
            self.optimizer.add_param_group({"params": frozen, "lr": plain.lr})
            self.model.requires_grad_(True)

    def step(self, batch: Batch) -> None:
        """Make a step."""
        import torch

        torch.manual_seed(0)  # for dropout
        images, masks = (each.to(self.device.device) for each in batch)
        self.loss_fn(self.model(images), masks).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.old:
            self.model.load_state_dict(self.old, strict=False)


def job(settings: Settings, name: str | None, put_back: bool, batch: Batch) -> tuple[Callable[[], None], torch.device]:
    """Return a step for `segtune.runtime.measure`, and its device."""
    way = Way(settings, name, put_back)
    return partial(way.step, batch), way.device.device


def batches(settings: Settings, steps: int) -> list[Batch]:
    """Return training images (N, 3, H, W) and masks (N, 1, H, W) of a run, as uint8, for a number of steps."""
    from segtune.data.dataset import build_dataset
    from segtune.data.loader import EpochBatches, make_loader
    from segtune.data.splits import load_splits

    pairs = load_splits(settings.data, settings.seed, settings.train)["train"]
    dataset = build_dataset(pairs, settings.data, settings.augment, settings.seed)
    order = EpochBatches(len(dataset), settings.train.images_per_batch, settings.seed)
    found: list[Batch] = []
    while len(found) < steps:
        order.epoch += 1
        order.start, order.end = 0, min(order.whole, steps - len(found))
        found += [(each["image"], each["mask"]) for each in make_loader(dataset, order, 0, False)]
    return found


def unlike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that are not equal bit for bit."""
    import torch

    return [name for name, tensor in one.items() if not torch.equal(tensor.cpu(), other[name].cpu())]


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a model's tensors by name."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def compare(checkpoint: Checkpoint, name: str | None, steps: int) -> bool:
    """Print the comparison; return whether both ways come to the same."""
    from segtune.runtime.measure import measure
    from segtune.runtime.paths import find_checkpoint

    settings = checkpoint.settings
    settings = replace(settings, train=replace(settings.train, precision="fp32"))
    if restored := settings.restore.checkpoint:  # a run's folder is said to be one only once
        settings = replace(settings, restore=replace(settings.restore, checkpoint=str(find_checkpoint(restored))))
    way, old_way = (Way(settings, name, put_back) for put_back in (False, True))
    before, photos = tensors(way.model), batches(settings, steps)
    moved = unlike(before, checkpoint.model)
    print(f"The run has moved {len(moved)} of {len(before)} tensors: {some(moved, 6)}.")
    for each in (way, old_way):
        for batch in photos:
            each.step(batch)
    after, by_old_values = tensors(way.model), tensors(old_way.model)
    print(
        f"Phase {way.phase.name}, {steps} steps of plain SGD: really frozen, {len(unlike(before, after))} tensors "
        f"move; with old values put back, {len(unlike(before, by_old_values))}."
    )
    different = unlike(after, by_old_values)
    print(_verdict(different, after, by_old_values))
    print(f"{'a step':<30}{'really frozen':>16}{'old values put back':>22}{'share':>9}")
    cost = [measure(partial(job, settings, name, put_back, photos[0])) for put_back in (False, True)]
    _row("time", "s", [each.seconds for each in cost], ".3f")
    if cost[0].memory is not None and cost[1].memory:
        _row("peak memory", "MB", [(each.memory or 0) / 1e6 for each in cost], ",.0f")
    return not different


def _verdict(different: Sequence[str], after: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    if not different:
        return f"Both come to the same: all {len(after)} tensors are equal bit for bit."
    most = max(float((after[name].double() - other[name].double()).abs().max()) for name in different)
    return f"They DIFFER in {len(different)} tensors, by {most:.3g} at most: {some(different, 6)}."


def _row(what: str, unit: str, values: Sequence[float], form: str) -> None:
    here, there = (f"{value:{form}} {unit}" for value in values)
    print(f"{what:<30}{here:>16}{there:>22}{values[0] / values[1]:>9.0%}")


def main() -> int:
    """Compare; return 1 if the two ways differ, 2 if the run cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--steps", type=int, default=10, help="steps to compare (default: 10)")
    parser.add_argument("--phase", help="the phase to compare (default: the first)")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps: got {options.steps}; expected 1 or more")
    try:
        from segtune.models.checkpoint import Checkpoint

        return int(not compare(Checkpoint.load(options.run), options.phase, options.steps))
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
