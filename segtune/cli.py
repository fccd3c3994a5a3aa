"""The command line: compose with Hydra, validate, call. The only importer of hydra and omegaconf."""

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtune.config import (
    CheckSettings,
    DataSettings,
    EvaluateSettings,
    EvaluationDataSettings,
    ExportSettings,
    FailedError,
    Interrupted,
    LostError,
    PlanSettings,
    PredictSettings,
    ProbeSettings,
    ReportSettings,
    Settings,
    TapsSettings,
    UserError,
    nearest,
    parse,
)
from segtune.locate import find_checkpoint, find_data_folder, find_folder
from segtune.resume_rules import check_change
from segtune.wrapping import terminal_width, wrap

#: Seconds that a process which is not the first waits, before it speaks of an error that the first may have too.
PATIENCE = 5

#: Overrides of mappings that are the user's to fill: Hydra wants these marked, or refuses keys that are not there yet.
OVERRIDE = re.compile(r"~|\+*\w[\w@/.:-]*=")
OPEN = re.compile(r"(freeze\.phases\.\w+(\.\w+)?|restore\.rename|compare\.\w+)=")

#: What Hydra's own --hydra-help says, less what does not work here.
HYDRA_HELP = """Hydra's flags, as in python -m segtune {command} [flag …] [setting=value …]

  --cfg job, -c job        show the settings without running; --resolve fills in references, -p GROUP shows one group
  --multirun, -m           run all combinations of comma-separated values
  --config-dir, -cd DIR    add a folder of your groups
  --config-name, -cn NAME  take another file than {command}.yaml as the root of the settings
  --info, -i [WHAT]        show how the settings were composed: all, config, defaults, defaults-tree, searchpath

Hydra's shell completion does not work with segtune's commands. https://hydra.cc has the rest."""


def config_folder() -> Path:
    """Where the YAML files are: inside the installed package, beside it in a checkout."""
    inside = Path(str(files("segtune"))) / "conf"
    return inside if inside.is_dir() else inside.parent.parent / "conf"


def main(command: str, arguments: list[str], *, full_errors: bool = False) -> int:
    """Run a command with Hydra's overrides and flags; return the exit code.

    Args:
        command: One of the commands that take settings.
        arguments: What follows it on the command line.
        full_errors: Let errors through with their traceback.
    """
    if "--help" in arguments or "-h" in arguments:
        print(wrap(settings_help(command), terminal_width(sys.stdout)))
        return 0
    if "--hydra-help" in arguments:
        print(HYDRA_HELP.format(command=command))
        return 0
    try:
        if command == "train" and any(re.match(r"\+*resume=", argument) for argument in arguments):
            _resume(arguments)
        else:
            _compose(command, arguments, _TASKS[command], _rank, full_errors=full_errors)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if full_errors:
            raise
        _complain(f"segtune {command}: {_readable(error, command)}", at_once=isinstance(error, LostError))
        return 2
    except FailedError as error:
        _complain(f"segtune {command}: {error}")
        return 1
    except Interrupted as interrupted:
        if _number() == 0:
            print(wrap(str(interrupted), terminal_width(sys.stderr)), file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        if _number() == 0:
            print("Stopped at once; what came after the last save is lost.", file=sys.stderr)
        return 130
    return 0


def _complain(text: str, *, at_once: bool = False) -> None:
    """Write an error. Of several processes the first does; torchrun then ends the others.

    One that is not ended while it waits has an error of its own, and says so.
    """
    if _number() > 0 and not at_once:
        time.sleep(PATIENCE)
    print(wrap(text, terminal_width(sys.stderr)), file=sys.stderr)


def _number() -> int:
    return int(os.environ.get("RANK", "0"))  # segtune.distributed says the same, but takes seconds to import


def _compose(
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
    overrides = [_quoted(each) for each in arguments if OVERRIDE.match(each)]
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


def _quoted(argument: str) -> str:
    """Quote a value that Hydra's grammar has no place for, such as a path with accents or parentheses."""
    name, _, value = argument.partition("=")
    if not value or value[0] in "{'\"":
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        if value[0] == "[":
            parts = [_quoted(f"x={part}").removeprefix("x=") for part in value.strip("[]").split(",")]
            return argument if value.count("[") > 1 else f"{name}=[{','.join(parts)}]"
        escaped = value.replace("'", "\\'")
        return f"{name}='{escaped}'"
    return argument


# Each task imports its command last: PyTorch takes seconds, and what settings and paths alone can tell is said before.


def _train(config: DictConfig) -> float:
    settings = parse(Settings, _plain(config))
    if settings.resume:
        raise UserError("resume goes on with one run, from the command line: python -m segtune train resume=RUN")
    folder = _folder(settings, f"{settings.backbone.name}_{settings.decoder.name}")
    _find_data(settings.data)
    from segtune.commands import train

    return float(train(settings, folder, _line("train"))["val_dice"])


def _evaluate(config: DictConfig) -> None:
    settings = parse(EvaluateSettings, _plain(config))
    given = settings.checkpoint
    for path in [given] if isinstance(given, str) else given:
        find_checkpoint(path)
    _find_data(settings.data)
    from segtune.evaluate import evaluate

    evaluate(settings, _folder(settings, "evaluate"), _line("evaluate"))


def _plan(config: DictConfig) -> None:
    if OmegaConf.is_missing(config.data, "root"):
        config.data.root = None  # a plan reads no data
    settings = parse(PlanSettings, _plain(config))
    from segtune.commands import plan

    plan(settings)


def _taps(config: DictConfig) -> None:
    if OmegaConf.is_missing(config.data, "root"):
        config.data.root = None  # no data is read
    settings = parse(TapsSettings, _plain(config))
    from segtune.layer_commands import taps

    taps(settings)


def _probe(config: DictConfig) -> None:
    settings = parse(ProbeSettings, _plain(config))
    _find_data(settings.data)
    from segtune.layer_commands import probe

    probe(settings, _folder(settings, f"probe_{settings.backbone.name}"))


def _check(config: DictConfig) -> None:
    settings = parse(CheckSettings, _plain(config))
    _find_data(settings.data)
    from segtune.check import check

    check(settings, _folder(settings, "check"))


def _predict(config: DictConfig) -> None:
    settings = parse(PredictSettings, _plain(config))
    if not settings.checkpoint.lower().endswith(".onnx"):
        find_checkpoint(settings.checkpoint)
    from segtune.predict import predict

    predict(settings)


def _export(config: DictConfig) -> None:
    settings = parse(ExportSettings, _plain(config))
    find_checkpoint(settings.checkpoint)
    from segtune.export import export

    export(settings)


def _report(config: DictConfig) -> None:
    settings = parse(ReportSettings, _plain(config))
    find_folder("folder", settings.folder)
    from segtune.ranking import rank_runs

    rank_runs(settings)


def _find_data(data: DataSettings | EvaluationDataSettings) -> None:
    """Look for the user's data set; the built-in one is made where it is not there."""
    if data.name == "folder":
        find_data_folder(data.root)


_TASKS: dict[str, Callable[[DictConfig], Any]] = {
    "train": _train,
    "evaluate": _evaluate,
    "plan": _plan,
    "taps": _taps,
    "probe": _probe,
    "check": _check,
    "predict": _predict,
    "export": _export,
    "report": _report,
}


def _folder(settings: Settings | EvaluateSettings, name: str) -> Path:
    """Say where a command writes: what is asked for, a sweep's folder for the job, or a new one with the time."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().runtime.output_dir)
    return Path(settings.run_dir or f"runs/{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}").expanduser()


def _line(command: str) -> str:
    """Give the command line that does the same again; of a sweep's job, that of the job alone."""
    config = HydraConfig.get()
    sweep = config.mode == RunMode.MULTIRUN
    overrides = [override.removeprefix("++") for override in config.overrides.task]
    kept = [override for override in overrides if not (sweep and override.startswith("run_dir="))]
    mine = [source.path for source in config.runtime.config_sources if source.provider == "command-line"]
    return shlex.join(["python", "-m", "segtune", command, *(f"--config-dir={path}" for path in mine), *kept])


def _rank(folders: Iterable[str]) -> None:
    """Rank the runs of a sweep, those that finished if some failed."""
    for folder in folders:
        if not any(Path(folder).rglob("summary.json")):
            continue
        from segtune.ranking import rank_runs

        try:
            rank_runs(ReportSettings(folder))
        except UserError:
            pass  # what there is cannot be read
        except Exception as error:  # it must not take the place of what the sweep itself has to say
            print(f"The runs could not be ranked: {type(error).__name__}: {error}", file=sys.stderr)


def _plain(config: DictConfig) -> dict[str, Any]:
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
    return dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]


def _resume(arguments: list[str]) -> None:
    """Go on with a run: its own settings, and what may change of them from the command line."""
    if flags := [argument for argument in arguments if argument.startswith("-")]:
        raise UserError(f"resume goes on with one run and takes no flags; came {' '.join(flags)}.")
    overrides = OverridesParser.create().parse_overrides([_quoted(argument) for argument in arguments])
    given = {override.key_or_group: override for override in overrides}
    folder = Path(str(given.pop("resume").value())).expanduser()
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"resume={folder}: there is no run here (no config.yaml). "
            "Expected a run's folder, such as runs/2026-01-31_12-00-00_xception_fcn8s."
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(settings, dict) or "freeze" not in settings:
        raise UserError(f"{path} holds no settings of a run.")
    for override in given.values():
        _change(settings, override)
    line = shlex.join(["python", "-m", "segtune", "train", *arguments]) if given else ""
    resumed = parse(Settings, settings | {"resume": str(folder)})
    _find_data(resumed.data)
    from segtune.commands import train

    train(resumed, folder, line)


def _change(settings: dict[str, Any], override: Override) -> None:
    """Put an override into a run's settings, if it may change."""
    name = override.key_or_group
    *groups, key = name.split(".")
    changes = not override.is_add() and not override.is_delete()
    adds = override.is_add() or override.is_force_add()
    check_change(str(override.input_line), name, settings["freeze"]["phases"], changes=changes, adds=adds)
    place = settings
    for group in groups:
        place = place[group]
    place[key] = override.value()


def settings_help(command: str) -> str:
    """List a command's groups, and every setting with its comment, from the YAML files themselves."""
    root = config_folder()
    lines = [
        f"usage: python -m segtune {command} [group=choice …] [setting=value …] [Hydra's flags]",
        "",
        "Hydra's flags: -m runs a sweep over comma-separated values, --config-dir DIR adds a folder of your groups,",
        "--cfg job shows the settings without running, --hydra-help lists the rest.",
    ]
    chosen = _groups(command)
    if chosen:
        lines += ["", "Groups (the choice marked * is the default), then the settings as they stand there:"]
    for group, choice in chosen.items():
        options = sorted(path.stem for path in (root / group).glob("*.yaml"))
        default = re.sub(r"\$\{(\w+)\}", lambda match: chosen[match[1]], choice)
        lines += ["", f"{group}={' | '.join(f'{o}*' if o == default else o for o in options)}"]
        for option in options if group in ("decoder", "data", "loss") else [default]:
            path = root / group / f"{option}.yaml"
            if path.is_file() and (option == default or group == "decoder"):
                lines += [f"  # {group}={option}", *_indented(path.read_text(encoding="utf-8"), group)]
    lines += ["", "Others:" if chosen else "Settings:"]
    for name in _files(command):
        own = (root / f"{name}.yaml").read_text(encoding="utf-8").split("hydra/hydra_logging: none")[1]
        lines += _indented(own.split("\nhydra:")[0], "")
    return "\n".join(lines)


def _indented(text: str, group: str) -> list[str]:
    """Show YAML lines under dotted names at the top level, comments kept."""
    prefix = f"{group}." if group else ""
    return [f"  {prefix if line[:1].isalpha() else ''}{line}" for line in text.strip().splitlines() if line.strip()]


def _readable(error: Exception, command: str) -> str:
    """Turn Hydra's messages into one that says what came, what was expected, and what to do."""
    message, lists = str(error).strip(), f"`python -m segtune {command} --help` lists all."
    if match := re.search(r"Could not find '([\w/-]+)/([^']+)'", message):
        group, choice = match.groups()
        options = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
        expected = f"Expected one of: {', '.join(options)}; or a file of your own with --config-dir."
        more = f" Any other CNN of timm: backbone=timm backbone.name={choice}." if group == "backbone" else ""
        return f"{group}={choice}: there is no such choice.{nearest(choice, options)} {expected}{more}"
    if match := re.search(r"Could not override '([^'.]+)'\. No match in the defaults list", message):
        return f"{match[1]}: there is no such group.{nearest(match[1], _groups(command))} {lists}"
    if match := re.search(r"Could not override '([^']+)'", message):
        known = {*_groups(command), *_setting_names(command)} - {match[1]}
        return f"{match[1]}: there is no such setting.{nearest(match[1], known)} {lists}"
    if match := re.match(r"Error parsing override '([^']*)'\s+missing EQUAL", message):
        return f"came {match[1]}; expected setting=value. {lists}"
    return message.splitlines()[0] if isinstance(error, OmegaConfBaseException) else message


def _files(command: str) -> list[str]:
    """Give the YAML files of a command's settings: its own, and one that it builds on."""
    return [command, *(entry for entry in _defaults(command) if isinstance(entry, str) and entry != "_self_")]


def _defaults(name: str) -> list[Any]:
    return list(yaml.safe_load((config_folder() / f"{name}.yaml").read_text(encoding="utf-8"))["defaults"])


def _groups(command: str) -> dict[str, str]:
    """Give a command's groups with their default choices."""
    entries = [entry for name in _files(command) for entry in _defaults(name) if isinstance(entry, dict)]
    return {k: str(v) for entry in entries for k, v in entry.items() if " " not in k}


def _setting_names(command: str) -> list[str]:
    return re.findall(r"^ +([a-z][\w.]*):", settings_help(command), flags=re.MULTILINE)
