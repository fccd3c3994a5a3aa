"""One version: in the package, on the command line, and in what pip installs."""

import re
import tomllib
from pathlib import Path

import pytest

import segtune
from segtune.__main__ import main
from segtune.version import __version__

REPOSITORY = Path(__file__).parents[1]


def test_the_version_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert segtune.__version__ == __version__
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"segtune {__version__}\n"


def test_the_build_reads_the_version_from_this_file() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    path = REPOSITORY / project["tool"]["hatch"]["version"]["path"]
    assert re.search(r'^__version__ = "(.+)"$', path.read_text(encoding="utf-8"), re.M)[1] == __version__
