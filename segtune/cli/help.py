"""Help on settings, generated from the YAML files, and readable messages for Hydra's errors."""

import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from segtune.config.renamed import SYNONYMS, timm_name
from segtune.errors import nearest
from segtune.runtime.wrapping import terminal_width, wrap

#: Hydra's own --hydra-help, without what does not work here.
HYDRA_HELP = """Hydra's flags, as in python -m segtune {command} [flag …] [setting=value …]

  --cfg job, -c job        show the settings without running; --resolve fills in references, -p GROUP shows one group
  --multirun, -m           run all combinations of comma-separated values, one after the other; several at a time with
                           hydra/launcher=joblib | submitit_local | submitit_slurm, see docs/sweeps.md
  --config-dir, -cd DIR    add a folder with your own groups
  --config-name, -cn NAME  use another root file than {command}.yaml
  --info, -i [WHAT]        show how the settings were composed: all, config, defaults, defaults-tree, searchpath

Hydra's shell completion does not work with segtune. See https://hydra.cc for more."""


#: What asks for the help on a command.
HELP_FLAGS = ("-h", "--help", "-help", "--h", "-?", "/?", "--usage")


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks for the help on the command."""
    return any(each in HELP_FLAGS for each in arguments) or list(arguments) == ["help"]


def print_help(command: str) -> None:
    """Print the help on a command, wrapped for the terminal."""
    print(wrap(settings_help(command), terminal_width(sys.stdout)))


def config_folder() -> Path:
    """Return the folder of the YAML files: inside the installed package, or beside it in a checkout."""
    inside = Path(str(files("segtune"))) / "conf"
    return inside if inside.is_dir() else inside.parent.parent / "conf"


def settings_help(command: str) -> str:
    """Return the help on a command: its groups, and every setting with its comment, from the YAML files."""
    root = config_folder()
    lines = [
        f"usage: python -m segtune {command} [group=choice …] [setting=value …] [Hydra's flags]",
        "",
        "Hydra's flags: -m runs a sweep over comma-separated values, --config-dir DIR adds a folder with your own",
        "groups, --cfg job shows the settings without running, --hydra-help lists the others.",
    ]
    if "freeze" in command_groups(command):
        lines += ["", "Short names: epochs and lr (of every phase), batch_size, image_size, tile, overlap."]
    chosen = command_groups(command)
    if chosen:
        lines += ["", "Groups (the choice marked * is the default), then their settings:"]
    for group, choice in chosen.items():
        options = sorted(path.stem for path in (root / group).glob("*.yaml"))
        default = re.sub(r"\$\{(\w+)\}", lambda match: chosen[match[1]], choice)
        lines += ["", f"{group}={' | '.join(f'{o}*' if o == default else o for o in options)}"]
        for option in options if group in ("decoder", "data", "loss") else [default]:
            path = root / group / f"{option}.yaml"
            if path.is_file() and (option == default or group == "decoder"):
                lines += [f"  # {group}={option}", *_indented(path.read_text(encoding="utf-8"), group)]
    lines += ["", "Other settings:" if chosen else "Settings:"]
    for name in _files(command):
        own = (root / f"{name}.yaml").read_text(encoding="utf-8").split("hydra/hydra_logging: none")[-1]
        lines += _indented(own.split("\nhydra:")[0], "")
    return "\n".join(lines)


def _indented(text: str, group: str) -> list[str]:
    """Return YAML lines with dotted names at the top level, and with their comments."""
    prefix = f"{group}." if group else ""
    return [f"  {prefix if line[:1].isalpha() else ''}{line}" for line in text.strip().splitlines() if line.strip()]


def readable(error: Exception, command: str, arguments: Sequence[str] = ()) -> str:
    """Return Hydra's message reworded: what it got, what was expected, and what to do.

    Args:
        error: The error.
        command: The command.
        arguments: Its arguments, which say what is chosen of each group.
    """
    from omegaconf.errors import OmegaConfBaseException  # not needed for the help, which is there at once

    message, lists = str(error).strip(), f"`python -m segtune {command} --help` lists all."
    if isinstance(error, yaml.YAMLError):
        return f"This is no valid YAML: {message}.\nPut text with special characters in quotes, such as ':100'."
    if match := re.search(r"Could not find '((?:hydra/)?[\w-]+)/([^']+)'", message):
        group, choice = match.groups()
        options = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
        expected = f"Expected one of: {', '.join(options)}; or your own file with --config-dir."
        more = (
            f" For any other CNN of timm: backbone=timm backbone.name={timm_name(choice)}."
            if group == "backbone"
            else ""
        )
        return f"{group}={choice}: there is no such choice.{nearest(choice, options)} {expected}{more}"
    if match := re.search(r"Could not override '([^'.]+)'\. No match in the defaults list", message):
        if meant := SYNONYMS.get(match[1]):
            return f"{match[1]}: there is no such group. Did you mean {meant}? {lists}"
        return f"{match[1]}: there is no such group.{nearest(match[1], command_groups(command))} {lists}"
    if match := re.search(r"Could not override '([^']+)'", message):
        if elsewhere := _of_another_choice(match[1], command, arguments):
            return elsewhere
        known = {*command_groups(command), *setting_names(command)} - {match[1]}
        if (meant := SYNONYMS.get(match[1])) and (meant in known or "freeze" in command_groups(command)):
            return f"{match[1]}: there is no such setting. Did you mean {meant}? {lists}"
        return f"{match[1]}: there is no such setting.{nearest(match[1], known)} {lists}"
    if match := re.match(r"Error parsing override '([^']*)'\s+missing EQUAL", message):
        return f"got {match[1]}; expected setting=value. {lists}"
    return message.splitlines()[0] if isinstance(error, OmegaConfBaseException) else message


def _of_another_choice(name: str, command: str, arguments: Sequence[str]) -> str:
    """Return the message that a setting belongs to other choices of its group; an empty text if it does not."""
    group, _, key = name.partition(".")
    default = command_groups(command).get(group)
    if not default or not key:
        return ""
    given = [each.partition("=")[2] for each in arguments if each.startswith(f"{group}=")]
    chosen = given[-1] if given else default
    having = [
        path.stem
        for path in sorted((config_folder() / group).glob("*.yaml"))
        if key.partition(".")[0] in (yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    ]
    if not having or chosen in having:
        return ""
    *others, last = [f"{group}={choice}" for choice in having]
    choices = f"{', '.join(others)} and {last}" if others else last
    return f"{name}: {group}={chosen} has no {key}; {choices} {'has' if len(having) == 1 else 'have'}." + _INSTEAD.get(
        name, ""
    )


_INSTEAD = {
    "optimizer.momentum": " What momentum is to SGD, the first of betas is to Adam: optimizer.betas=[0.9,0.999].",
    "optimizer.betas": " What the first of betas is to Adam, momentum is to SGD: optimizer.momentum=0.9.",
}


def _files(command: str) -> list[str]:
    """Return the YAML files of a command's settings: its own and the one it extends."""
    return [command, *(entry for entry in _defaults(command) if isinstance(entry, str) and entry != "_self_")]


def _defaults(name: str) -> list[Any]:
    return list(yaml.safe_load((config_folder() / f"{name}.yaml").read_text(encoding="utf-8")).get("defaults", ()))


@cache
def command_groups(command: str) -> dict[str, str]:
    """Return a command's groups with their default choices."""
    entries = [entry for name in _files(command) for entry in _defaults(name) if isinstance(entry, dict)]
    return {k: str(v) for entry in entries for k, v in entry.items() if " " not in k}


@cache
def setting_names(command: str) -> list[str]:
    """Return the dotted names of a command's settings, as far as its default choices have them."""
    return re.findall(r"^ +([a-z][\w.]*):", settings_help(command), flags=re.MULTILINE)
