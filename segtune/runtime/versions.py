"""Versions of segtune and of the libraries that a result may depend on."""

from importlib.metadata import PackageNotFoundError, version

import cv2
import numpy as np
import torch

from segtune.runtime import distributed
from segtune.runtime.device import Device
from segtune.version import __version__


def versions() -> dict[str, str]:
    """Return the versions of segtune and of the libraries that a result may depend on."""
    import timm

    return {
        "segtune": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def environment(compute: Device) -> dict[str, str]:
    """Return, by name, what the bits of a result may depend on beside settings and data: device, threads, versions."""
    device = compute.device
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    counts = {"threads": torch.get_num_threads(), "processes": distributed.world()}
    return {
        "device": f"{device.type} ({kind})",
        "precision": compute.precision,
        **{name: str(number) for name, number in counts.items()},
        **versions(),
    }


def installed(*libraries: str) -> dict[str, str]:
    """Return the versions of installed distributions by name; empty for one of which another build is installed."""

    def find(library: str) -> str:
        try:
            return version(library)
        except PackageNotFoundError:
            return ""

    return {library: find(library) for library in libraries}
