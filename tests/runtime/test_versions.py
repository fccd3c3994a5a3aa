"""The versions that are written into reports."""

from importlib.metadata import version

import torch

from segtune.runtime.device import Device
from segtune.runtime.versions import environment, installed, versions
from segtune.version import __version__


def test_versions_are_those_of_the_imported_packages() -> None:
    found = versions()
    assert found["segtune"] == __version__
    assert found["torch"] == torch.__version__
    assert {name: found[name] for name in ("timm", "numpy")} == {name: version(name) for name in ("timm", "numpy")}
    assert set(found) == {"segtune", "torch", "timm", "numpy", "opencv"}


def test_an_environment_is_texts_by_name() -> None:
    found = environment(Device(torch.device("cpu"), torch.bfloat16))
    assert found["device"] == f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    assert (found["precision"], found["processes"]) == ("bfloat16", "1")
    assert found["threads"] == str(torch.get_num_threads())
    assert found.items() >= versions().items()


def test_a_distribution_that_is_not_installed_has_no_version() -> None:
    assert installed("timm", "no-such-library") == {"timm": version("timm"), "no-such-library": ""}
