"""The versions that are written into reports."""

from importlib.metadata import version

import torch

from segtune.runtime.versions import installed, versions
from segtune.version import __version__


def test_versions_are_those_of_the_imported_packages() -> None:
    found = versions()
    assert found["segtune"] == __version__
    assert found["torch"] == torch.__version__
    assert {name: found[name] for name in ("timm", "numpy")} == {name: version(name) for name in ("timm", "numpy")}
    assert set(found) == {"segtune", "torch", "timm", "numpy", "opencv"}


def test_a_distribution_that_is_not_installed_has_no_version() -> None:
    assert installed("timm", "no-such-library") == {"timm": version("timm"), "no-such-library": ""}
