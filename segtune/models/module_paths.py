"""Dotted module paths: containment, patterns, and the owners of parameters."""

import re
from collections.abc import Collection, Iterable

from torch import nn

from segtune.errors import UserError, nearest, some


def matching(pattern: str, names: Iterable[str], setting: str, parameters: Iterable[str] = ()) -> list[str]:
    """Return the dotted names that a pattern means: itself and all below it, or all full matches of `re:EXPRESSION`.

    Args:
        pattern: The pattern.
        names: The names; with `parameters` those of modules.
        setting: Where the pattern stands, for messages.
        parameters: Names of parameters, which may not be meant.

    Raises:
        UserError: No name matches, or the regular expression is invalid.
    """
    names = list(names)
    found = _matches(pattern, names, setting)
    if found:
        return found
    if tensors := _matches(pattern, parameters, setting):
        raise UserError(
            f"{setting}: '{pattern}' matches parameters only ({some(tensors, 3)}). Freezing is by module, so that "
            f"BatchNorm statistics and dropout are frozen too: name modules, such as {tensors[0].rpartition('.')[0]}."
        )
    hint = "" if pattern.startswith("re:") else pattern_hint(pattern, *names[:1]) or nearest(pattern, names)
    listed = ", ".join(names[:3] + (["…", *names[-2:]] if len(names) > 5 else names[3:]))
    raise UserError(f"{setting}: '{pattern}' matches nothing.{hint} The names are: {listed or 'none'}.")


def pattern_hint(item: str, name: str = "") -> str:
    """Return how a pattern is written, with a name as the example, if an item looks like one that lacks its `re:`."""
    looks = not item.startswith("re:") and re.search(r"[*?+|^$()\[\]{}\\]", item)
    return f" A pattern is a regular expression behind re:, such as 're:{re.escape(name)}.*'." if looks else ""


def _matches(pattern: str, names: Iterable[str], setting: str) -> list[str]:
    if not pattern.startswith("re:"):
        return [name for name in names if within(name, [pattern])]
    try:
        return [name for name in names if re.fullmatch(pattern[3:], name)]
    except re.error as error:
        raise UserError(f"{setting}: '{pattern}' is not a valid regular expression: {error}.") from error


def owners(model: nn.Module) -> list[str]:
    """Return the paths of the modules that hold parameters of their own, in the model's order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))


def cover(model: nn.Module, parameters: Iterable[str]) -> tuple[str, ...]:
    """Return the fewest module paths that hold these parameters and no others."""
    wanted = set(parameters)

    def inside(module: nn.Module, path: str) -> list[str]:
        names = {f"{path}.{name}" if path else name for name, _ in module.named_parameters()}
        if not names & wanted:
            return []
        if names <= wanted and path:
            return [path]
        return [p for n, child in module.named_children() for p in inside(child, f"{path}.{n}" if path else n)]

    return tuple(inside(model, ""))


def within(path: str, roots: Collection[str]) -> bool:
    """Return whether a dotted path is one of some others, or inside one."""
    return any(path == root or path.startswith(f"{root}.") for root in roots)
