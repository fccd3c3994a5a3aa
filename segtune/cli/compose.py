"""Compose settings with Hydra, and name the folder that a command writes to."""

import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from segtune.cli.failures import as_failure
from segtune.cli.help import config_folder
from segtune.cli.quoting import as_typed, check_texts, for_hydra
from segtune.cli.repeat import is_chosen, with_repeated_run
from segtune.cli.short_names import apply_to_phases, long_name, say_unused
from segtune.config.command_settings import SETTINGS, EvaluateSettings
from segtune.config.data_settings import PORTRAITS_ROOT
from segtune.config.renamed import new_name, with_new_names
from segtune.config.schema import Settings
from segtune.errors import FailedError, UserError, nearest
from segtune.runtime.paths import expanded, new_folder

#: Overrides of mappings that users may extend: Hydra refuses new keys unless the override is marked with ++.
OVERRIDE = re.compile(r"~|\+*\w[\w@/.:-]*=")
OPEN = re.compile(r"(freeze\.phases\.\w+(\.\w+)?|restore\.rename|compare\.\w+)=")

# A launcher's plugin has settings of the same name as our file, which add what that leaves out.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")

#: The environment variable that names a job's folder, where the job runs in a process of its own.
JOB_FOLDER = "SEGTUNE_JOB_FOLDER"


def compose(command: str, arguments: list[str], task: Callable[[DictConfig], Any], *, full_errors: bool) -> None:
    """Compose the settings with Hydra and run the task once.

    Args:
        command: The command, whose settings are in the YAML file of the same name.
        arguments: Overrides and Hydra's flags.
        task: The function to run.
        full_errors: Let errors through with their traceback.
    """
    failed: list[Exception] = []

    def run(config: DictConfig) -> Any:
        try:
            return task(config)
        except (UserError, FailedError, OmegaConfBaseException) as error:
            if full_errors:
                raise
            failed.append(error)  # kept from Hydra, which would reword it
        except Exception as error:
            failure = None if full_errors else as_failure(error)
            if failure is None:
                raise
            failed.append(failure)

    call_hydra(command, arguments, run)
    if failed:
        raise failed[0]


def call_hydra(command: str, arguments: list[str], task: Callable[[DictConfig], Any]) -> None:
    """Let Hydra compose the settings and call the task: once, or with the flag -m for each job of a sweep.

    Raises:
        UserError: Arguments are not usable.
    """
    if {"-sc", "--shell-completion"} & set(arguments):
        raise UserError(
            "Hydra's shell completion does not work with segtune. "
            f"`python -m segtune {command} --help` lists all settings."
        )
    # Hydra reads sys.argv itself, and accepts no flags between overrides.
    overrides = for_composition(command, [each for each in arguments if OVERRIDE.match(each)])
    sys.argv = [f"segtune {command}", *_flags(arguments), *overrides]
    OmegaConf.register_new_resolver("segtune.sweep_folder", _sweep_folder(), replace=True)
    with _hydra_raises(), _completed():
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=command)(task)()


def for_composition(command: str, typed: Iterable[str]) -> list[str]:
    """Return overrides as Hydra must get them: by their long names, text in quotes, open mappings marked."""
    renamed = [_renamed(each) for each in typed]
    names = {each.lstrip("+").partition("=")[0] for each in renamed}
    overrides = [for_hydra(long_name(each, command, names), SETTINGS[command]) for each in renamed]
    return [f"++{each}" if OPEN.match(each) else each for each in overrides]


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Make Hydra raise errors inside the block instead of printing them and exiting."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextmanager
def _completed() -> Iterator[None]:
    """Complete settings wherever Hydra composes, inside the block.

    `repeat` means the settings of a run, a root without a kind of data means data=folder, and short names mean the
    settings of every phase. Each job of a sweep has overrides of its own, and --cfg shows what would run: only the
    loader sees them all.
    """
    load = ConfigLoaderImpl.load_configuration

    def load_configuration(
        self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], run_mode: RunMode, **more: bool
    ) -> DictConfig:
        overrides = with_repeated_run(overrides)
        config = load(self, config_name, overrides, run_mode, **more)
        if run_mode != RunMode.RUN:
            return config
        if _names_a_root(config, overrides):
            config = load(self, config_name, [*overrides, "data=folder"], run_mode, **more)
        with open_dict(config):
            apply_to_phases(config, overrides)
        return config

    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]


def _names_a_root(config: DictConfig, overrides: Iterable[str]) -> bool:
    """Return whether settings name a root for the built-in data without choosing these on the command line."""
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    if config.hydra.runtime.choices.get("data") != "portraits" or "data" in given:
        return False
    if config.data.name != "portraits":
        return True
    return "data.name" not in given and ("data.root" in given or str(config.data.root) != PORTRAITS_ROOT)


def _flags(arguments: list[str]) -> list[str]:
    """Return the arguments that are no overrides.

    Raises:
        UserError: One is an override without a name, at which Hydra would fail.
    """
    flags = [each for each in arguments if not OVERRIDE.match(each)]
    for each in flags:
        if each.startswith("="):
            raise UserError(f"got {each!r}, without the name of a setting; expected setting=value.")
    return flags


def _renamed(override: str) -> str:
    """Return an override with the old name of a setting replaced by the new one, and announce it."""
    name, equals, value = override.partition("=")
    plain = name.lstrip("+")
    new = new_name(plain)  # a deletion, ~NAME, is left as it is: it is of a name in a file
    if new != plain:
        _announce(plain, new)
    return name.removesuffix(plain) + new + equals + value


@cache
def _announce(old: str, new: str) -> None:
    """Say that a setting has a new name: once, and of several processes in the first."""
    if os.environ.get("RANK", "0") == "0":
        print(f"The setting {old} is now called {new}; the old name still works.", file=sys.stderr)


def _time() -> str:
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}"


def _sweep_folder() -> Callable[[str | None], str]:
    """Return a function of `run_dir` that returns a sweep's folder: a new one, named by the time, if that is None."""
    found: dict[str | None, str] = {}  # Hydra asks several times; a launcher that copies this could not copy a cache

    def folder(run_dir: str | None) -> str:
        if run_dir not in found:
            new = new_folder(Path("multirun", _time())) if run_dir is None else expanded(run_dir, "run_dir")
            found[run_dir] = str(new)
        return found[run_dir]

    return folder


@contextmanager
def output_folder(settings: Settings | EvaluateSettings, name: str) -> Iterator[Path]:
    """Yield where a command writes: `run_dir`, the job's folder in a sweep, or a new folder named by the time.

    The new folder is this command's alone: it is created here, and removed if the command leaves it empty.

    Raises:
        UserError: It cannot be created.
    """
    if (folder := job_folder()) is not None:
        yield folder
    elif settings.run_dir:
        yield expanded(settings.run_dir, "run_dir")
    else:
        of_command = re.sub(r"[^\w.-]", "_", name)  # the name of a network may hold slashes
        path = Path("runs", f"{_time()}_{of_command}")
        # Of several processes the first creates the folder, and tells the others its name.
        folder = new_folder(path) if os.environ.get("RANK", "0") == "0" else path
        try:
            yield folder
        finally:
            for path in (folder, folder.parent):
                with suppress(OSError):
                    path.rmdir()


def job_folder() -> Path | None:
    """Return the folder of the job of a sweep that runs here, or None outside a sweep.

    Hydra names it, or the process of the sweep that has started this one (see `segtune.cli.jobs`).
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().runtime.output_dir)
    return Path(os.environ[JOB_FOLDER]) if JOB_FOLDER in os.environ else None


def typed_overrides(command: str) -> list[str]:
    """Return the overrides of this run as they were typed; of a job of a sweep without the folder and `resume`.

    The choices that `repeat` has made are left out: it makes them again.
    """
    overrides = [
        as_typed(override.removeprefix("++"), SETTINGS[command])
        for override in HydraConfig.get().overrides.task
        if not is_chosen(override)
    ]
    of_sweep = job_folder() is not None
    return [override for override in overrides if not (of_sweep and override.startswith(("run_dir=", "resume=")))]


def command_words(command: str) -> list[str]:
    """Return the words of the command line that repeats this run; for a job of a sweep, of that job alone."""
    return ["python", "-m", "segtune", command, *own_folders(HydraConfig.get()), *typed_overrides(command)]


def own_folders(config: Any) -> list[str]:
    """Return the flags that name the user's own folders of settings, from Hydra's own settings."""
    sources = config.runtime.config_sources
    return [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]


def command_line(command: str) -> str:
    """Return the command line that repeats this run; for a job of a sweep, of that job alone."""
    return shlex.join(command_words(command))


def to_plain(config: DictConfig, schema: type) -> dict[str, Any]:
    """Return the composed settings of a schema as plain values.

    Raises:
        UserError: A phase is misspelt, a setting without default is not set, or a text is empty or a number.
    """
    for override in HydraConfig.get().overrides.task:
        if match := re.match(r"\+\+freeze\.phases\.(\w+)\.", override):
            name, phases = match[1], config.freeze.phases
            if not {"epochs", "steps"} & set(phases[name]) or "lr" not in phases[name]:
                others = [str(other) for other in phases if other != name]
                raise UserError(
                    f"freeze.phases.{name}: there is no such phase; expected {', '.join(others)}."
                    f"{nearest(name, others)} To add one: +freeze.phases.{name}={{backbone: …, epochs: …, lr: …}}."
                )
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError("\n".join(f"{name} is required. Set {name}=…" for name in missing))
    given = {override.lstrip("+").partition("=")[0] for override in HydraConfig.get().overrides.task}
    values: dict[str, Any] = dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    plain, used = with_new_names(values, given=given)
    for name in used:  # in one of the user's files
        _announce(name, new_name(name))
    check_texts(plain, schema)
    say_unused(plain, given)
    return plain
