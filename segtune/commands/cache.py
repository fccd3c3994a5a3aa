"""The command `cache`: list the features that are kept for all runs, or remove them."""

import json
import sys
import time
from datetime import datetime
from typing import Any

from rich.table import Table

from segtune.config.command_settings import CacheCommandSettings
from segtune.errors import FailedError, some
from segtune.runtime.console import compact_table, print_table, say, set_up_logging, shown
from segtune.training.feature_folders import Kept, cache_root, kept, remove

_DAY = 86_400


def cache(settings: CacheCommandSettings) -> list[dict[str, Any]]:
    """List what the feature cache keeps, or remove it; return what was listed or removed, as plain values.

    Raises:
        FailedError: Some of it could not be removed.
    """
    set_up_logging()
    root = cache_root(settings.folder)
    now = time.time()
    found = [each for each in kept(root) if now - each.used >= settings.days * _DAY]
    rows = [row(each) for each in found]
    left, freed = [], 0
    for each in found if settings.clear else ():
        freed += remove(each.folder)
        if each.folder.exists() and any(other.folder == each.folder for other in kept(root)):
            left.append(each.folder.name)
    since = f" that were not used for {settings.days} days" if settings.days else ""
    if settings.format == "json":
        total = {"folder": str(root), "bytes": sum(each.size for each in found), "freed": freed, "features": rows}
        sys.stdout.write(json.dumps(total, indent=2) + "\n")
    elif not found:
        say(f"No features are kept{since} in {shown(root)}.")
    elif settings.clear:
        say(f"Removed features{since} from {shown(root)}: {_size(freed)} are free again.")
    else:
        print_table(table_of(rows))
        say(
            f"{_size(sum(each.size for each in found))} in {shown(root)}. `python -m segtune cache clear=true` removes "
            "them; runs that need them make them anew."
        )
    if left:
        raise FailedError(f"{len(left)} folders in {root} could not be removed: {some(left)}. Are they yours?")
    return rows


def row(each: Kept) -> dict[str, Any]:
    """Return what one folder keeps, as plain values."""
    facts = {name: each.facts.get(name) for name in ("backbone", "frozen_to", "of", "size", "dtype")}
    return facts | {
        "images": each.images,
        "views": each.views,
        "bytes": each.size,
        "used": datetime.fromtimestamp(each.used).astimezone().isoformat(timespec="seconds"),
        "folder": each.folder.name,
    }


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return a table of what is kept."""
    table = compact_table()
    for name in ("backbone", "frozen up to", "of", "image size", "images x views", "kept as", "on disk", "last used"):
        table.add_column(name, justify="right" if name in ("images x views", "on disk") else "left")
    for each in rows:
        size = each["size"]
        table.add_row(
            *(str(each[name] or "?") for name in ("backbone", "frozen_to", "of")),
            " x ".join(map(str, size)) if isinstance(size, list) else "?",
            f"{each['images']:,} x {each['views']}",
            str(each["dtype"] or "?"),
            _size(each["bytes"]),
            each["used"][:16].replace("T", " "),
        )
    return table


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
