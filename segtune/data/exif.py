"""The orientation in the EXIF data of a photo."""

import logging
import warnings
from functools import cache
from pathlib import Path

from PIL import Image

from segtune.data.orientation import as_orientation

log = logging.getLogger(__name__)

_ORIENTATION = 0x0112
_EMPTY = 20  # the most bytes of EXIF data without any entry

# Pillow does not say of which file; `exif_orientation` does.
warnings.filterwarnings("ignore", "Corrupt EXIF data", module=r"PIL\.")


def exif_orientation(path: Path, image: Image.Image) -> int:
    """Return how a photo is stored, 1 (upright) to 8; 1, and a warning, if its EXIF data cannot be read.

    Args:
        path: The file, for the warning.
        image: The opened image.
    """
    try:
        exif = image.getexif()
    except Exception as error:  # on damaged EXIF data Pillow raises nearly anything
        _warn(path, f"{type(error).__name__}: {error}")
        return 1
    if not exif and len(image.info.get("exif") or b"") > _EMPTY:
        _warn(path, "it holds no entry that is whole")
    return as_orientation(exif.get(_ORIENTATION, 1))


def has_warned() -> bool:
    """Return whether the EXIF data of some photo could not be read by this process."""
    return _warn.cache_info().currsize > 0


@cache  # once a process, however often the photo is read
def _warn(path: Path, reason: str) -> None:
    log.warning("%s: its EXIF data cannot be read (%s), so it is used as it is stored, not rotated.", path, reason)
