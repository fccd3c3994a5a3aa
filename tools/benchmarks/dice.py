"""The time to a validation Dice on skin_ecu: segtune, and a U-Net of smp with Lightning, from the same weights."""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import Figures, Goal, Job, MissingError, Part
from benchmarks.peers import load_peer, make_loader, make_module, make_trainer, pairs_of
from benchmarks.steps import common_words

#: Of segtune's documented settings: taps and phases of experiment=skin, shorter, with features computed once.
_WORDS = (
    *("taps.low=block3_sepconv1_act", "taps.high=block13_sepconv1_act", "cache.mode=disk", "cache.views=1"),
    *("freeze=head_only", "freeze.phases.head.epochs=1"),
    "+freeze.phases.deep={backbone: 8, epochs: 3, lr: 1.0e-3, backbone_lr_scale: 0.2}",
)
#: Epochs of the peer, as in its example; its learning rate falls along a cosine to their end.
_PEER_EPOCHS = 10


def part(options: argparse.Namespace) -> Part:
    """Return segtune and the peer, with judge 7."""
    mine = Job(f"segtune to a validation Dice of {options.dice}", segtune, (options,))
    peer = Job(f"smp U-Net + Lightning to {options.dice}", lightning, (options,))
    goals = [
        Goal(
            "time to the Dice, segtune / smp + Lightning", (mine.name, "seconds"), (peer.name, "seconds"), 0.25, False
        ),
        Goal("the Dice is reached by segtune", (mine.name, "reached"), None, 1, True),
    ]
    return Part([mine, peer], goals, rounds=1)


def segtune(options: argparse.Namespace) -> Figures:
    """Return the seconds from the command to the end of the first epoch that reaches the Dice, at most the patience."""
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    data = (f"data.root={_data(options)}", "train.samples=0", f"cache.folder={folder / 'features'}")
    words = common_words(options, *data, *_WORDS, f"run_dir={folder / 'run'}")
    command = [sys.executable, "-m", "segtune", "train", *words]
    began, epochs = time.perf_counter(), list[float]()
    run = subprocess.Popen(command)
    try:
        while True:
            running = run.poll() is None
            epochs = _dices(folder / "run" / "metrics.csv")
            seconds = time.perf_counter() - began
            if (epochs and max(epochs) >= options.dice) or seconds > options.patience or not running:
                break
            time.sleep(0.1)
    finally:
        run.send_signal(signal.SIGINT)
        run.wait()
    if not epochs and run.returncode not in (0, 130):
        raise RuntimeError(f"segtune ended with exit code {run.returncode}")
    return _figures(seconds, epochs, options)


def _data(options: argparse.Namespace) -> Path:
    if options.small:
        return Path(options.folder / "train")
    shared = os.environ.get("SEGTUNE_SHARED")
    if not shared or not (found := Path(shared).resolve() / "data" / "skin_ecu").is_dir():
        raise MissingError("it needs skin_ecu in the folder SEGTUNE_SHARED")
    return found


def _dices(metrics: Path) -> list[float]:
    if not metrics.exists():
        return []
    with metrics.open(encoding="utf-8") as file:
        return [float(row["val_dice"]) for row in csv.DictReader(file) if row["val_dice"]]


def _figures(seconds: float, epochs: list[float], options: argparse.Namespace) -> Figures:
    reached = bool(epochs) and max(epochs) >= options.dice
    best = max(epochs, default=0.0)
    return {"seconds": seconds, "reached": float(reached), "epochs": float(len(epochs)), "best_dice": best}


def lightning(options: argparse.Namespace) -> Figures:
    """Return the seconds from before the imports to the end of the first epoch that reaches the Dice, or to the end."""
    began, epochs, moments = time.perf_counter(), list[float](), list[float]()
    smp = load_peer("segmentation_models_pytorch")
    load_peer("lightning")
    from datetime import timedelta

    from safetensors.torch import load_file

    def on_dice(dice: float) -> bool:
        epochs.append(dice)
        moments.append(time.perf_counter() - began)
        print(f"epoch {len(epochs)}: validation Dice {dice:.4f} after {moments[-1]:.0f} s", flush=True)
        return bool(dice >= options.dice)

    train, val = (pairs_of(_data(options), split) for split in ("train", "val"))
    network = smp.Unet("xception", encoder_weights=None, in_channels=3, classes=1)
    weights = {name: value for name, value in load_file(options.weights).items() if not name.startswith("fc.")}
    network.encoder.load_state_dict(weights)
    steps = _PEER_EPOCHS * -(-len(train) // options.batch)
    module = make_module(network, "xception", steps, on_dice)
    limit = timedelta(seconds=max(1.0, options.patience - (time.perf_counter() - began)))
    trainer = make_trainer(options, max_epochs=_PEER_EPOCHS, max_time=limit)
    loaders = [make_loader(pairs, options, shuffle=pairs is train) for pairs in (train, val)]
    trainer.fit(module, *loaders)
    return _figures(time.perf_counter() - began, epochs, options)
