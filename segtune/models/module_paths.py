"""Dotted module paths: containment, patterns, and the owners of parameters."""

import re
from collections.abc import Collection, Iterable

from torch import nn

from segtune.errors import UserError, nearest


def matching(pattern: str, names: Iterable[str], setting: str) -> list[str]:
    """Return the dotted names that a pattern means: itself and all below it, or all full matches of `re:EXPRESSION`.

    Raises:
        UserError: No name matches, or the regular expression is invalid.
    """
    names = list(names)
    if pattern.startswith("re:"):
        try:
            found = [name for name in names if re.fullmatch(pattern[3:], name)]
        except re.error as error:
            raise UserError(f"{setting}: '{pattern}' is not a valid regular expression: {error}.") from error
    else:
        found = [name for name in names if name == pattern or name.startswith(f"{pattern}.")]
    if not found:
        hint = "" if pattern.startswith("re:") else nearest(pattern, names)
        some = ", ".join(names[:3] + (["…", *names[-2:]] if len(names) > 5 else names[3:]))
        raise UserError(f"{setting}: '{pattern}' matches nothing.{hint} The names are: {some or 'none'}.")
    return found


def owners(model: nn.Module) -> list[str]:
    """Return the paths of the modules that hold parameters of their own, in the model's order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))


def within(path: str, roots: Collection[str]) -> bool:
    """Return whether a dotted path is one of some others, or inside one."""
    return any(path == root or path.startswith(f"{root}.") for root in roots)
