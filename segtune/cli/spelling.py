"""Arguments that are not overrides: flags of other programs, spaces around the equals sign, values without quotes."""

import re
import shlex
from collections.abc import Sequence

from segtune.cli.help import command_groups, setting_names
from segtune.cli.short_names import OF_PHASES, SHORT
from segtune.config.renamed import SYNONYMS
from segtune.errors import UserError

#: Hydra's flags: those with a value, and those without.
_WITH_VALUE = {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p"}
_WITH_VALUE |= {"--cfg", "-c", "--info", "-i", "--experimental-rerun"}
_ALONE = {"--multirun", "-m", "--run", "-r", "--resolve", "--shell-completion", "-sc", "--version", "--hydra-help"}

_OVERRIDE = re.compile(r"~|\+*\w[\w@/.:-]*=")


def check_spelling(arguments: Sequence[str], command: str) -> None:
    """Check that arguments are overrides or flags of Hydra.

    Raises:
        UserError: Some are written otherwise; the message has them as they should be.
    """
    wrong: list[str] = []
    right: list[str] = []
    rest, override = list(arguments), ""
    while rest:
        before, override, argument = override, "", rest.pop(0)
        if _is_flag(argument):
            if argument in _WITH_VALUE and rest and not _is_flag(rest[0]):
                rest.pop(0)
        elif argument.startswith("-") and re.match(r"-+[A-Za-z]", argument):
            name, equals, value = argument.lstrip("-").partition("=")
            parts = [argument]
            if not equals and rest and not _OVERRIDE.match(rest[0]) and not re.match(r"-+[A-Za-z]", rest[0]):
                value = rest.pop(0)
                parts.append(value)
            wrong += parts
            right.append(f"{_known(name.replace('-', '_'), command)}={value or 'VALUE'}")
        elif joined := _joined(argument, rest, command):
            taken, text = joined
            wrong += [argument, *rest[:taken]]
            right.append(text)
            del rest[:taken]
        elif _OVERRIDE.match(argument):
            override = argument
        elif before and argument != "help":
            raise UserError(f"got {argument} after {before}; quote a value with spaces: '{before} {argument}'")
    if wrong:
        how = "without dashes" if any(each.startswith("-") for each in wrong) else "without spaces"
        raise UserError(
            f"got {shlex.join(wrong)}; settings are written as setting=value, {how}: {' '.join(map(_shown, right))}"
        )


def _joined(argument: str, rest: Sequence[str], command: str) -> tuple[int, str] | None:
    """Return how many of the following arguments belong to one, and the override that they make."""
    following = [*rest[:2], "", ""]
    if _OVERRIDE.fullmatch(argument) and following[0] and not _is_other(following[0]):  # name= value
        return 1, f"{argument}{following[0]}"
    if _OVERRIDE.match(argument) or argument.startswith("="):
        return None
    name = _known(argument.rstrip(":"), command)
    if following[0] == "=" and following[1]:  # name = value
        return 2, f"{name}={following[1]}"
    if following[0].startswith("=") and following[0] != "=":  # name =value
        return 1, f"{name}{following[0]}"
    if _is_setting(name, command) and following[0] and not _is_other(following[0]):  # name value
        return 1, f"{name}={following[0]}"
    return None


def _is_other(argument: str) -> bool:
    return bool(_OVERRIDE.match(argument)) or argument.startswith("-")


def _is_flag(argument: str) -> bool:
    name, _, _ = argument.partition("=")
    known = _WITH_VALUE | _ALONE
    return name in known or (len(name) > 4 and any(flag.startswith(name) for flag in known if flag.startswith("--")))


def _known(name: str, command: str) -> str:
    """Return the setting that a name of another program means; the name itself if it is none of these."""
    if _is_setting(name, command) or name in SYNONYMS:
        return name if _is_setting(name, command) else SYNONYMS[name]
    inside = [setting for setting in setting_names(command) if setting.endswith(f".{name}")]
    return inside[0] if len(inside) == 1 else name


def _is_setting(name: str, command: str) -> bool:
    return name in {*SHORT, *OF_PHASES, *command_groups(command), *setting_names(command)}


def _shown(override: str) -> str:
    name, _, value = override.partition("=")
    return f"'{override}'" if re.search(r"[\s'\"()&;<>|*?$\[\]{}]", value) else f"{name}={value}"
