"""The command line: compose with Hydra, validate, call. The only importer of hydra and omegaconf."""

import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtune.config import DivergedError, EvaluateSettings, Interrupted, Settings, UserError, nearest, parse

#: Overrides that may differ when a run goes on.
MAY_CHANGE = ("resume", "train.device", "train.workers", "checkpoint.minutes")


def config_folder() -> Path:
    """Where the YAML files are: inside the installed package, beside it in a checkout."""
    inside = Path(str(files("segtune"))) / "conf"
    return inside if inside.is_dir() else inside.parent.parent / "conf"


def main(command: str, arguments: list[str], *, full_errors: bool = False) -> int:
    """Run a command with Hydra's overrides and flags; return the exit code.

    Args:
        command: `train` or `evaluate`.
        arguments: What follows it on the command line.
        full_errors: Let errors through with their traceback.
    """
    if "--help" in arguments or "-h" in arguments:
        print(settings_help(command))
        return 0
    # Hydra reads the command line itself; and it would answer errors in its own way, with exit code 1.
    sys.argv = [f"segtune {command}", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    OmegaConf.register_new_resolver(
        "segtune.first", lambda *values: next(v for v in values if v is not None), replace=True
    )
    task: Callable[[DictConfig], Any] = {"train": _train, "evaluate": _evaluate}[command]
    failed: list[Exception] = []

    def run(config: DictConfig) -> Any:
        try:
            return task(config)
        except (UserError, DivergedError, OmegaConfBaseException) as error:
            # Hydra would announce it in its own words; of a sweep's job it must know.
            if full_errors or HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failed.append(error)
            with suppress(OSError):  # Hydra has made the run's folder: an empty one is of no use
                Path(HydraConfig.get().runtime.output_dir).rmdir()

    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=command)(run)()
        if failed:
            raise failed[0]
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if full_errors:
            raise
        print(f"segtune {command}: {_readable(error, command)}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"segtune {command}: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        return 130
    return 0


def _train(config: DictConfig) -> float:
    from segtune.commands import train

    settings = _plain(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    if config.resume is not None:
        settings = _resumed(Path(str(config.resume)), settings)
    return float(train(parse(Settings, settings), folder)["val_dice"])


def _evaluate(config: DictConfig) -> None:
    from segtune.commands import evaluate

    evaluate(parse(EvaluateSettings, _plain(config)), Path(HydraConfig.get().runtime.output_dir))


def _plain(config: DictConfig) -> dict[str, Any]:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError("\n".join(f"{name} is not set, and it has no default. Give {name}=…" for name in missing))
    return dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]


def _resumed(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Take the settings of the run in `folder`, with what may change from the command line."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"resume={folder}: there is no run here (no config.yaml). "
            "Expected a run's folder, such as runs/2026-01-31_12-00-00_xception_fcn8s."
        )
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["resume"] = str(folder)
    for override in HydraConfig.get().overrides.task:
        name = override.partition("=")[0].lstrip("+~")
        if name not in MAY_CHANGE:
            raise UserError(
                f"{override}: a resumed run keeps its settings, so that it ends as if it had not been interrupted. "
                f"Only these may change: {', '.join(MAY_CHANGE[1:])}."
            )
        if name != "resume":
            group, key = name.split(".")
            settings[group][key] = given[group][key]
    return dict(settings)


def settings_help(command: str) -> str:
    """List a command's groups, and every setting with its comment, from the YAML files themselves."""
    root = config_folder()
    lines = [
        f"usage: python -m segtune {command} [group=choice …] [setting=value …] [Hydra's flags]",
        "",
        "Hydra's flags: -m runs a sweep over comma-separated values, --config-dir DIR adds a folder of your groups,",
        "--cfg job shows the settings without running, --hydra-help lists the rest.",
        "",
        "Groups (the choice marked * is the default), then the settings as they stand there:",
    ]
    top, chosen = (root / f"{command}.yaml").read_text(encoding="utf-8"), _groups(command)
    for group, choice in chosen.items():
        options = sorted(path.stem for path in (root / group).glob("*.yaml"))
        default = re.sub(r"\$\{(\w+)\}", lambda match: chosen[match[1]], choice)
        lines += ["", f"{group}={' | '.join(f'{o}*' if o == default else o for o in options)}"]
        for option in options if group in ("decoder", "data", "loss") else [default]:
            path = root / group / f"{option}.yaml"
            if path.is_file() and (option == default or group == "decoder"):
                lines += [f"  # {group}={option}", *_indented(path.read_text(encoding="utf-8"), group)]
    lines += ["", "Others:", *_indented(top.split("hydra/hydra_logging: none")[1].split("\nhydra:")[0], "")]
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
        return f"{group}={choice}: there is no such choice.{nearest(choice, options)} {expected}"
    if match := re.search(r"Could not override '([^'.]+)'\. No match in the defaults list", message):
        return f"{match[1]}: there is no such group.{nearest(match[1], _groups(command))} {lists}"
    if match := re.search(r"Could not override '([^']+)'", message):
        known = [*_groups(command), *_setting_names(command)]
        return f"{match[1]}: there is no such setting.{nearest(match[1], known)} {lists}"
    return message.splitlines()[0] if isinstance(error, OmegaConfBaseException) else message


def _groups(command: str) -> dict[str, str]:
    """Give a command's groups with their default choices."""
    entries = yaml.safe_load((config_folder() / f"{command}.yaml").read_text(encoding="utf-8"))["defaults"]
    return {k: str(v) for entry in entries if isinstance(entry, dict) for k, v in entry.items() if " " not in k}


def _setting_names(command: str) -> list[str]:
    return re.findall(r"^ +([a-z][\w.]*):", settings_help(command), flags=re.MULTILINE)
