"""Help on settings, and readable texts for Hydra's errors, from the YAML files themselves."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from segtune.errors import nearest

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


def readable(error: Exception, command: str) -> str:
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
    """Return the YAML files of a command's settings: its own, and one that it builds on."""
    return [command, *(entry for entry in _defaults(command) if isinstance(entry, str) and entry != "_self_")]


def _defaults(name: str) -> list[Any]:
    return list(yaml.safe_load((config_folder() / f"{name}.yaml").read_text(encoding="utf-8"))["defaults"])


def _groups(command: str) -> dict[str, str]:
    """Return a command's groups with their default choices."""
    entries = [entry for name in _files(command) for entry in _defaults(name) if isinstance(entry, dict)]
    return {k: str(v) for entry in entries for k, v in entry.items() if " " not in k}


def _setting_names(command: str) -> list[str]:
    return re.findall(r"^ +([a-z][\w.]*):", settings_help(command), flags=re.MULTILINE)
