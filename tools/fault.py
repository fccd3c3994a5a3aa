"""Fault test: kill a training again and again, resume it each time, and compare its end with an undisturbed run's.

    python tools/fault.py [--kills 25] [--signal KILL|TERM] [--seed 0] [--folder DIR] [--fresh]

The training is small, but has all that state hides in: three phases (two of them freeze, one counts in steps, one ends
on a plateau), dropout, augmentation, accumulated gradients, a last batch of one picture, saves within epochs. Kills
come at random moments over the whole run; every second one as soon as a checkpoint is being written. Prints a line for
each, and ends with exit code 1 if anything differs: weights, optimizer, schedule, rows, best checkpoint, pictures.

Processes are forked from this one, where everything is imported already, which saves their start-up; with `--fresh`
each is a new interpreter. For Linux and macOS.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from compare_runs import being_written, differences, load

from segtune.errors import UserError

BATCHES = 11  # an epoch: 21 pictures by two
#: The processes' surroundings: one thread, since the order of sums depends on their number.
ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


class FaultError(Exception):
    """A process did not do what it should; the message holds the end of its log."""


@dataclass(frozen=True)
class Place:
    """Where `last.pt` stands: `epoch` counts the finished ones of the phase, `done` all batches so far."""

    phase: str
    epoch: int
    step: int
    done: int


@dataclass(frozen=True)
class Kill:
    """A kill that met a running training: `writing` names the files that were being written."""

    signal: str
    place: Place
    writing: tuple[str, ...]

    @property
    def in_checkpoint(self) -> bool:
        """Whether a checkpoint was being written."""
        return any(name.endswith(".pt") for name in self.writing)


def prepare(folder: Path) -> list[str]:
    """Make data and a weights file in `folder`; return the settings of the training."""
    import torch
    from safetensors.torch import save_file

    import segtune.commands.train  # noqa: F401 - once, for all the processes
    from segtune.models.backbones.registry import BACKBONES

    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / "discs" / name).mkdir(parents=True, exist_ok=True)
    for i in range(26):
        mask = np.zeros((70 + i % 7, 90 - i), np.uint8)
        cv2.circle(mask, (20 + 2 * i, 35), 10 + i % 9, 255, -1)
        photo = generator.integers(0, 120, (*mask.shape, 3)).astype(np.uint8) + (mask > 0)[..., None] * np.uint8(100)
        cv2.imwrite(str(folder / "discs" / "images" / f"disc{i:02d}.png"), photo)
        cv2.imwrite(str(folder / "discs" / "masks" / f"disc{i:02d}.png"), mask)
    for split, numbers in {"train": range(21), "val": range(21, 25), "test": range(25, 26)}.items():
        (folder / "discs" / f"{split}.txt").write_text("".join(f"disc{i:02d}\n" for i in numbers))
    torch.manual_seed(0)
    save_file(BACKBONES["resnet50"].build().state_dict(), folder / "weights.safetensors")
    return [
        "data=folder",
        f"data.root={folder / 'discs'}",
        "data.image_size=64",
        "backbone=resnet50",
        f"backbone.weights={folder / 'weights.safetensors'}",
        "taps.low=layer1.0.act2",
        "taps.high=layer1.2.act2",
        "decoder.channels=16",
        "decoder.low_channels=8",
        "freeze=none",
        "~freeze.phases.all",
        "+freeze.phases.head={backbone: 0, epochs: 4, lr: 3e-3}",
        "+freeze.phases.deep={backbone: 1, steps: 20, lr: 1e-3, backbone_lr_scale: 0.3, optimizer: sgd}",
        "+freeze.phases.all={backbone: all, epochs: 8, until: plateau, patience: 3, lr: 1e-3, layer_decay: 0.5}",
        "train.batch_size=2",
        "train.accumulate=2",
        "train.samples=2",
        "train.precision=fp32",
        "train.device=cpu",
        "checkpoint.minutes=0.002",
    ]


def start(arguments: Sequence[str], log: Path, *, fresh: bool = False) -> int:
    """Start `segtune train` in a process of its own and return its number; what it prints goes to `log`."""
    sys.stdout.flush()
    log.touch()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sys.stdout = sys.stderr = log.open("w", buffering=1)
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        os.environ.update(ALONE)
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", "segtune", "train", *arguments])
        import torch

        from segtune.cli import main as cli

        # Like a new interpreter, it must not owe its numbers to the generators it was born with.
        random.seed(), np.random.seed(), torch.seed()
        torch.set_num_threads(1)
        code = cli.main("train", list(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def undisturbed(folder: Path, settings: Sequence[str], *, fresh: bool = False) -> Place:
    """Train without a fault, and return how far that goes.

    Raises:
        FaultError: The training failed.
    """
    log = Path(f"{folder}.log")
    if code := _end(start([*settings, "train.workers=0", f"run_dir={folder}"], log, fresh=fresh)):
        raise _failed(log, f"the undisturbed run ended with exit code {code}")
    return place_of(folder)


def disturbed(
    folder: Path,
    settings: Sequence[str],
    signals: Sequence[signal.Signals],
    total: int,
    seed: int,
    tell: Callable[[Kill], None] = lambda _: None,
    *,
    fresh: bool = False,
) -> list[Kill]:
    """Train with a fault for each of the `signals`, and then to the end.

    Args:
        folder: The run's folder, which does not exist.
        settings: The training's settings.
        signals: What is sent, one after the other.
        total: Batches of the whole run.
        seed: The moments follow from it, as far as the machine's haste allows.
        tell: Is told of every kill.
        fresh: Start a new interpreter each time.

    Returns:
        The kills that met a running training: fewer than asked for if it ended before.

    Raises:
        FaultError: A process did not end as it should, or `last.pt` fell back.
        UserError: `last.pt` was not whole.
    """
    generator = np.random.default_rng(seed)
    marks = (np.arange(len(signals)) + generator.uniform(size=len(signals))) / len(signals) * 0.97 * total
    kills = list[Kill]()
    for number, (mark, sent) in enumerate(zip(marks, signals, strict=True)):
        log, goal = Path(f"{folder}.{number}.log"), f"resume={folder}" if kills else f"run_dir={folder}"
        more = [] if kills else settings
        child = start([*more, f"train.workers={number % 2}", goal], log, fresh=fresh)
        seen = _await_moment(child, folder, log, mark, generator.uniform(0, 0.4), at_write=number % 2 == 0)
        os.kill(child, sent)
        code = _end(child)
        if (folder / "summary.json").exists():  # it had ended before
            return kills
        if code != (-sent if sent == signal.SIGKILL else 130):
            raise _failed(log, f"{sent.name} was answered with exit code {code}")
        kills.append(Kill(sent.name, place_of(folder), being_written(folder) if sent == signal.SIGKILL else seen))
        tell(kills[-1])
        if kills[-1].place.done < max(kill.place.done for kill in kills):
            raise FaultError(f"last.pt fell back to batch {kills[-1].place.done}")
    log = Path(f"{folder}.log")
    if code := _end(start([f"resume={folder}", "train.workers=0"], log, fresh=fresh)):
        raise _failed(log, f"the last resume ended with exit code {code}")
    return kills


def place_of(folder: Path) -> Place:
    """Return where a run's `last.pt` stands; it must be whole, or this fails."""
    state = load(folder, "last.pt")["state"]
    done = len(state["rows"]) * BATCHES + state["step"]
    return Place(list(state["phases"])[state["phase"]], state["epoch"], state["step"], done)


def main() -> int:
    """Run the fault test and print what it finds; 1 if there is a difference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the runs here; else in a temporary folder")
    parser.add_argument("--fresh", action="store_true", help="start a new interpreter each time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return _compare(options, (options.folder or Path(temporary)).resolve())
        except (FaultError, UserError) as error:  # the latter of a checkpoint that cannot be read
            print(error)
            return 1


def _compare(options: argparse.Namespace, folder: Path) -> int:
    began, sent = time.perf_counter(), signal.Signals[f"SIG{options.signal}"]
    settings = prepare(folder)
    end = undisturbed(folder / "undisturbed", settings, fresh=options.fresh)
    print(f"undisturbed: {end.done} batches", flush=True)
    kills, found = list[Kill](), list[str]()

    def tell(kill: Kill) -> None:
        at, writing = kill.place, ", ".join(kill.writing) or "nothing"
        stands = f"{at.phase}, {at.epoch} epochs and {at.step:2} batches"
        print(f"{kill.signal}  last.pt: {stands}  being written: {writing}", flush=True)

    for attempt in range(5):  # a run may end before its last kill: then another one takes the rest
        run, left = folder / f"disturbed{attempt}", [sent] * (options.kills - len(kills))
        kills += disturbed(run, settings, left, end.done, options.seed + attempt, tell, fresh=options.fresh)
        found += differences(folder / "undisturbed", run)
        if len(kills) == options.kills:
            break
    hits, phases = sum(kill.in_checkpoint for kill in kills), [kill.place.phase for kill in kills]
    each = ", ".join(f"{phases.count(phase)} in {phase}" for phase in dict.fromkeys(phases))
    print(f"{len(kills)} kills by {sent.name} ({each}), {hits} of them while a checkpoint was being written")
    print(f"{attempt + 1} runs killed, {len(found)} differences, {time.perf_counter() - began:.0f} s")
    print("\n".join(found))
    return int(bool(found) or len(kills) < options.kills or 3 * hits < len(kills))


def _await_moment(child: int, folder: Path, log: Path, mark: float, pause: float, *, at_write: bool) -> tuple[str, ...]:
    """Wait until `last.pt` has come to a `mark`, in batches, and `pause` seconds; if wanted, until one is written.

    Returns the names of what is being written.
    """
    last, seen, done = folder / "checkpoints" / "last.pt", 0, -1
    while not _ended(child) and (done < mark or "phase " not in log.read_text()):
        if last.exists() and (now := last.stat().st_mtime_ns) != seen:
            seen, done = now, place_of(folder).done
        time.sleep(0.02)
    until = time.perf_counter() + pause
    while not _ended(child) and time.perf_counter() < until:
        time.sleep(0.002)
    while at_write and not _ended(child) and not any(name.endswith(".pt") for name in being_written(folder)):
        time.sleep(0.0002)
    return being_written(folder)


def _ended(child: int) -> bool:
    """Return whether a process has ended, without taking its exit code away."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _failed(log: Path, what: str) -> FaultError:
    return FaultError(f"{what}; its log ends:\n{log.read_text()[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
