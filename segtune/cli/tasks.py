"""One task per command: parse its settings, then import and call it."""

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from segtune.cli.compose import command_line, job_folder, output_folder, to_plain
from segtune.cli.recorded import run_folder
from segtune.config.command_settings import (
    CacheCommandSettings,
    CheckSettings,
    EvaluateSettings,
    EvaluationDataSettings,
    ExportSettings,
    PlanSettings,
    PredictSettings,
    ProbeSettings,
    ReportSettings,
    TapsSettings,
)
from segtune.config.data_settings import DataSettings
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.runtime.paths import expanded, find_checkpoint, find_data_folder, find_folder, is_file, is_folder

#: The value of `resume` that begins a run, or goes on with the one that is there.
AUTO = "auto"

# Each task imports its command last: PyTorch takes seconds, and wrong settings and paths are reported before.


def train_settings(config: DictConfig) -> Settings:
    """Return the settings of a run, after looking for what they name: all that can be said before PyTorch is imported.

    Raises:
        UserError: A setting is wrong, or a folder does not exist.
    """
    settings = parse(Settings, to_plain(config, Settings))
    if settings.resume not in (None, AUTO):
        raise UserError("resume must be given on the command line: python -m segtune train resume=RUN")
    if settings.resume and not settings.run_dir:
        raise UserError("resume=auto needs run_dir=…: the folder in which to begin the run, or to go on with it.")
    find_data(settings.data)
    if settings.cache.folder:
        expanded(settings.cache.folder, "cache.folder")  # may be absent, but not below the home of nobody
    return settings


def _train(config: DictConfig) -> float:
    settings = train_settings(config)
    with output_folder(settings, f"{settings.backbone.name}_{settings.decoder.name}") as folder:
        may_go_on = settings.resume is not None or job_folder() is not None
        begun = may_go_on and is_file(folder / "config.yaml")
        repeats = str(run_folder(settings.repeat, "repeat")) if settings.repeat else None
        settings = replace(settings, resume=str(folder) if begun else None, repeat=repeats)
        from segtune.commands.train import train
        from segtune.evaluation.selection import score_of

        if not gc.get_freeze_count():  # in a sweep's first job
            gc.freeze()  # what is imported stays: to look through it for garbage takes longer than to read the weights
        return score_of(train(settings, folder, command_line("train"), **({"unless_finished": True} if begun else {})))


def _evaluate(config: DictConfig) -> None:
    settings = parse(EvaluateSettings, to_plain(config, EvaluateSettings))
    given = settings.checkpoint
    found = _found(given) if isinstance(given, str) else [_found(each) for each in given]
    settings = replace(settings, checkpoint=found)
    find_data(settings.data)
    with output_folder(settings, "evaluate") as folder:
        from segtune.commands.evaluate import evaluate

        evaluate(settings, folder, command_line("evaluate"))


def _plan(config: DictConfig) -> None:
    if OmegaConf.is_missing(config.data, "root"):
        config.data.root = None  # a plan reads no data
    settings = parse(PlanSettings, to_plain(config, PlanSettings))
    from segtune.commands.plan import plan

    plan(settings)


def _taps(config: DictConfig) -> None:
    if OmegaConf.is_missing(config.data, "root"):
        config.data.root = None  # no data is read
    settings = parse(TapsSettings, to_plain(config, TapsSettings))
    from segtune.commands.taps import taps

    taps(settings)


def _probe(config: DictConfig) -> None:
    settings = parse(ProbeSettings, to_plain(config, ProbeSettings))
    find_data(settings.data)
    with output_folder(settings, f"probe_{settings.backbone.name}") as folder:
        from segtune.commands.probe import probe

        probe(settings, folder)


def _check(config: DictConfig) -> None:
    settings = parse(CheckSettings, to_plain(config, CheckSettings))
    find_data(settings.data)
    with output_folder(settings, "check") as folder:
        from segtune.commands.check import check

        check(settings, folder)


def _predict(config: DictConfig) -> None:
    settings = parse(PredictSettings, to_plain(config, PredictSettings))
    if not settings.checkpoint.lower().endswith(".onnx"):
        settings = replace(settings, checkpoint=_found(settings.checkpoint))
    from segtune.commands.predict import predict

    predict(settings)


def _export(config: DictConfig) -> None:
    settings = parse(ExportSettings, to_plain(config, ExportSettings))
    settings = replace(settings, checkpoint=_found(settings.checkpoint))
    from segtune.commands.export import export

    export(settings)


def _report(config: DictConfig) -> None:
    settings = parse(ReportSettings, to_plain(config, ReportSettings))
    find_folder("folder", settings.folder)
    from segtune.commands.report import report

    report(settings)


def _cache(config: DictConfig) -> None:
    settings = parse(CacheCommandSettings, to_plain(config, CacheCommandSettings))
    if settings.folder:
        find_folder("folder", settings.folder)
    from segtune.commands.cache import cache

    cache(settings)


def _found(checkpoint: str) -> str:
    """Return a checkpoint's path as given or, of a run's folder, the path of its best checkpoint."""
    file = find_checkpoint(checkpoint)
    return str(file) if is_folder(expanded(checkpoint)) else checkpoint


def find_data(data: DataSettings | EvaluationDataSettings) -> None:
    """Check that the user's data folder exists, if one is named; the built-in data set is generated when missing."""
    if data.root is None:
        return
    if data.name == "portraits":
        expanded(data.root, "data.root")  # may be absent, but not below the home of nobody
    else:
        find_data_folder(data.root)


TASKS: dict[str, Callable[[DictConfig], Any]] = {
    "train": _train,
    "evaluate": _evaluate,
    "plan": _plan,
    "taps": _taps,
    "probe": _probe,
    "check": _check,
    "predict": _predict,
    "export": _export,
    "report": _report,
    "cache": _cache,
}


def task_of(command: str) -> Callable[[DictConfig], Any]:
    """Return the task of a command, which refuses settings of other commands."""

    def perform(config: DictConfig) -> Any:
        if command != "train" and (name := next((n for n in ("resume", "repeat") if config.get(n)), "")):
            raise UserError(f"{name} is a setting of train, not of {command}. Leave it out.")
        return TASKS[command](config)

    return perform


def rank(folder: Path) -> None:
    """Rank the runs of a sweep, and list those that are not finished."""
    from segtune.commands.report import report

    try:
        report(ReportSettings(str(folder)))
    except UserError:
        pass  # there is no run
    except Exception as error:  # must not replace the sweep's own error
        print(f"The runs could not be ranked: {type(error).__name__}: {error}", file=sys.stderr)
