"""Skin tone as the individual typology angle (ITA) of the true skin pixels."""

import cv2
import numpy as np
from numpy.typing import NDArray

#: The classes, from the lightest, with the angle in degrees above which each starts.
#: Chardon, Cretois and Hourseau 1991 ("Skin colour typology and suntanning pathways"); Del Bino and Bernerd 2013.
TONES = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
    ("dark", -np.inf),
)


def typology_angle(photo: NDArray[np.uint8], skin: NDArray[np.bool_]) -> float:
    """Return the typology angle of the skin in an image.

    The angle is `atan2(L* - 50, b*)` in degrees, of the median CIELAB values (D65, sRGB) of the skin pixels. It is a
    property of the image: light, white balance and make-up change it as the skin does.

    Args:
        photo: RGB, `(H, W, 3)`.
        skin: The true skin, `(H, W)`.

    Returns:
        The angle, larger for lighter skin; NaN without skin.
    """
    pixels = photo[skin]
    if not len(pixels):
        return float("nan")
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    lightness, _, yellow = np.median(lab, axis=0)
    return float(np.degrees(np.arctan2(lightness - 50, yellow)))


def tone(angle: float) -> str:
    """Return the class of an angle; an empty string for NaN."""
    return next((name for name, above in TONES if angle > above), "")
