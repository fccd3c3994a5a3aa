"""Measure segtune on this machine's processor against plain loops and other libraries, and check what it promises.

    python tools/benchmark.py [--only steps peers …] [--rounds N] [--json FILE]

Parts:
  steps   images/s of `segtune train` from files and of plain loops: all trains, head only, cached features
  peers   images/s of segmentation_models_pytorch + Lightning and of fastai, as in their own examples
  sweep   seconds of a sweep of ten jobs over the head, with features kept and without
  loader  images/s of the loader: photos of 12 megapixels and small ones; time and memory from 100 to 10,000 images
  dice    seconds to a validation Dice on skin_ecu: segtune, and smp's U-Net + Lightning from the same weights
  start   seconds to the first optimizer step without the imports, and to the help
  sizes   images/s of plain loops in several sizes, and in fp32

Each thing is measured in a fresh process with nothing beside it; the things of a part take turns, round by round, and
medians count. Peers are installed by: pip install -e '.[bench]'; what is missing or fails is said and left out.
Photos are those of skin_ecu in the folder SEGTUNE_SHARED, else drawn ones. --small is a form of seconds at 64 pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

PARTS = ("steps", "peers", "sweep", "loader", "dice", "start", "sizes")
_SMALL = {
    **{"size": 64, "sizes": [64], "batch": 2, "images": 8, "peer_images": 8, "views": 2, "steps": 1, "rounds": 1},
    **{"jobs": 2, "epochs": 2, "counts": [12, 24], "large": [600, 800], "passed": 24, "dice": 0.0, "patience": 250},
}


def prepare(options: argparse.Namespace) -> tuple[Path, str]:
    """Make photos in the folder, and weights if there are none; return the weights and where the photos are from."""
    from benchmarks.steps import weights_file
    from gpu_check import make_folder

    shared = os.environ.get("SEGTUNE_SHARED")
    options.weights = options.folder / "xception.safetensors"
    if shared and (given := Path(shared) / "weights" / "xception.safetensors").is_file():
        options.weights = given.resolve()
    else:
        weights_file(options)
    (options.folder / "train").mkdir()
    return options.weights, make_folder(options.folder / "train", options.images, different=options.images)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the chosen parts, print the tables, and return all figures."""
    from benchmarks import dice, loader, peers, start, steps, sweep
    from benchmarks.measuring import Results, in_process, machine, new_process
    from benchmarks.tables import show

    parts = {"steps": steps.part, "peers": peers.part, "sweep": sweep.part, "loader": loader.part}
    parts |= {"dice": dice.part, "start": start.part, "sizes": steps.sizes}
    with new_process() if options.small else nullcontext() as pool:
        facts = in_process(machine, options.precision, pool=pool)
        options.weights, photos = in_process(prepare, options, pool=pool)
        results, goals = Results(pool), []
        for name in options.only:
            print(f"{name}:", flush=True)
            part = parts[name](options)
            results.run(part, options.rounds)
            goals += [(name, goal) for goal in part.goals]
    shown = {key: getattr(options, key) for key in ("size", "batch", "images", "small")}
    return show(facts | {"photos": photos} | shown, results, goals)


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a message if an option cannot be used."""
    numbers = (options.rounds or 1, options.size, options.views, options.epochs, options.steps, options.passed)
    if min(*numbers, *options.sizes, *options.large) < 1 or options.patience <= 0:
        parser.error("expected sizes, rounds, steps and the like of 1 or more")
    if options.batch < 2 or min(options.images, options.peer_images) < 2 * options.batch:
        got = f"a batch of {options.batch}, {options.images} images, of peers {options.peer_images}"
        parser.error(f"got {got}; expected a batch of 2 or more, and images for two batches: the first does not count")
    if options.jobs < 2 or options.jobs % 2 or min(options.counts) < 10:
        parser.error(
            f"got {options.jobs} jobs and counts {options.counts}; expected 2, 4, … jobs and counts from 10 on"
        )


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART", help="the parts")
    parser.add_argument("--rounds", type=int, help="rounds of a part (default: 3, of long ones 1)")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels (256)")
    parser.add_argument("--batch", type=int, default=8, help="images of a step (8)")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of segtune (auto)")
    parser.add_argument("--images", type=int, default=160, help="training images of an epoch (160)")
    parser.add_argument("--peer-images", type=int, default=64, help="training images of the peers' epoch (64)")
    parser.add_argument("--views", type=int, default=4, help="epochs, and views, of training from the cache (4)")
    parser.add_argument("--steps", type=int, default=19, help="steps of a plain loop that count (19)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 384], help="sizes of `sizes`")
    parser.add_argument("--jobs", type=int, default=10, help="jobs of the sweep, an even number (10)")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of a job of the sweep (12)")
    parser.add_argument("--large", type=int, nargs=2, default=[3000, 4000], help="height and width of large photos")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 10000], help="numbers of images to load")
    parser.add_argument("--passed", type=int, default=2000, help="images to load at least, in several passes (2000)")
    parser.add_argument("--dice", type=float, default=0.84, help="the validation Dice to reach (0.84)")
    parser.add_argument("--patience", type=float, default=3600, help="seconds after which it is not reached (3600)")
    parser.add_argument("--small", action="store_true", help="a form of seconds, that proves that it runs")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    if options.small:
        vars(options).update(_SMALL)
    check(parser, options)
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder).resolve()
        os.environ["XDG_CACHE_HOME"] = str(options.folder / "cache")  # nothing of earlier runs counts
        facts = measure(options)
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return 1 if facts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
