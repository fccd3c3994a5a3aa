"""Runs and sweeps as files, as training leaves them, without a training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segtune.runtime.sweep_files import SweepJob, SweepRecord, write_failure, write_sweep


def write_run(
    folder: Path,
    dice: float | None = None,
    *,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    dices: Sequence[float] = (0.1, 0.25),
    scores: Mapping[str, float] | None = None,
    failure: Mapping[str, Any] | None = None,
    **summary: Any,
) -> Path:
    """Write what the leaderboard reads of a run, and return its folder.

    Args:
        folder: Its folder.
        dice: Its validation Dice; None: it is not finished.
        overrides: The words of its command line behind `train`.
        settings: The content of config.yaml; None: a seed alone.
        dices: The Dice of the epochs.
        scores: The Dice of each validation image by name; these have the interval 0.1 to 0.9.
        failure: The content of failure.json.
        summary: More of summary.json.
    """
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.pt").touch()
    command = f"# python -m segtune train {' '.join(overrides)}\n" if overrides else ""
    plain = yaml.safe_dump({"seed": 3} if settings is None else dict(settings))
    (folder / "config.yaml").write_text(command + plain, encoding="utf-8")
    rows = "".join(f"{epoch},{each}\n" for epoch, each in enumerate(dices, start=1))
    (folder / "metrics.csv").write_text(f"epoch,val_dice\n{rows}", encoding="utf-8")
    if failure is not None:
        (folder / "failure.json").write_text(json.dumps(failure), encoding="utf-8")
    if dice is not None:
        told = {"val_dice": dice, "best_epoch": len(dices), "epochs": len(dices), "seconds": 90.0, "parameters": 7}
        (folder / "summary.json").write_text(json.dumps(told | summary), encoding="utf-8")
        (folder / "report.html").write_text("of the run", encoding="utf-8")
    if scores is not None:
        facts = {"split": "val", "dice_mean": dice, "intervals": {"dice_mean": [0.1, 0.9]}}
        (folder / "evaluation.json").write_text(json.dumps(facts), encoding="utf-8")
        images = "".join(f"{name},{each},5,1\n" for name, each in scores.items())
        (folder / "per_image.csv").write_text(f"name,dice,tp,fn\n{images}", encoding="utf-8")
    return folder


def jobs_of(overrides: Sequence[Sequence[str]]) -> tuple[SweepJob, ...]:
    """Return the jobs of a sweep with these overrides."""
    return tuple(SweepJob(number, str(number), tuple(each)) for number, each in enumerate(overrides))


def write_six(folder: Path) -> Path:
    """Write a sweep of six jobs: three finished, one failed, one interrupted, one not started; return its folder."""
    words = [[f"backbone={b}", f"lr={lr}"] for b in ("vgg16", "resnet50") for lr in ("1e-4", "1e-3", "1e-2")]
    line = "python -m segtune train -m backbone=vgg16,resnet50 lr=1e-4,1e-3,1e-2"
    write_sweep(folder, SweepRecord(line, jobs_of(words)))
    for number, dice in enumerate((0.5, 0.7, None, 0.6, None)):
        if number != 2:
            backbone, rate = (word.partition("=")[2] for word in words[number])
            settings = {"seed": 0, "backbone": {"name": backbone}, "freeze": {"phases": {"all": {"lr": float(rate)}}}}
            scores = {"a": dice - 0.1, "b": dice + 0.1} if dice else None
            write_run(
                folder / str(number),
                dice,
                overrides=words[number],
                settings=settings,
                scores=scores,
                seconds=60.0 + number,
            )
    write_failure(folder / "2", "Out of memory.", "StoppedError", words[2], "python -m …")
    return folder
