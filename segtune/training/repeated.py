"""What tells a run from the one that it repeats: data, versions and device at its start, weights at its end."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from segtune.data.record import DataRecord
from segtune.data.sources.base import Pair
from segtune.errors import UserError
from segtune.models.checkpoint import Checkpoint
from segtune.training.resume_rules import data_changes
from segtune.training.run_folder import read_command


def differences(before: Path, splits: Mapping[str, Sequence[Pair]], now: Mapping[str, str]) -> list[str]:
    """Return in sentences what beside settings tells a run that begins from an earlier one.

    Args:
        before: The folder of the earlier run.
        splits: The checked pairs of `train` and `val` of the new one.
        now: What `environment.json` will hold of it.
    """
    found = []
    try:
        had = DataRecord.parse(json.loads((before / "data.json").read_text(encoding="utf-8")), "data.json").splits
        if changes := data_changes(had, DataRecord.of(splits).splits):
            found.append("\n".join([f"The data are not those of {before}:", *changes]))
    except (OSError, ValueError, AttributeError, UserError):
        found.append(f"{before} has no record of its data (data.json), so it is not checked that they are the same.")
    try:
        then = dict(json.loads((before / "environment.json").read_text(encoding="utf-8")))
        if other := [f"{name} {then[name]}, now {now[name]}" for name in now if then.get(name, now[name]) != now[name]]:
            found.append(f"{before} was trained with {'; '.join(other)}. The results may differ.")
    except (OSError, ValueError, TypeError):
        found.append(f"{before} has no record of versions and device (environment.json), so they are not compared.")
    if " resume=" in read_command(before):
        found.append(f"{before} was resumed with other settings, which the new run has from its beginning.")
    return found


def outcome(before: Path, folder: Path) -> str:
    """Return the sentence on whether the best model of a run is that of the run that it repeats."""
    try:
        one, other = (Checkpoint.load(each / "checkpoints" / "best.pt").model for each in (before, folder))
    except UserError:
        return f"{before} has no best.pt to compare the result with."
    same = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    return (
        f"The weights of best.pt are {'those' if same else 'not those'} of {before}{', bit for bit' if same else ''}."
    )
