"""Compare the probe's ranking of tap maps with the ranking after training: the rank correlation in docs/probe.md.

    python tools/rank_taps.py --folder runs/rank -- backbone=xception backbone.weights=W data=folder data.root=D

Five tap maps for DeepLabV3+ on Xception are probed together, then each is trained for the same short budget with a
frozen backbone. Settings after -- are passed to all commands. Training runs that exist already are not repeated.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segtune.runtime.files import read_rows

MAPS = {
    "default": ("block3.rep.0", "block8.rep.6"),
    "skin": ("block2.rep.0", "block12.rep.0"),  # of experiment=skin
    "shallow": ("block1.add", "block4.rep.0"),
    "deep": ("block3.rep.0", "act4"),
    "recommended": ("act2", "block11.add"),  # what the probe recommends on skin_ecu
}


def segtune(*arguments: str) -> None:
    """Run a command of segtune."""
    print("segtune", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "segtune", *arguments], check=True)


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Return ranks from 0; equal values get their mean rank."""
    ordered = np.sort(values)
    return np.array([np.mean(np.flatnonzero(ordered == value)) for value in values])


def probe(folder: Path, maps: Sequence[str], settings: Sequence[str]) -> dict[str, float]:
    """Run the probe unless its results exist; return its Dice of each map."""
    if not (folder / "probe.csv").exists():
        compare = [f"+compare.{name}=[{','.join(MAPS[name])}]" for name in maps]
        segtune("probe", *settings, *compare, f"run_dir={folder}")
    probed = {row["layers"]: float(row["dice"]) for row in read_rows(folder / "probe.csv")}
    return {name: probed[" + ".join(MAPS[name])] for name in maps}


def train(folder: Path, name: str, settings: Sequence[str]) -> float:
    """Train briefly with a map unless the run exists; return its best validation Dice."""
    low, high = MAPS[name]
    if not (folder / "summary.json").exists():
        segtune("train", *settings, f"taps.low={low}", f"taps.high={high}", f"run_dir={folder}")
    return float(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["val_dice"])


def main() -> int:
    """Probe, train, compare; return 1 if a command failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seed", default="0", help="(default: 0)")
    parser.add_argument("--maps", nargs="+", choices=MAPS, default=list(MAPS), help="the tap maps (default: all)")
    parser.add_argument("--epochs", type=int, default=4, help="of each training run (default: 4)")
    parser.add_argument("--images", type=int, default=200, help="of each training run (default: 200)")
    parser.add_argument("settings", nargs="*", help="settings of all commands, after --")
    options = parser.parse_args()
    folder, common = options.folder, (*options.settings, f"seed={options.seed}")
    budget = ("freeze=head_only", f"freeze.phases.head.epochs={options.epochs}", f"data.limit={options.images}")
    try:
        by_probe = probe(folder / "probe", options.maps, common)
        trained = {
            name: train(folder / f"{name}-{options.seed}", name, (*common, *budget, "train.samples=0"))
            for name in options.maps
        }
    except subprocess.CalledProcessError as error:
        print(f"{parser.prog}: segtune ended with exit code {error.returncode}", file=sys.stderr)
        return 1
    for name in options.maps:
        print(f"{name:<14}{' + '.join(MAPS[name]):<32} probe {by_probe[name]:.4f}  trained {trained[name]:.4f}")
    order = np.corrcoef(ranks(list(by_probe.values())), ranks(list(trained.values())))[0, 1]
    print(f"Spearman's rank correlation: {order:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
