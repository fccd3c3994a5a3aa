"""The versions that a result may depend on."""

import cv2
import numpy as np
import torch

from segtune.version import __version__


def versions() -> dict[str, str]:
    """Name the versions that a result may depend on."""
    import timm

    return {
        "segtune": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
