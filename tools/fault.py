"""Fault test: kill a training run repeatedly, resume it each time, and compare the result with an undisturbed run.

    python tools/fault.py [--kills 25] [--signal KILL|TERM] [--seed 0] [--folder DIR] [--fresh]

The run is small but covers everything that has state: three phases (two freeze, one is counted in steps, one ends on a
plateau), dropout, augmentation, kept features, accumulated gradients, a last batch of one image, checkpoints within
epochs. Kills come at random times over the whole run, every second one while a checkpoint is being written. Prints a
line for each kill, and exits with code 1 if anything differs: weights, optimizer, schedule, metrics, best checkpoint,
samples.

Processes are forked from this one, which has imported everything, to save their start-up; with `--fresh` each is a new
interpreter. For Linux and macOS.
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

BATCHES = 11  # of an epoch: 21 images in batches of two
#: Environment of the processes: one thread, since the order of summation depends on the number of threads.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


class FaultError(Exception):
    """A process did not behave as expected; the message holds the end of its log."""


@dataclass(frozen=True)
class Position:
    """The progress saved in `last.pt`: `epoch` counts the finished epochs of the phase, `done` all batches so far."""

    phase: str
    epoch: int
    step: int
    done: int


@dataclass(frozen=True)
class Kill:
    """A kill that hit a running training run: `writing` names the files that were being written."""

    signal: str
    position: Position
    writing: tuple[str, ...]

    @property
    def in_checkpoint(self) -> bool:
        """Whether a checkpoint was being written."""
        return any(name.endswith(".pt") for name in self.writing)


def prepare(folder: Path) -> list[str]:
    """Write data and a weights file to `folder`; return the settings of the training run."""
    import torch
    from safetensors.torch import save_file

    import segtune.commands.train  # noqa: F401 - imported once, for all processes
    from segtune.models.backbones.registry import BACKBONES

    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / "discs" / name).mkdir(parents=True, exist_ok=True)
    for i in range(26):
        mask = np.zeros((70 + i % 7, 90 - i), np.uint8)
        cv2.circle(mask, (20 + 2 * i, 35), 10 + i % 9, 255, -1)
        image = generator.integers(0, 120, (*mask.shape, 3)).astype(np.uint8) + (mask > 0)[..., None] * np.uint8(100)
        cv2.imwrite(str(folder / "discs" / "images" / f"disc{i:02d}.png"), image)
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
        "cache.mode=disk",  # shared by all runs, so a kill may leave part of it
        "cache.views=2",
        f"cache.folder={folder / 'cache'}",
        "train.batch_size=2",
        "train.accumulate=2",
        "train.samples=2",
        "train.precision=fp32",
        "train.device=cpu",
        "checkpoint.minutes=0.002",
    ]


def start(arguments: Sequence[str], log: Path, *, fresh: bool = False) -> int:
    """Start `segtune train` in a new process and return its ID; its output goes to `log`."""
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
        os.environ.update(ONE_THREAD)
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", "segtune", "train", *arguments])
        import torch

        from segtune.cli import main as cli

        # As in a new interpreter, the random state must not be inherited.
        random.seed(), np.random.seed(), torch.seed()
        torch.set_num_threads(1)
        code = cli.main("train", list(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def undisturbed(folder: Path, settings: Sequence[str], *, fresh: bool = False) -> Position:
    """Train without a fault, and return the final position.

    Raises:
        FaultError: The training run failed.
    """
    log = Path(f"{folder}.log")
    if code := _end(start([*settings, "train.workers=0", f"run_dir={folder}"], log, fresh=fresh)):
        raise _failed(log, f"the undisturbed run ended with exit code {code}")
    return position_of(folder)


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
    """Train with a fault for each of the `signals`, then to the end.

    Args:
        folder: The run folder, which must not exist.
        settings: The settings of the training run.
        signals: The signals to send, one after the other.
        total: Number of batches of the whole run.
        seed: Seed of the times of the kills, which also depend on the machine's speed.
        tell: Called with every kill.
        fresh: Start a new interpreter each time.

    Returns:
        The kills that hit a running training run: fewer than requested if it ended before.

    Raises:
        FaultError: A process ended unexpectedly, or `last.pt` went back.
        UserError: `last.pt` was incomplete.
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
            raise _failed(log, f"after {sent.name} the process ended with exit code {code}")
        kills.append(Kill(sent.name, position_of(folder), being_written(folder) if sent == signal.SIGKILL else seen))
        tell(kills[-1])
        if kills[-1].position.done < max(kill.position.done for kill in kills):
            raise FaultError(f"last.pt went back to batch {kills[-1].position.done}")
    log = Path(f"{folder}.log")
    if code := _end(start([f"resume={folder}", "train.workers=0"], log, fresh=fresh)):
        raise _failed(log, f"the last resume ended with exit code {code}")
    return kills


def position_of(folder: Path) -> Position:
    """Return the position saved in a run's `last.pt`; fail if the file is incomplete."""
    state = load(folder, "last.pt")["state"]
    done = len(state["rows"]) * BATCHES + state["step"]
    return Position(list(state["phases"])[state["phase"]], state["epoch"], state["step"], done)


def main() -> int:
    """Run the fault test and print its result; return 1 if there is a difference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="number of kills (default: 25)")
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL", help="(default: KILL)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times of the kills (default: 0)")
    parser.add_argument("--folder", type=Path, help="keep the runs here (default: a temporary folder)")
    parser.add_argument("--fresh", action="store_true", help="start a new interpreter each time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return _compare(options, (options.folder or Path(temporary)).resolve())
        except (FaultError, UserError) as error:  # UserError: a checkpoint cannot be read
            print(error)
            return 1


def _compare(options: argparse.Namespace, folder: Path) -> int:
    began, sent = time.perf_counter(), signal.Signals[f"SIG{options.signal}"]
    settings = prepare(folder)
    end = undisturbed(folder / "undisturbed", settings, fresh=options.fresh)
    print(f"undisturbed: {end.done} batches", flush=True)
    kills, found = list[Kill](), list[str]()

    def tell(kill: Kill) -> None:
        at, writing = kill.position, ", ".join(kill.writing) or "nothing"
        saved = f"{at.phase}, {at.epoch} epochs and {at.step:2} batches"
        print(f"{kill.signal}  last.pt: {saved}  being written: {writing}", flush=True)

    for attempt in range(5):  # if a run ends before its last kill, another one gets the rest
        run, left = folder / f"disturbed{attempt}", [sent] * (options.kills - len(kills))
        kills += disturbed(run, settings, left, end.done, options.seed + attempt, tell, fresh=options.fresh)
        found += differences(folder / "undisturbed", run)
        if len(kills) == options.kills:
            break
    hits, phases = sum(kill.in_checkpoint for kill in kills), [kill.position.phase for kill in kills]
    each = ", ".join(f"{phases.count(phase)} in {phase}" for phase in dict.fromkeys(phases))
    print(f"{len(kills)} kills by {sent.name} ({each}), {hits} of them while a checkpoint was being written")
    print(f"{attempt + 1} runs killed, {len(found)} differences, {time.perf_counter() - began:.0f} s")
    print("\n".join(found))
    return int(bool(found) or len(kills) < options.kills or 3 * hits < len(kills))


def _await_moment(child: int, folder: Path, log: Path, mark: float, pause: float, *, at_write: bool) -> tuple[str, ...]:
    """Wait until `last.pt` has reached batch `mark`, then `pause` seconds, then for a write if `at_write` is set.

    Returns:
        The names of the files being written.
    """
    last, seen, done = folder / "checkpoints" / "last.pt", 0, -1
    while not _ended(child) and (done < mark or "phase " not in log.read_text()):
        if last.exists() and (now := last.stat().st_mtime_ns) != seen:
            seen, done = now, position_of(folder).done
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
