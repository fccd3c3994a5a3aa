"""Compare the probe's order of tap maps with the order after training: the rank correlation that docs/probe.md quotes.

    python tools/rank_taps.py --folder runs/rank -- backbone=xception backbone.weights=W data=folder data.root=D

Five tap maps for DeepLabV3+ on Xception are probed together, then each is trained for the same short budget with a
frozen backbone. What stands behind -- goes to all commands. Trainings that are there already are not repeated.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

MAPS = {
    "default": ("block3.rep.0", "block8.rep.6"),
    "skin": ("block2.rep.0", "block12.rep.0"),  # of experiment=skin
    "shallow": ("block1.add", "block4.rep.0"),
    "deep": ("block3.rep.0", "act4"),
    "recommended": ("act2", "block11.add"),  # what the probe recommends on skin_ecu
}
BUDGET = ("freeze=head_only", "freeze.phases.head.epochs=4", "data.limit=200", "train.samples=0")


def segtune(*arguments: str) -> None:
    """Run a command of segtune."""
    print("segtune", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "segtune", *arguments], check=True)


def ranks(values: list[float]) -> np.ndarray:
    """Give ranks from 0; equal values share their mean rank."""
    ordered = np.sort(values)
    return np.array([np.mean(np.flatnonzero(ordered == value)) for value in values])


def main() -> None:
    """Probe, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs go")
    parser.add_argument("--seed", default="0")
    parser.add_argument("settings", nargs="*", help="settings of all commands, after --")
    arguments = parser.parse_args()
    folder, common = arguments.folder, (*arguments.settings, f"seed={arguments.seed}")
    if not (folder / "probe" / "probe.csv").exists():
        compare = [f"+compare.{name}=[{','.join(layers)}]" for name, layers in MAPS.items()]
        segtune("probe", *common, *compare, f"run_dir={folder / 'probe'}")
    with (folder / "probe" / "probe.csv").open(encoding="utf-8") as file:
        probed = {row["layers"]: float(row["dice"]) for row in csv.DictReader(file)}
    for name, (low, high) in MAPS.items():
        run = folder / f"{name}-{arguments.seed}"
        if not (run / "summary.json").exists():
            segtune("train", *common, *BUDGET, f"taps.low={low}", f"taps.high={high}", f"run_dir={run}")
    trained = {
        name: json.loads((folder / f"{name}-{arguments.seed}" / "summary.json").read_text(encoding="utf-8"))["val_dice"]
        for name in MAPS
    }
    by_probe = {name: probed[" + ".join(layers)] for name, layers in MAPS.items()}
    for name, layers in MAPS.items():
        print(f"{name:<14}{' + '.join(layers):<32} probe {by_probe[name]:.4f}  trained {trained[name]:.4f}")
    order = np.corrcoef(ranks(list(by_probe.values())), ranks(list(trained.values())))[0, 1]
    print(f"Spearman's rank correlation: {order:.2f}")


if __name__ == "__main__":
    main()
