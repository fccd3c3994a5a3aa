"""Render the HTML pages from their Jinja templates."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from segtune.reporting.wording import interval_text, number, shortened, signed


def render(template: str, page: Mapping[str, Any]) -> str:
    """Return a rendered template of `segtune/reporting/pages`; values not marked as safe are escaped."""
    return _pages().get_template(template).render(**page)


@cache
def _pages() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(str(files("segtune.reporting") / "pages"))
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.undefined = jinja2.StrictUndefined
    pages.filters |= {"number": number, "interval": interval_text, "signed": signed, "shortened": shortened}
    return pages
