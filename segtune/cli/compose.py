"""Compose settings with Hydra, and turn overrides into what its grammar takes."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtune.cli.help import config_folder
from segtune.config.command_settings import (
    EvaluateSettings,
)
from segtune.config.renamed import new_name, with_new_names
from segtune.config.schema import Settings
from segtune.errors import FailedError, UserError, nearest

#: Overrides of mappings that are the user's to fill: Hydra wants these marked, or refuses keys that are not there yet.
OVERRIDE = re.compile(r"~|\+*\w[\w@/.:-]*=")
OPEN = re.compile(r"(freeze\.phases\.\w+(\.\w+)?|restore\.rename|compare\.\w+)=")


def compose(
    command: str,
    arguments: list[str],
    task: Callable[[DictConfig], Any],
    after_sweep: Callable[[Iterable[str]], None],
    *,
    full_errors: bool,
) -> None:
    """Let Hydra compose the settings and run the task, once or, in a sweep, for each combination.

    Args:
        command: The command; its settings are in the YAML file of its name.
        arguments: Overrides and Hydra's flags.
        task: What to run.
        after_sweep: Called with the folders of a sweep of trainings at its end, also if runs failed.
        full_errors: Let errors through with their traceback.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and {"-m", "--multirun"} & set(arguments):
        raise UserError("A sweep (-m) is for one process: with torchrun start its runs one after the other.")
    if {"-sc", "--shell-completion"} & set(arguments):
        raise UserError(
            "Hydra's shell completion does not work with segtune. "
            f"`python -m segtune {command} --help` lists all settings."
        )
    # Hydra reads the command line itself; and it would answer errors in its own way, with exit code 1.
    # Its flags must not stand between overrides.
    overrides = [quoted(_renamed(each)) for each in arguments if OVERRIDE.match(each)]
    flags = [each for each in arguments if not OVERRIDE.match(each)]
    sys.argv = [f"segtune {command}", *flags, *(f"++{each}" if OPEN.match(each) else each for each in overrides)]
    OmegaConf.register_new_resolver(
        "segtune.first", lambda *values: next(v for v in values if v is not None), replace=True
    )
    failed: list[Exception] = []
    sweeps: set[str] = set()

    def run(config: DictConfig) -> Any:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            sweeps.add(HydraConfig.get().sweep.dir)
        try:
            if command != "train" and config.get("resume"):
                raise UserError(f"resume goes on with a training, and {command} is none: leave it out.")
            return task(config)
        except (UserError, FailedError, OmegaConfBaseException) as error:
            # Hydra would announce it in its own words; of a sweep's job it must know.
            if full_errors or HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failed.append(error)

    try:
        with _hydra_raises():
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=command)(run)()
    finally:
        if command == "train" and sweeps:
            after_sweep(sweeps)
    if failed:
        raise failed[0]


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Let Hydra raise errors inside the block, where it would print them and exit."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _renamed(override: str) -> str:
    """Put the new name of a setting in the place of an old one, and say so."""
    name, equals, value = override.partition("=")
    plain = name.lstrip("+~")
    new = new_name(plain)
    if new != plain:
        _announce(plain, new)
    return name.removesuffix(plain) + new + equals + value


def _announce(old: str, new: str) -> None:
    print(f"The setting {old} is now called {new}; the old name still works.", file=sys.stderr)


def quoted(argument: str) -> str:
    """Quote a value that Hydra's grammar has no place for, such as a path with accents or parentheses."""
    name, _, value = argument.partition("=")
    if not value or value[0] in "{'\"":
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        if value[0] == "[":
            parts = [quoted(f"x={part}").removeprefix("x=") for part in value.strip("[]").split(",")]
            return argument if value.count("[") > 1 else f"{name}=[{','.join(parts)}]"
        escaped = value.replace("'", "\\'")
        return f"{name}='{escaped}'"
    return argument


def output_folder(settings: Settings | EvaluateSettings, name: str) -> Path:
    """Say where a command writes: what is asked for, a sweep's folder for the job, or a new one with the time."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().runtime.output_dir)
    return Path(settings.run_dir or f"runs/{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}").expanduser()


def command_line(command: str) -> str:
    """Return the command line that does the same again; of a sweep's job, that of the job alone."""
    config = HydraConfig.get()
    sweep = config.mode == RunMode.MULTIRUN
    overrides = [override.removeprefix("++") for override in config.overrides.task]
    kept = [override for override in overrides if not (sweep and override.startswith("run_dir="))]
    mine = [source.path for source in config.runtime.config_sources if source.provider == "command-line"]
    return shlex.join(["python", "-m", "segtune", command, *(f"--config-dir={path}" for path in mine), *kept])


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Return the composed settings as plain values.

    Raises:
        UserError: A phase is misspelt, or a setting without default is not set.
    """
    for override in HydraConfig.get().overrides.task:
        if match := re.match(r"\+\+freeze\.phases\.(\w+)\.", override):
            name, phases = match[1], config.freeze.phases
            if not {"epochs", "steps"} & set(phases[name]) or "lr" not in phases[name]:
                others = [str(other) for other in phases if other != name]
                raise UserError(
                    f"freeze.phases.{name}: there is no such phase, but {', '.join(others)}.{nearest(name, others)} "
                    f"To add one: +freeze.phases.{name}={{backbone: …, epochs: …, lr: …}}."
                )
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError("\n".join(f"{name} is not set, and it has no default. Give {name}=…" for name in missing))
    plain, used = with_new_names(dict(OmegaConf.to_container(config, resolve=True)))  # type: ignore[arg-type]
    for name in used:  # in a file of the user's
        _announce(name, new_name(name))
    return plain
